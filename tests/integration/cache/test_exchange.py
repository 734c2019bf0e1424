"""The stream: operations that answer at once, that wait, that fail, that pile up."""

import asyncio

import grpc
import pytest
from google.rpc import code_pb2

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache.exchange import _Leases
from services.cache.ports import Granted
from services.common.durations import duration_of
from tests.integration.cache.harness import METADATA, Exchange, cache_over, memory_store, until
from tests.integration.cache.messages import abandon, answer, lookup, store


@pytest.fixture
async def exchange(cache):
    exchange = Exchange(cache)
    yield exchange
    await exchange.close()


async def test_operations_of_all_kinds_over_one_stream(exchange):
    first = (await exchange.run(lookup=lookup())).lookup.miss
    assert first.lease
    assert (await exchange.run(store=store(first.lease))).store.stored
    assert (await exchange.run(lookup=lookup())).lookup.HasField("hit")
    lease = (await exchange.run(lookup=lookup("other"))).lookup.miss.lease
    gone = await exchange.run(abandon=abandon(lease))
    assert gone.WhichOneof("result") == "abandon"
    assert not gone.abandon.awaited


async def test_who_waits_holds_nobody_up(exchange):
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    waiting = await exchange.send(exchange.operation(lookup=lookup(wait=10)))
    assert (await exchange.run(lookup=lookup("other"))).lookup.miss.lease
    assert not waiting[0].done()
    assert (await exchange.run(store=store(lease))).store.stored
    assert (await waiting[0]).lookup.hit.shared


async def test_results_that_pile_up_share_a_message(exchange):
    operations = [exchange.operation(lookup=lookup(str(n))) for n in range(200)]
    results = await asyncio.gather(*await exchange.send(*operations))
    assert all(result.lookup.miss.lease for result in results)
    assert exchange.responses < 100


async def test_the_tenant_is_that_of_the_operation(exchange):
    await exchange.run(store=store())
    assert (await exchange.run(lookup=lookup())).lookup.HasField("hit")
    assert (await exchange.run(lookup=lookup(), tenant="rival")).lookup.HasField("miss")


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        ({"lookup": lookup(route="")}, "route"),
        ({"lookup": lookup(), "tenant": ""}, "tenant"),
        ({"store": store(ttl=0)}, "ttl"),
        ({"abandon": abandon("")}, "lease"),
        ({}, "operation"),
    ],
)
async def test_what_is_wrong_with_one_leaves_the_stream_open(exchange, operation, field):
    result = await exchange.run(**operation)
    assert result.code == code_pb2.INVALID_ARGUMENT
    assert result.error.startswith(f"{field}: ")
    assert result.WhichOneof("result") is None
    assert (await exchange.run(lookup=lookup())).code == code_pb2.OK


async def test_an_id_that_is_in_use_is_refused(cache):
    lease = (await cache.lookup(lookup())).miss.lease
    call = cache.stub.Exchange(metadata=METADATA)
    twice = pb.Operation(id=7, tenant="acme", lookup=lookup(wait=10))
    await call.write(pb.ExchangeRequest(operations=[twice, twice]))
    (refused,) = (await call.read()).results
    assert (refused.id, refused.code) == (7, code_pb2.INVALID_ARGUMENT)
    await cache.store(store(lease))
    (served,) = (await call.read()).results
    assert (served.id, served.code) == (7, code_pb2.OK)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_an_operation_waits_no_longer_than_it_may_take(exchange):
    await exchange.run(lookup=lookup())
    result = await exchange.run(lookup=lookup(wait=60), timeout=duration_of(0.05))
    assert result.code == code_pb2.OK
    assert not result.lookup.miss.lease


async def test_a_broken_stream_ends_its_waits_and_gives_its_leases_back(cache):
    exchange, other = Exchange(cache), Exchange(cache)
    used = (await exchange.run(lookup=lookup("used"))).lookup.miss.lease
    assert (await exchange.run(store=store(used, text="used"))).store.stored
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    await exchange.run(abandon=abandon(lease, unless_awaited=True))
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    await exchange.send(exchange.operation(lookup=lookup(wait=60)))
    (waiting,) = await other.send(other.operation(lookup=lookup(wait=60)))
    await until(lambda: cache.waiters == 2)
    exchange.call.cancel()
    granted = (await asyncio.wait_for(waiting, 10)).lookup.miss.lease
    assert granted
    assert cache.waiters == 0
    await until(lambda: cache.metric("streams") == 1)
    assert not await cache.store(store(lease))
    assert await cache.store(store(granted))
    await other.close()


async def test_a_stream_that_its_caller_ends_gives_its_leases_back(cache):
    exchange = Exchange(cache)
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    await exchange.close()
    await until(lambda: cache.metric("streams") == 0)
    assert (await cache.lookup(lookup())).miss.lease
    assert not await cache.store(store(lease))


async def test_a_stream_that_the_cache_ends_leaves_its_leases_to_their_holder(cache):
    exchange = Exchange(cache)
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    cache.service.drain()
    await exchange.ended()
    await until(lambda: cache.metric("streams") == 0)
    assert not (await cache.lookup(lookup())).miss.lease
    assert await cache.store(store(lease))


async def test_leases_that_ended_by_themselves_take_no_room_in_a_stream():
    leases = _Leases()
    for n in range(100):
        leases.add(str(n), Granted(None, 30.0), now=float(n))
    leases.ended("99")
    assert len(leases.take_all()) == 29
    assert leases.take_all() == []


async def test_a_caller_that_has_said_all_still_gets_its_answers(cache):
    exchange = Exchange(cache)
    lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
    (waiting,) = await exchange.send(exchange.operation(lookup=lookup(wait=10)))
    await until(lambda: cache.waiters == 1)
    await exchange.call.done_writing()
    assert await cache.store(store(lease))
    assert (await waiting).lookup.hit.shared
    await exchange.close()


async def test_draining_lets_everybody_go_and_ends_the_streams(cache):
    exchange = Exchange(cache)
    await exchange.run(lookup=lookup())
    (waiting,) = await exchange.send(exchange.operation(lookup=lookup(wait=60)))
    await until(lambda: cache.waiters == 1)
    cache.service.drain()
    assert not (await waiting).lookup.miss.lease
    await exchange.ended()
    assert not (await cache.lookup(lookup(wait=60))).miss.lease


async def test_a_stream_that_comes_while_draining_ends(cache):
    cache.service.drain()
    await Exchange(cache).ended()


async def test_a_full_stream_is_not_read_on(monkeypatch):
    async with cache_over(memory_store(), max_unanswered=4) as cache:
        exchange = Exchange(cache)
        lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
        waiting = [exchange.operation(lookup=lookup(wait=60)) for _ in range(10)]
        results = await exchange.send(*waiting)
        # Three wait; those who would fill the stream do not, so the answer they wait for gets in.
        await asyncio.wait(results[3:], timeout=5)
        assert cache.waiters == 3
        assert (await exchange.run(store=store(lease))).store.stored
        shared = [(await result).lookup.hit.shared for result in results]
        assert shared == [True] * 3 + [False] * 7
        await exchange.close()


async def test_one_tenant_leaves_room_for_others_to_wait():
    async with cache_over(memory_store(), max_unanswered=16) as cache:
        exchange = Exchange(cache)

        async def crowd(tenant: str) -> tuple[str, list]:
            first = exchange.operation(tenant=tenant, lookup=lookup())
            (granted,) = await exchange.send(first)
            waits = [exchange.operation(tenant=tenant, lookup=lookup(wait=60)) for _ in range(20)]
            return (await granted).lookup.miss.lease, await exchange.send(*waits)

        crowds = {}
        for tenant, waiting in (("acme", 8), ("umbrella", 12), ("third", 14)):
            crowds[tenant] = await crowd(tenant)
            await until(lambda: cache.waiters >= waiting)  # noqa: B023
        assert cache.waiters == 14  # two are kept free for what they all wait for
        for tenant, (lease, _) in crowds.items():
            await exchange.run(tenant=tenant, store=store(lease))
        shared = [
            sum([(await result).lookup.hit.shared for result in results])
            for _, results in crowds.values()
        ]
        assert shared == [8, 4, 2]
        await exchange.close()


async def test_large_answers_are_spread_over_messages(exchange):
    words = answer("long " * 3000)  # some 30 kB
    for n in range(100):
        await exchange.run(store=store(text=str(n), answer=words))
    exchange.responses = 0
    operations = [exchange.operation(lookup=lookup(str(n))) for n in range(100)]
    results = await asyncio.gather(*await exchange.send(*operations))
    assert all(len(result.lookup.hit.answer.pieces) == 3000 for result in results)
    assert exchange.responses > 1


async def test_many_streams_at_a_time_share_answers(cache):
    streams = [Exchange(cache) for _ in range(10)]
    lease = (await streams[0].run(lookup=lookup())).lookup.miss.lease
    waiting = [await stream.send(stream.operation(lookup=lookup(wait=10))) for stream in streams]
    await until(lambda: cache.waiters == 10)
    await streams[0].run(store=store(lease))
    assert all([(await result).lookup.hit.shared for (result,) in waiting])
    await asyncio.gather(*[stream.close() for stream in streams])


async def test_an_unexpected_error_ends_one_operation_not_the_stream(monkeypatch):
    store = memory_store()
    async with cache_over(store) as cache:
        exchange = Exchange(cache)
        monkeypatch.setattr(store, "look", lambda *_: 1 / 0)
        result = await exchange.run(lookup=lookup(lease=False))
        assert result.code == code_pb2.INTERNAL
        assert "division" not in result.error
        assert (await exchange.run(abandon=abandon("x"))).code == code_pb2.OK
        await exchange.close()


async def test_an_empty_stream_just_ends(cache):
    call = cache.stub.Exchange(metadata=METADATA)
    await call.write(pb.ExchangeRequest())
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
