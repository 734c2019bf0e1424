"""What the router tells the cache last reaches it, however slow it is, and how it knows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1 import cache_pb2_grpc
from services.common.channel import Peer
from services.common.telemetry import Tracing
from services.router import __main__ as router_main
from services.router.clients.cache import CacheStream
from services.router.metrics import Metrics
from services.router.ports import Asked, CacheHit, CacheMiss, Finish, Written
from tests.integration.router.world import PATIENCE, World, asking, until
from tests.making.policies import ladder

ASKED = Asked((), None, 8, 0.0, 1.0, 0, None, ())
(SMALL,) = ladder("small")
WRITTEN = Written((("Hello", 1),), Finish.STOP, 3, 1, "small", "small", "int8", "v1")


class SlowCache(cache_pb2_grpc.CacheServiceServicer):
    """Answers lookups at once with a lease, and takes stores when it may."""

    def __init__(self) -> None:
        self.may_take = asyncio.Event()
        self.offered = 0
        self.taken = 0
        self.calls: list[Any] = []
        self._server = grpc.aio.server()
        cache_pb2_grpc.add_CacheServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def Exchange(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        self.calls.append(context)
        results: asyncio.Queue[pb.OperationResult] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(requests, results, tasks))
            while not reading.done():
                yield pb.ExchangeResponse(results=[await results.get()])

    async def _read(self, requests: AsyncIterator[Any], results: Any, tasks: Any) -> None:
        async for request in requests:
            for operation in request.operations:
                result = pb.OperationResult(id=operation.id)
                if operation.WhichOneof("operation") == "lookup":
                    result.lookup.miss.lease = "a lease"
                if operation.WhichOneof("operation") == "store":
                    tasks.create_task(self._take(result, results))
                else:
                    results.put_nowait(result)

    async def _take(self, result: pb.OperationResult, results: Any) -> None:
        self.offered += 1
        await self.may_take.wait()
        self.taken += 1
        result.store.stored = True
        results.put_nowait(result)


@pytest.fixture
async def cache() -> AsyncIterator[SlowCache]:
    cache = SlowCache()
    await cache.start()
    yield cache
    cache.may_take.set()
    await cache.stop()


async def look(stream: CacheStream) -> CacheHit | CacheMiss:
    return await stream.lookup("acme", "chat", ASKED, [], lease=False, max_wait_seconds=0.0)


@pytest.fixture
async def stream(cache: SlowCache) -> AsyncIterator[CacheStream]:
    stream = CacheStream(
        Peer(f"127.0.0.1:{cache.port}"),
        timeout_seconds=PATIENCE,
        metrics=Metrics(CollectorRegistry()),
        tracing=Tracing("router"),
    )
    running = asyncio.create_task(stream.run())
    while await look(stream) == CacheMiss(available=False):  # it is not connected yet
        await asyncio.sleep(0.003)
    yield stream
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def store(stream: CacheStream) -> None:
    stream.store("acme", "chat", ASKED, WRITTEN, lease="", ttl_seconds=60.0)


async def test_a_flush_ends_when_the_cache_has_taken_everything(
    cache: SlowCache, stream: CacheStream
) -> None:
    for _ in range(3):
        store(stream)
    stream.abandon("acme", "chat", "a lease")
    flushing = asyncio.create_task(stream.flush(PATIENCE))
    await until(lambda: cache.offered == 3)
    assert not flushing.done()
    cache.may_take.set()
    assert await flushing
    assert cache.taken == 3


async def test_with_nothing_sent_there_is_nothing_to_wait_for(stream: CacheStream) -> None:
    lookup = await stream.lookup("acme", "chat", ASKED, [SMALL], lease=True, max_wait_seconds=0.0)
    assert lookup.available  # type: ignore[union-attr]
    assert await stream.flush(0.0)


async def test_a_silent_cache_is_not_waited_for_longer_than_asked(
    cache: SlowCache, stream: CacheStream
) -> None:
    store(stream)
    assert not await stream.flush(0.05)
    cache.may_take.set()
    assert await stream.flush(PATIENCE)


async def test_what_a_broken_stream_takes_along_is_not_taken_for_heard(
    cache: SlowCache, stream: CacheStream
) -> None:
    store(stream)
    flushing = asyncio.create_task(stream.flush(PATIENCE))
    await until(lambda: cache.offered)
    await cache.stop()
    assert not await flushing


async def test_the_last_answer_before_a_stop_reaches_a_cache_that_takes_its_time(
    tmp_path: Path, cache: SlowCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_main, "FLUSH_SECONDS", PATIENCE)
    world = World(tmp_path)
    world.cache.port = cache.port
    async with world.running(cache=False):
        await world.add("a")
        await until(lambda: cache.calls)
        caller = await world.caller()
        await caller.ask(asking("cached"))
        stopping = asyncio.create_task(world.stop())
        await until(lambda: cache.offered)
        _, unfinished = await asyncio.wait((stopping,), timeout=1.0)
        assert unfinished  # the server has stopped by now, the router waits for the cache
        cache.may_take.set()
        await stopping
        assert cache.taken == 1
