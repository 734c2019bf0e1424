"""The frame around a service: what it opened is closed, whatever became of the service."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.config import ConfigError
from services.common.process import Frame, open_frame
from services.common.server import ServerSettings
from tests.integration.common.raw_http2 import answer, request
from tests.making.opened import opened, taken_port

TRACED = {"otlp_endpoint": "http://127.0.0.1:1"}


def framed(**settings: Any) -> Any:
    return open_frame("shop", ServerSettings(**(TRACED | settings)), CollectorRegistry())


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def bound(frame: Frame) -> int:
    return frame.bind()


async def started(frame: Frame) -> int:
    frame.bind()
    return await frame.server.start()


@pytest.mark.parametrize("begin", [bound, started])
async def test_a_service_that_fails_leaves_nothing_open(begin: Any) -> None:
    before, ports = opened(), []

    async def fail() -> None:
        async with framed() as frame:
            ports.extend([await begin(frame), frame.metrics_port])
            assert opened() > before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert all(map(is_free, ports))
    assert opened() == before


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    with taken_port() as port:
        before = opened()
        with pytest.raises(ConfigError, match="listen address"):
            async with framed(listen=f"127.0.0.1:{port}") as frame:
                frame.bind()
        with pytest.raises(ConfigError, match="metrics listen address"):
            async with framed(metrics_listen=f"127.0.0.1:{port}"):
                pass
        assert opened() == before


async def test_the_server_is_stopped_before_what_the_service_opened_last_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    async with framed() as frame:
        stop = frame.server.close

        async def stopping() -> None:
            closed.append("server")
            await stop()

        monkeypatch.setattr(frame.server, "close", stopping)
        frame.closing.callback(closed.append, "first")
        frame.closing.callback(closed.append, "second")
        frame.bind()
    assert closed == ["server", "second", "first"]


PROGRAM = """
import asyncio, sys
from services.common.process import run
from services.common.server import ServerSettings

async def serve(settings, stop):
    print(settings.drain_seconds, type(asyncio.get_running_loop()).__module__, flush=True)
    await stop.wait()
    print("ends", flush=True)

run("shop", ServerSettings, serve)
"""


def start(program: str = PROGRAM, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_runs_until_it_is_told_to_end(number: signal.Signals) -> None:
    with start(PENNYWEIGHT_SHOP_DRAIN_SECONDS="7") as running:
        assert running.stdout is not None
        first = await asyncio.to_thread(running.stdout.readline)
        assert first.split() == ["7.0", "uvloop"]
        running.send_signal(number)
        out, errors = await asyncio.to_thread(running.communicate, timeout=30)
        assert (out, errors, running.returncode) == ("ends\n", "", 0)


async def test_wrong_settings_end_it_with_a_sentence() -> None:
    with start(PENNYWEIGHT_SHOP_DRAIN_SECS="7") as running:
        out, errors = await asyncio.to_thread(running.communicate, timeout=30)
        assert (out, running.returncode) == ("", 2)
        assert errors == (
            "pennyweight: bad configuration in environment\n"
            "  PENNYWEIGHT_SHOP_DRAIN_SECS: no such setting\n"
        )


FAULTY = """
import asyncio
from prometheus_client import CollectorRegistry
from services.common import intake
from services.common.process import open_frame, run
from services.common.server import ServerSettings

def fail(*_):
    raise ZeroDivisionError

intake._handle = fail

async def serve(settings, stop):
    async with open_frame("shop", settings, CollectorRegistry()) as frame:
        frame.bind()
        print(await frame.server.start(), flush=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(frame.server.serve_until_stopped(stop))

run("shop", ServerSettings, serve)
"""


async def test_a_process_whose_server_ends_by_itself_ends_with_an_error() -> None:
    with start(FAULTY) as running:
        assert running.stdout is not None
        port = int(await asyncio.to_thread(running.stdout.readline))
        await answer(port, request(path=b"/t.T/U"))
        _, errors = await asyncio.to_thread(running.communicate, timeout=30)
    assert running.returncode == 1
    critical = [line for line in errors.splitlines() if '"level":"critical"' in line]
    assert len(critical) == 1
    assert "ZeroDivisionError" in critical[0]
