"""The frame around a service: what it opened is closed, whatever became of the service."""

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.config import ConfigError
from services.common.process import Frame, open_frame
from services.common.server_settings import ServerSettings
from tests.integration.common.raw_http2 import answer, request
from tests.making.opened import closes, opened, taken_port

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
    await closes(before)


async def test_an_address_that_is_taken_leaves_nothing_open() -> None:
    with taken_port() as port:
        before = opened()
        with pytest.raises(ConfigError, match="listen address"):
            async with framed(listen=f"127.0.0.1:{port}") as frame:
                frame.bind()
        with pytest.raises(ConfigError, match="metrics listen address"):
            async with framed(metrics_listen=f"127.0.0.1:{port}"):
                pass
        await closes(before)


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
from services.common.server_settings import ServerSettings

async def serve(settings, stop):
    print(settings.drain_seconds, type(asyncio.get_running_loop()).__module__, flush=True)
    await stop.wait()
    print("ends", flush=True)

run("shop", ServerSettings, serve)
"""


def start(program: str = PROGRAM, end: str = "", **environ: str) -> "subprocess.Popen[str]":
    """`end` is what the shell is told beside the command."""
    command = f"exec {shlex.join([sys.executable, '-c', program])} {end}"
    return subprocess.Popen(
        ["sh", "-c", command],
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


FORKING = """
import asyncio, os
import {first}
import grpc, services

async def fork():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    await server.stop(0)

asyncio.run(fork())
"""


@pytest.mark.parametrize(("first", "says"), [("services.common.process", ""), ("grpc", "fork")])
async def test_grpc_does_nothing_at_forks_of_a_service(first: str, says: str) -> None:
    """Children die of it now and then before they are their program; it says so where it does."""
    program = FORKING.replace("{first}", first)
    with start(program, GRPC_VERBOSITY="info", GRPC_ENABLE_FORK_SUPPORT="") as running:
        _, errors = await asyncio.to_thread(running.communicate, timeout=30)
    assert running.returncode == 0
    assert ("fork" if "fork" in errors else "") == says


STARVED = """
import asyncio, threading
from services.common.process import run
from services.common.server_settings import ServerSettings

def fail(_):
    raise RuntimeError("can't start new thread")

async def serve(settings, stop):
    start, threading.Thread.start = threading.Thread.start, fail
    print(await asyncio.to_thread(lambda: "worked"), flush=True)
    threading.Thread.start = start

run("shop", ServerSettings, serve)
"""


async def test_what_runs_beside_the_loop_needs_no_thread_later() -> None:
    with start(STARVED) as running:
        out, errors = await asyncio.to_thread(running.communicate, timeout=30)
        assert (out, errors, running.returncode) == ("worked\n", "", 0)


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
from services.common.server_settings import ServerSettings

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


TALKATIVE = """
import asyncio, logging, os, sys
import structlog
from services.common.log_lines import LOST
from services.common.process import run
from services.common.server_settings import ServerSettings

async def serve(settings, stop):
    for n in range(20_000):
        structlog.get_logger().info("said", n=n, words="word " * 100)
    logging.getLogger("library").error("it says")
    os.write(2, b"E0000 00:00:00 core.cc:1] it says\\nand more\\n")
    print("served", flush=True)
    await stop.wait()
    print(LOST.unread, LOST.failed, flush=True)

run("shop", ServerSettings, serve)
"""


async def served_and_stopped(running: "subprocess.Popen[str]") -> list[int]:
    """Sees it serve and end as it should. Returns how many lines of its log were lost, by why."""
    assert running.stdout is not None
    first = await asyncio.wait_for(asyncio.to_thread(running.stdout.readline), 30)
    assert first == "served\n"
    running.send_signal(signal.SIGTERM)
    last = await asyncio.wait_for(asyncio.to_thread(running.stdout.readline), 30)
    assert await asyncio.to_thread(running.wait, 30) == 0
    return [int(count) for count in last.split()]


async def test_a_log_that_nobody_reads_holds_nothing_up() -> None:
    with start(TALKATIVE) as running:
        unread, _ = await served_and_stopped(running)
        assert unread > 1000
        assert running.stderr is not None
        running.stderr.close()


async def test_a_log_that_nobody_can_read_any_more_ends_nothing() -> None:
    with start(TALKATIVE) as running:
        assert running.stderr is not None
        running.stderr.close()
        unread, failed = await served_and_stopped(running)
        assert unread + failed > 1000


async def test_a_log_on_a_full_disk_ends_nothing() -> None:
    with start(TALKATIVE, "2>/dev/full") as running:
        unread, failed = await served_and_stopped(running)
        assert unread + failed > 1000


async def test_a_service_without_standard_error_runs() -> None:
    with start(TALKATIVE, "2>&-") as running:
        await served_and_stopped(running)


async def test_whoever_writes_to_standard_error_makes_a_line_of_the_log() -> None:
    with start(TALKATIVE.replace("20_000", "3")) as running:
        served = asyncio.create_task(served_and_stopped(running))
        assert running.stderr is not None
        said = await asyncio.to_thread(running.stderr.read)
        assert await served == [0, 0]
    lines = [json.loads(line) for line in said.splitlines()]
    found = {(line["event"], line.get("logger"), line["level"]) for line in lines}
    assert found == {
        ("said", None, "info"),
        ("it says", "library", "error"),
        ("E0000 00:00:00 core.cc:1] it says", "stderr", "warning"),
        ("and more", "stderr", "warning"),
    }
    assert {line["service"] for line in lines} == {"shop"}


async def test_a_service_that_fails_says_why_in_its_log() -> None:
    program = PROGRAM.replace("await stop.wait()", "raise ZeroDivisionError('by zero')")
    with start(program) as running:
        _, errors = await asyncio.to_thread(running.communicate, timeout=30)
    assert running.returncode == 1
    (line,) = errors.splitlines()
    assert json.loads(line)["level"] == "critical"
    assert "ZeroDivisionError: by zero" in json.loads(line)["exception"]


async def test_a_crash_beneath_python_is_still_told() -> None:
    program = PROGRAM.replace("await stop.wait()", "import os; os.abort()")
    with start(program) as running:
        _, errors = await asyncio.to_thread(running.communicate, timeout=30)
    assert running.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in errors


SECRET = b"Bearer \xff\xe9 my-secret"


async def test_bytes_of_a_stranger_s_request_are_not_logged() -> None:
    program = FAULTY.replace("intake._handle = fail", "")
    with start(program) as running:
        assert running.stdout is not None
        port = int(await asyncio.to_thread(running.stdout.readline))
        for field in (
            (b"authorization", SECRET),
            (b"x-other", SECRET),
            (b"x-other-bin", SECRET),
            (b"pennyweight-tenant", SECRET),
            (b"user-agent", SECRET),
            (b"grpc-encoding", SECRET),
            (b"grpc-timeout", SECRET),
            (b"content-type", SECRET),
            (b":my-secret", SECRET),
            (b"my-secret-\xff", SECRET),
        ):
            await answer(port, request(field, path=b"/grpc.health.v1.Health/Check"))
        await answer(port, request(path=b"/\xffmy-secret"))
        await answer(port, request(authority=SECRET))
        running.send_signal(signal.SIGTERM)
        out, errors = await asyncio.to_thread(running.communicate, timeout=30)
    assert running.returncode == 0
    assert "my-secret" not in out + errors
