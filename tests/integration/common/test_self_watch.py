"""A service that stands still ends, with an error and one line; one that answers does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.common.credentials import Keyring
from services.common.health import Health
from services.common.self_watch import ask_health
from services.common.server import Server
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from tests.integration.common.test_process import start
from tests.integration.common.test_server import Certificates, certificates

__all__ = ["certificates"]  # a fixture

PROGRAM = """
import asyncio, threading, time
from prometheus_client import CollectorRegistry
from services.common import health, self_watch
from services.common.process import open_frame, run
from services.common.server_settings import ServerSettings

self_watch.ASK_SECONDS = self_watch.ANSWER_SECONDS = self_watch.LOOK_SECONDS = 0.4
self_watch.LAST_SECONDS = 3.0

async def hang(*_):
    await asyncio.Event().wait()

async def serve(settings, stop):
    async with open_frame("shop", settings, CollectorRegistry()) as frame:
        frame.bind()
        await frame.server.start()
        if {loop}:
            asyncio.get_running_loop().call_later(0.5, time.sleep, 600)
        try:
            await frame.server.serve_until_stopped(stop)
        finally:
            print("closes", flush=True)

if {calls}:
    health.Health.Check = hang
run("shop", ServerSettings, serve)
"""


@pytest.mark.parametrize("hangs", ["loop", "calls"])
async def test_a_service_that_stands_still_ends(hangs: str) -> None:
    program = PROGRAM.format(loop=hangs == "loop", calls=hangs == "calls")
    with start(program) as running:
        out, errors = await asyncio.to_thread(running.communicate, timeout=60)
    assert running.returncode == 1
    assert out == ("closes\n" if hangs == "calls" else "")  # it still can, so it ends in order
    (line,) = [line for line in errors.splitlines() if '"level":"critical"' in line]
    assert "stands still" in line


HANGING = """
import time
from prometheus_client import CollectorRegistry
from services.common import self_watch
from services.common.process import open_frame, run
from services.common.server_settings import ServerSettings

self_watch.START_SECONDS = self_watch.SAID_SECONDS = 0.5

async def serve(settings, stop):
    async with open_frame("shop", settings, CollectorRegistry()) as frame:
        frame.bind()
        if {starts}:
            await frame.server.start()
        time.sleep({seconds})

run("shop", ServerSettings, serve)
"""


async def test_a_start_that_comes_to_no_end_is_ended() -> None:
    with start(HANGING.format(starts=False, seconds=600)) as running:
        _, errors = await asyncio.to_thread(running.communicate, timeout=60)
    assert running.returncode == 1
    (line,) = [line for line in errors.splitlines() if '"level":"critical"' in line]
    assert "the start stands still" in line


async def test_a_start_that_came_to_its_end_is_not() -> None:
    with start(HANGING.format(starts=True, seconds=3)) as running:
        _, errors = await asyncio.to_thread(running.communicate, timeout=60)
    assert (running.returncode, errors) == (0, "")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0", "unix"])
async def test_a_server_is_asked_at_its_own_address(listen: str, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/socket" if listen == "unix" else listen
    async with bound(listen=listen) as (server, port), asyncio.timeout(30):
        await ask_health(listen, port, tls=False)
        await server.close()
        with pytest.raises(OSError, match=r"refused|No such file|Connect call failed"):
            await ask_health(listen, port, tls=False)


async def test_one_that_listens_everywhere_is_asked_here(tmp_path: Path) -> None:
    async with bound(listen="127.0.0.1:0") as (_, port), asyncio.timeout(30):
        await ask_health("0.0.0.0:0", port, tls=False)


async def test_one_with_a_certificate_is_asked_whoever_signed_it(
    certificates: Certificates,
) -> None:
    files = {"tls_certificate": certificates["server.pem"], "tls_key": certificates["server.key"]}
    async with bound(**files) as (_, port), asyncio.timeout(30):
        await ask_health("127.0.0.1:0", port, tls=True)


async def test_a_call_that_is_not_answered_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Health, "Check", hang)
    async with bound() as (_, port):
        asking = asyncio.create_task(ask_health("127.0.0.1:0", port, tls=False))
        await asked.wait()
        _, pending = await asyncio.wait((asking,), timeout=0.2)
        assert pending
        asking.cancel()


@asynccontextmanager
async def bound(**settings: Any) -> AsyncIterator[tuple[Server, int]]:
    server = Server(ServerSettings(**settings), Keyring.load(None), Tracing("shop"))
    try:
        yield server, await server.start()
    finally:
        await server.close()
