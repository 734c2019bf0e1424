"""What strangers, crowds and callers who read nothing may take of a server."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    message,
    request_headers,
)
from pennyweight.router.v1 import router_pb2
from services.common import gate, intake, keyless
from services.common.credentials import DEVELOPMENT_KEY
from services.common.server import MAX_STREAMS, MOST_HEALTH_CALLS
from tests.integration.common.serving import KEY, ROUTER, Running, serving
from tests.integration.raw_caller import RawCaller
from tests.integration.router.world import until

CHECK = "/grpc.health.v1.Health/Check"
COMPLETE = f"/{ROUTER}/Complete"
ASKED = router_pb2.CompleteRequest(route="r").SerializeToString()


async def silence() -> AsyncIterator[bytes]:
    """Messages that never come."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("method", ["Complete", "Generate", "ListRoutes"])
async def test_a_stranger_is_refused_before_its_message_is_read(method: str) -> None:
    async with serving() as running:
        call: Any = running.channel.stream_unary(f"/{ROUTER}/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(silence(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_without_a_message_is_the_callers_fault() -> None:
    async with serving() as running:
        call: Any = running.channel.stream_unary(COMPLETE)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(iter(()), metadata=KEY, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_largest_message_of_a_stranger_ends_in_words() -> None:
    async with serving() as running:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.complete("x" * 4_000_000, metadata=())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await running.complete("r") == "r"


async def test_a_burst_of_calls_loses_none() -> None:
    """They come while the server is busy: it sees none before gRPC has them all."""
    callers = 4
    async with serving() as running:
        lines = [_sent(running.port, MAX_STREAMS) for _ in range(callers)]
        kinds: dict[int, int] = {HEADERS: 0, RST_STREAM: 0}
        for line in lines:
            reader, writer = await asyncio.open_connection(sock=line)
            async with asyncio.timeout(60):
                ended = 0
                while ended < MAX_STREAMS:
                    word, flags, _ = struct.unpack(">IBI", await reader.readexactly(9))
                    await reader.readexactly(word >> 8)
                    kind = word & 255
                    if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                        kinds[kind] += 1
                        ended += 1
            writer.close()
        assert kinds == {HEADERS: callers * MAX_STREAMS, RST_STREAM: 0}


def _sent(port: int, calls: int) -> socket.socket:
    """A connection whose calls gRPC has taken in, all without the event loop."""
    line = socket.create_connection(("127.0.0.1", port))
    line.settimeout(20)
    head = request_headers(COMPLETE, "localhost")
    out = PREFACE + frame(SETTINGS, 0, 0, b"")
    out += b"".join(
        frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message(ASKED))
        for stream in range(1, 2 * calls, 2)
    )
    line.sendall(out + frame(PING, 0, 0, b"are you?"))
    while True:
        word, flags, _ = struct.unpack(">IBI", _exactly(line, 9))
        _exactly(line, word >> 8)
        if word & 255 == PING and flags & ACK:
            return line


def _exactly(line: socket.socket, size: int) -> bytes:
    return line.recv(size, socket.MSG_WAITALL) if size else b""


async def test_calls_of_one_tenant_that_nobody_reads_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "MOST_CALLS_OF_ONE", 3)
    async with serving() as running:
        async with RawCaller(running.port, DEVELOPMENT_KEY, window=0) as raw:
            for _ in range(3):
                raw.call(COMPLETE, ASKED)
            await until(lambda: len(running.shop.callers) == 3)
            refused = raw.call(COMPLETE, ASKED)
            await until(lambda: raw.streams[refused].ended)
            assert b"too many calls" in b"".join(raw.streams[refused].headers)
            other = ("pennyweight-tenant", "other")
            assert await running.complete(metadata=(*KEY, other)) == "r"
        await _answered(running)


async def _answered(running: Running) -> None:
    """Once gRPC has seen the connection end, there is room again."""
    for _ in range(1000):
        with suppress(grpc.aio.AioRpcError):
            await running.complete()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("there is no room again")


async def test_a_stranger_holds_few_health_calls_and_others_are_answered() -> None:
    async with serving() as running, RawCaller(running.port, None, window=0) as raw:
        for _ in range(MOST_HEALTH_CALLS + 20):
            raw.call(CHECK, b"")
        await until(lambda: sum(seen.ended for seen in raw.streams.values()) == 20)
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        found = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_calls_without_their_message_end_soon_also_those_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyless, "MESSAGE_SECONDS", 0.1)
    async with serving() as running:
        check: Any = running.channel.stream_unary(CHECK)
        calls = [check(silence(), timeout=10) for _ in range(20)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {end.code() for end in ends} == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_stream_by_reflection_ends_when_no_more_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyless, "STREAM_SECONDS", 0.1)
    ask = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    async with serving() as running:
        call: Any = running.channel.stream_stream(ask)(silence())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        big: Any = running.channel.stream_stream(ask)(iter([b"x" * 5000]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await big.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_calls_whose_answer_is_not_taken_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "MOST_CALLS", 8)
    monkeypatch.setattr(keyless, "CALL_SECONDS", 0.1)
    async with serving() as running, RawCaller(running.port, None, window=0) as raw:
        for _ in range(40):
            raw.call(CHECK, b"")
        await asyncio.sleep(0.1)
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        found = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert found.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("sent", [b"x" * 5000, b"\x0a\x02\xff\xff"])
async def test_a_message_to_health_is_small_and_whole(sent: bytes) -> None:
    async with serving() as running:
        call: Any = running.channel.unary_unary(CHECK)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(sent, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_server_takes_no_more_calls_than_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "MOST_CALLS", 2)
    go = asyncio.Event()
    async with serving() as running:
        running.shop.do = go.wait
        calls = [asyncio.create_task(running.complete(timeout=30)) for _ in range(5)]
        await until(lambda: len(running.shop.callers) == 2)
        await asyncio.sleep(0.1)
        assert len(running.shop.callers) == 2
        go.set()
        assert await asyncio.gather(*calls) == ["r"] * 5
