"""What callers without a key can take up of a server: connections, watches, reflection, its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common import health, keyless, reflection
from services.common import server as server_module
from tests.integration.common.raw_http2 import (
    END_HEADERS,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    request,
)
from tests.integration.common.serving import ROUTER, serving
from tests.integration.raw_caller import RawCaller

SERVING = health_pb2.HealthCheckResponse.SERVING
NO_WINDOW = (4).to_bytes(2, "big") + bytes(4)
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def closes(connection: Connection) -> None:
    """Waits until the other end closes it."""
    reader, writer = connection
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while await reader.read(4096):
                pass
    writer.close()


async def greeted(port: int) -> Connection | None:
    """A connection that the server has greeted; None: the server closed it instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        await asyncio.wait_for(reader.readexactly(9), 10)
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()
        return None
    return reader, writer


async def test_more_connections_than_so_many_are_closed_and_others_go_on() -> None:
    async with serving(max_connections=4) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        tried = [await greeted(running.port) for _ in range(6)]
        held = [connection for connection in tried if connection]
        assert 1 <= len(held) <= 3, "the channel's own, one at least and at times two, count too"
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        for _, writer in held:
            writer.close()


async def test_one_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_MS", 100)
    async with serving() as running:
        await closes(await asyncio.open_connection("127.0.0.1", running.port))


async def test_one_without_a_call_is_closed_and_its_client_makes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "IDLE_MS", 100)
    async with serving() as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        for _ in range(2):
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
            async with asyncio.timeout(10):
                while running.channel.get_state() is grpc.ChannelConnectivity.READY:
                    await running.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        connection = await greeted(running.port)
        assert connection
        await closes(connection)


async def test_who_watches_most_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_WATCHES", 2)
    ask = health_pb2.HealthCheckRequest()
    own = (("grpc.use_local_subchannel_pool", 1),)  # else both share a connection
    async with (
        serving() as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=own) as loud,
    ):
        many, quiet = (health_pb2_grpc.HealthStub(each) for each in (loud, running.channel))

        async def watch(stub: Any) -> Any:
            call = stub.Watch(ask)
            assert (await call.read()).status == SERVING
            return call

        watches = [await watch(many) for _ in range(2)]
        kept = await watch(quiet)
        watches += [await watch(many) for _ in range(5)]
        for call in watches[:-1]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await quiet.Check(ask)).status == SERVING
        assert not kept.done()
        assert not watches[-1].done()


def look(symbol: str = ROUTER) -> reflection_pb2.ServerReflectionRequest:
    return reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)


@pytest.mark.parametrize("asked", [[look()] * 3, [look("x" * 2000)]], ids=["many", "large"])
async def test_by_reflection_little_is_asked(
    monkeypatch: pytest.MonkeyPatch, asked: list[reflection_pb2.ServerReflectionRequest]
) -> None:
    monkeypatch.setattr(reflection, "MOST_REQUESTS", 2)
    async with serving() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        call = stub.ServerReflectionInfo(iter(asked))
        for _ in asked[1:]:
            assert (await call.read()).HasField("file_descriptor_response")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        good = [one async for one in stub.ServerReflectionInfo(iter([look()] * 2))]
        assert all(one.file_descriptor_response.file_descriptor_proto for one in good)


async def test_by_reflection_few_ask_at_once_and_who_asks_most_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reflection, "MOST_STREAMS", 2)
    own = (("grpc.use_local_subchannel_pool", 1),)  # else both share a connection
    async with (
        serving() as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=own) as loud,
    ):
        many, quiet = (
            reflection_pb2_grpc.ServerReflectionStub(each) for each in (loud, running.channel)
        )

        async def open_look(stub: Any) -> Any:
            call = stub.ServerReflectionInfo()
            await call.write(look())
            assert (await call.read()).HasField("file_descriptor_response")
            return call

        first, second = await open_look(many), await open_look(many)
        kept = await open_look(quiet)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in (second, kept):
            await call.write(look())
            assert (await call.read()).HasField("file_descriptor_response")
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF


REFLECT = f"/{reflection.NAME}/ServerReflectionInfo"
WATCH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Watch"


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_who_takes_no_answer_by_reflection_makes_room_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reflection, "MOST_STREAMS", 4)
    async with serving() as running, RawCaller(running.port, None, window=0) as holder:
        held = [holder.call(REFLECT, look().SerializeToString()) for _ in range(4)]
        await until(lambda: all(holder.streams[one].headers for one in held))
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        for _ in range(5):
            good = [one async for one in stub.ServerReflectionInfo(iter([look()]), timeout=10)]
            assert good[0].HasField("file_descriptor_response")


@pytest.mark.parametrize("method", [REFLECT, WATCH], ids=["reflection", "watch"])
async def test_an_answer_of_a_stream_that_nobody_takes_ends_what_serves_it(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(keyless, "CALL_SECONDS", 0.2)
    begun, left = list[str](), list[str]()
    for servicer, name in (
        (health.Health, "Watch"),
        (reflection.Reflection, "ServerReflectionInfo"),
    ):
        monkeypatch.setattr(servicer, name, noted(getattr(servicer, name), begun, left))
    asked = look().SerializeToString() if method == REFLECT else b""
    async with serving() as running:
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        mine = set(begun)
        async with RawCaller(running.port, None, window=0) as holder:
            holder.call(method, asked)
            await until(lambda: len(begun) == len(mine) + 1 and len(left) == 1)
        assert not mine & set(left)  # where nothing waits to be taken it goes on
        assert not watch.done()
        watch.cancel()


def noted(serve: Any, begun: list[str], left: list[str]) -> Any:
    """The method of a servicer, which notes whose streams it serves and served."""

    async def serving_it(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        peer = context.peer()
        begun.append(peer)
        try:
            async with aclosing(serve(self, request, context)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            left.append(peer)

    return serving_it


def unread() -> bytes:
    """A watch of which nothing is read: no byte of an answer may be sent."""
    call = request(path=b"/grpc.health.v1.Health/Watch")
    return PREFACE + frame(SETTINGS, 0, 0, NO_WINDOW) + call[len(PREFACE) + 9 :]


def unsent(path: bytes) -> bytes:
    """A call whose message never comes."""
    whole = request(path=path)[len(PREFACE) + 9 :]
    length = int.from_bytes(whole[:3], "big")
    headers = frame(HEADERS, END_HEADERS, 1, whole[9 : 9 + length])
    return PREFACE + frame(SETTINGS, 0, 0) + headers


@pytest.mark.parametrize(
    "sent",
    [
        unread,
        lambda: unsent(b"/grpc.health.v1.Health/Check"),
        lambda: unsent(f"/{ROUTER}/Complete".encode()),
        lambda: unsent(b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ],
    ids=["unread watch", "unsent check", "unsent call", "reflection"],
)
async def test_who_has_no_key_does_not_hold_up_a_drain(
    sent: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LAST_BYTES_SECONDS", 0.1)
    async with serving(drain_seconds=3600) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(sent())
        await asyncio.wait_for(reader.readexactly(9), 10)
        stub = health_pb2_grpc.HealthStub(running.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        running.stop.set()
        await asyncio.wait_for(running.stopped, 20)
        writer.close()
