"""One tenant's burst of lookups leaves room for those of the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from pennyweight.cache.v1 import cache_pb2 as pb
from services.common.channel import Peer
from services.common.telemetry import Tracing
from services.router.clients import cache as module
from services.router.clients.cache import CacheStream
from services.router.clients.under_way import UnderWay
from services.router.metrics import Metrics
from services.router.ports import CacheHit, CacheMiss
from tests.unit.router.clients.test_cache_messages import ASKED

MOST = 8


class Call:
    """The stream to a cache, which says nothing of itself."""

    def __init__(self) -> None:
        self.written: list[pb.Operation] = []
        self.writes = asyncio.Event()
        self.writes.set()
        self.news = asyncio.Event()
        self.answers: asyncio.Queue[pb.ExchangeResponse] = asyncio.Queue()

    async def write(self, request: pb.ExchangeRequest) -> None:
        await self.writes.wait()
        self.written += request.operations
        self.news.set()

    async def read(self) -> pb.ExchangeResponse:
        return await self.answers.get()

    def cancel(self) -> None:
        pass

    async def asked_by(self, *tenants: str) -> list[pb.Operation]:
        """What was written, once there is something of each tenant."""
        async with asyncio.timeout(5):
            while not {one.tenant for one in self.written} >= {*tenants}:
                self.news.clear()
                await self.news.wait()
        return self.written


@asynccontextmanager
async def connected(stream: CacheStream) -> AsyncIterator[Call]:
    call = Call()
    task = asyncio.create_task(stream._exchange(call))
    (probe,) = await call.asked_by("probe")
    call.answers.put_nowait(pb.ExchangeResponse(results=[pb.OperationResult(id=probe.id)]))
    async with asyncio.timeout(5):
        while not stream._connected:
            await asyncio.sleep(0)
    try:
        yield call
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> CacheStream:
    monkeypatch.setattr(module, "MAX_PENDING", MOST)
    return made()


def made() -> CacheStream:
    return CacheStream(
        Peer("127.0.0.1:1"),
        timeout_seconds=30.0,
        metrics=Metrics(CollectorRegistry()),
        tracing=Tracing("router"),
    )


def lookup(stream: CacheStream, tenant: str) -> "asyncio.Task[CacheHit | CacheMiss]":
    work = stream.lookup(tenant, "chat", ASKED, (), lease=True, max_wait_seconds=0.0)
    return asyncio.create_task(work)


async def ended(tasks: "list[asyncio.Task[CacheHit | CacheMiss]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("writes", [True, False], ids=["cache reads", "cache reads nothing"])
async def test_a_burst_of_one_tenant_skips_no_lookup_of_another(
    stream: CacheStream, *, writes: bool
) -> None:
    async with connected(stream) as call:
        if not writes:
            call.writes.clear()
        burst = [lookup(stream, "loud") for _ in range(2 * MOST)]
        await asyncio.sleep(0)
        assert [task.done() for task in burst].count(True) == 2 * MOST - MOST // 2
        quiet = lookup(stream, "quiet")
        call.writes.set()
        written = await call.asked_by("quiet")
        (number,) = [one.id for one in written if one.tenant == "quiet"]
        result = pb.OperationResult(id=number)
        result.lookup.miss.SetInParent()
        call.answers.put_nowait(pb.ExchangeResponse(results=[result]))
        assert await quiet == CacheMiss()
        await ended(burst)


async def test_a_lookup_stands_behind_one_of_each_other_tenant_at_most(
    stream: CacheStream,
) -> None:
    async with connected(stream) as call:
        call.writes.clear()
        asked = [lookup(stream, tenant) for tenant in ("loud", "loud", "loud", "quiet")]
        await asyncio.sleep(0)
        call.writes.set()
        written = await call.asked_by("loud", "quiet")
        assert [one.tenant for one in written if one.tenant != "probe"][:2] == ["loud", "quiet"]
        await ended(asked)


async def test_what_is_written_of_one_tenant_waits_for_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_ON_THEIR_WAY", 2)
    async with connected(stream := made()) as call:
        asked = [lookup(stream, "loud") for _ in range(3)]
        first, second = [one.id for one in await call.asked_by("loud") if one.tenant == "loud"]
        asked.append(lookup(stream, "quiet"))
        written = [one.tenant for one in await call.asked_by("quiet")]
        assert [one for one in written if one != "probe"] == ["loud", "loud", "quiet"]
        call.written.clear()
        call.answers.put_nowait(pb.ExchangeResponse(results=[pb.OperationResult(id=second)]))
        (third,) = await call.asked_by("loud")
        assert third.id not in (first, second)
        await ended(asked)


async def test_what_waits_in_the_cache_for_others_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 100)
    monkeypatch.setattr(module, "MAX_ON_THEIR_WAY", 2)
    async with connected(stream := made()) as call:
        call.written.clear()
        asked = [lookup(stream, "loud") for _ in range(5)]
        for begun in (2, 4):
            (probe,) = [one for one in await call.asked_by("probe") if one.tenant == "probe"]
            assert [one.tenant for one in call.written].count("loud") == begun
            call.written.remove(probe)
            call.answers.put_nowait(pb.ExchangeResponse(results=[pb.OperationResult(id=probe.id)]))
        async with asyncio.timeout(5):
            while [one.tenant for one in call.written].count("loud") < len(asked):
                call.news.clear()
                await call.news.wait()
        await ended(asked)


async def test_a_burst_that_was_given_up_leaves_room_too(stream: CacheStream) -> None:
    async with connected(stream) as call:
        call.writes.clear()
        for _ in range(2 * MOST):
            given_up = lookup(stream, "loud")
            await asyncio.sleep(0)
            await ended([given_up])  # it is still to be written
        quiet = lookup(stream, "quiet")
        await asyncio.sleep(0)
        assert not quiet.done()
        await ended([quiet])


async def test_what_nobody_awaits_leaves_room_too(stream: CacheStream) -> None:
    async with connected(stream) as call:
        for _ in range(2 * MOST):
            stream.abandon("loud", "chat", "lease")
        stream.abandon("quiet", "chat", "lease")
        await call.asked_by("quiet", "probe")
        for one in list(call.written):
            call.answers.put_nowait(pb.ExchangeResponse(results=[pb.OperationResult(id=one.id)]))
        assert await stream.flush(5.0)
        call.written.clear()
        stream.abandon("loud", "chat", "lease")  # there is room again
        await call.asked_by("loud")


def test_room_is_counted_for_each_and_for_all() -> None:
    under_way = UnderWay(4)
    for tenant in ("a", "a", "b"):
        assert under_way.has_room(tenant)
        under_way.begun(tenant)
    assert [under_way.has_room(one) for one in "abc"] == [False, True, True]
    under_way.begun("c")
    assert not under_way.has_room("b")
    under_way.over("a")
    assert under_way.has_room("a")
    under_way.clear()
    assert under_way.has_room("a")
