"""A lease whose work ends while the cache is away is given back when it has come again."""

import asyncio
from collections.abc import Callable

import pytest

from pennyweight.cache.v1 import cache_pb2 as pb
from services.router.clients.cache import CacheStream
from services.router.clients.leases import MAX_OWED, Leases
from tests.unit.router.clients.test_cache_messages import ASKED, WRITTEN
from tests.unit.router.clients.test_cache_shares import Call, connected, lookup, stream

__all__ = ["stream"]  # the fixture


async def leased(cache: CacheStream, call: Call) -> None:
    task = lookup(cache, "acme")
    written = await call.asked_by("acme")
    result = pb.OperationResult(id=written[-1].id)
    result.lookup.miss.lease = "held"
    call.answers.put_nowait(pb.ExchangeResponse(results=[result]))
    await task


def given_back(call: Call) -> list[str]:
    return [one.abandon.lease for one in call.written if one.tenant == "acme"]


def store(cache: CacheStream) -> None:
    cache.store("acme", "chat", ASKED, WRITTEN, lease="held", ttl_seconds=1.0)


def abandon(cache: CacheStream) -> None:
    cache.abandon("acme", "chat", "held")


async def unless_awaited(cache: CacheStream) -> None:
    await cache.abandon_unless_awaited("acme", "chat", "held")


@pytest.mark.parametrize("end", [store, abandon])
async def test_what_ends_while_the_cache_is_away_is_given_back(
    stream: CacheStream, end: Callable[[CacheStream], None]
) -> None:
    async with connected(stream) as call:
        await leased(stream, call)
    stream._disconnect()
    end(stream)
    async with connected(stream) as call:
        await call.asked_by("acme")
        assert given_back(call) == ["held"]
    stream._disconnect()
    async with connected(stream) as call:  # once
        await asyncio.sleep(0)
        assert given_back(call) == []


async def test_a_lease_that_nobody_may_wait_for_is_given_back_too(stream: CacheStream) -> None:
    async with connected(stream) as call:
        await leased(stream, call)
    stream._disconnect()
    await unless_awaited(stream)
    async with connected(stream) as call:
        await call.asked_by("acme")
        assert given_back(call) == ["held"]


async def test_what_is_still_worked_for_is_stored_under_no_lease(stream: CacheStream) -> None:
    async with connected(stream) as call:
        await leased(stream, call)
    stream._disconnect()
    async with connected(stream) as call:
        store(stream)
        (one,) = [one for one in await call.asked_by("acme") if one.tenant == "acme"]
        assert not one.store.lease
        assert one.store.HasField("request")


def test_as_many_are_owed_as_there_is_room_for() -> None:
    leases = Leases()
    for number in range(MAX_OWED + 5):
        leases.granted(str(number))
    leases.break_off()
    for number in range(MAX_OWED + 5):
        leases.owe(str(number), "acme", "chat")
    assert len(leases.take_owed()) == MAX_OWED
    assert not leases.take_owed()
