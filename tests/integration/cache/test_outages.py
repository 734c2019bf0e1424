"""Redis slow, gone, back, wrong, or shared: callers never see an error."""

import asyncio
import time

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from services.cache import policy
from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import (
    HASH_KEY,
    Cache,
    Exchange,
    cache_over,
    until,
)
from tests.integration.cache.messages import abandon, lookup, store
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def own_redis():
    with RedisServer() as server:
        yield server


def settings(server, **changes):
    return CacheSettings(store=server.url, **({"redis_timeout_seconds": 0.5} | changes))


def over(server, **changes):
    return open_store(settings(server, **changes), HASH_KEY)


async def redis_up(cache: Cache) -> None:
    await until(lambda: cache.metric("store_up") == 1)


async def test_a_crash_is_a_miss_and_coming_back_is_noticed(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache:
        exchange = Exchange(cache)
        await cache.store(store())
        assert (await exchange.run(lookup=lookup())).lookup.HasField("hit")
        lease = (await exchange.run(lookup=lookup("other"))).lookup.miss.lease
        own_redis.kill()
        for _ in range(20):
            miss = (await exchange.run(lookup=lookup())).lookup.miss
            assert not miss.lease
            assert not (await cache.lookup(lookup())).miss.lease
        assert not (await exchange.run(store=store(lease))).store.stored
        assert not (await exchange.run(abandon=abandon(lease))).abandon.awaited
        assert (await cache.stats()).store_errors == 42
        assert cache.metric("store_up") == 0
        own_redis.start()
        await redis_up(cache)
        lease = (await exchange.run(lookup=lookup())).lookup.miss.lease
        assert (await exchange.run(store=store(lease))).store.stored
        assert (await cache.lookup(lookup())).HasField("hit")
        await exchange.close()


async def test_who_waits_when_redis_goes_is_not_kept_waiting(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache:
        await cache.lookup(lookup())
        waiting = asyncio.create_task(cache.lookup(lookup(wait=30)))
        await until(lambda: cache.waiters == 1)
        own_redis.kill()
        found = await asyncio.wait_for(waiting, 5)
        assert not found.miss.lease
        assert cache.metric("lookups_total", result="failed") == 1


async def test_a_redis_that_hangs_costs_its_timeout_and_then_nothing(own_redis):
    async with over(own_redis, redis_timeout_seconds=0.05) as kept, cache_over(kept) as cache:
        await cache.store(store())
        own_redis.pause()
        try:
            began = time.monotonic()
            misses = await asyncio.gather(*[cache.lookup(lookup()) for _ in range(50)])
            assert not any(found.miss.lease or found.HasField("hit") for found in misses)
            assert time.monotonic() - began < 2  # not fifty timeouts
            await until(lambda: cache.metric("store_up") == 0)
            took = []
            for _ in range(20):
                began = time.monotonic()
                await cache.lookup(lookup())
                took.append(time.monotonic() - began)
            assert min(took) < 0.04  # less than one timeout
        finally:
            own_redis.resume()
        await redis_up(cache)
        await until_served(cache)


@pytest.mark.parametrize("asked", [1, 10], ids=["link stays up", "link goes down"])
async def test_a_lease_that_redis_grants_after_its_pause_is_given_back(own_redis, asked):
    async with over(own_redis, redis_timeout_seconds=0.05) as kept, cache_over(kept) as cache:
        await cache.lookup(lookup("before"))
        own_redis.pause()
        try:
            texts = [f"question {number}" for number in range(asked)]
            misses = await asyncio.gather(*[cache.lookup(lookup(text)) for text in texts])
            assert not any(found.miss.lease for found in misses)
        finally:
            own_redis.resume()
        await until_free(cache, *texts)


async def test_a_lease_that_is_given_back_during_a_pause_is_free_after_it(own_redis):
    async with over(own_redis, redis_timeout_seconds=0.05) as kept, cache_over(kept) as cache:
        leases = [(await cache.lookup(lookup(text))).miss.lease for text in ("one", "two", "three")]
        one, two, three = leases
        own_redis.pause()
        try:
            await cache.abandon(abandon(one))
            assert not await cache.store(store(two))
            await cache.lookup(lookup("other"))
            await until(lambda: cache.metric("store_up") == 0)
            await cache.abandon(abandon(three))
        finally:
            own_redis.resume()
        await until_free(cache, "one", "three")
        async with asyncio.timeout(5):  # the answer may still have been stored
            while not (found := await cache.lookup(lookup("two"))).HasField("hit"):
                if found.miss.lease:
                    break
                await asyncio.sleep(0.01)


async def until_free(cache: Cache, *texts: str) -> None:
    """Returns once each of them is leased to whoever asks, long before a lease ends by itself."""
    async with asyncio.timeout(5):
        for text in texts:
            while not (await cache.lookup(lookup(text))).miss.lease:
                await asyncio.sleep(0.01)


async def until_served(cache: Cache) -> None:
    async with asyncio.timeout(5):
        while not (await cache.lookup(lookup())).HasField("hit"):
            await asyncio.sleep(0.01)


async def test_it_starts_without_redis(own_redis):
    own_redis.kill()
    async with over(own_redis) as kept, cache_over(kept) as cache:
        assert not (await cache.lookup(lookup())).miss.lease
        own_redis.start()
        await redis_up(cache)
        assert (await cache.lookup(lookup())).miss.lease


async def test_a_redis_without_room_is_a_miss(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.store(store())
        await redis.config_set("maxmemory", 1)
        assert (await cache.lookup(lookup())).HasField("hit")
        assert not (await cache.lookup(lookup("other"))).miss.lease
        assert not await cache.store(store(text="other"))
        assert cache.metric("store_up") == 1
        await redis.config_set("maxmemory", 0)
        assert (await cache.lookup(lookup("other"))).miss.lease


def client(server: RedisServer) -> Redis:
    return Redis.from_url(server.url)


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: b"rubbish",
        lambda value: value[:-1],
        lambda value: value[:30] + bytes([value[30] ^ 1]) + value[31:],
    ],
    ids=["empty", "rubbish", "cut", "flipped"],
)
async def test_a_damaged_entry_is_a_miss(own_redis, damage):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.store(store())
        (name,) = [name async for name in redis.scan_iter("pw:*:entry")]
        await redis.set(name, damage(await redis.get(name)))
        assert (await cache.lookup(lookup(lease=False))).HasField("miss")
        lease = (await cache.lookup(lookup())).miss.lease
        assert await cache.store(store(lease))
        assert (await cache.lookup(lookup())).HasField("hit")


async def a_list(redis, name):
    await redis.delete(name)
    await redis.rpush(name, "a list")


async def for_ever(redis, name):
    await redis.set(name, "x")


@pytest.mark.parametrize("put", [a_list, for_ever])
@pytest.mark.parametrize("kind", ["entry", "lease", "holder", "awaited"])
async def test_what_no_cache_has_written_is_a_miss_and_makes_room(own_redis, kind, put):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.store(store())
        (entry,) = [name async for name in redis.scan_iter("pw:*:entry")]
        await redis.delete(entry)
        await put(redis, entry.replace(b":entry", f":{kind}".encode()))
        lease = (await cache.lookup(lookup())).miss.lease
        assert lease
        assert await cache.store(store(lease))
        assert (await cache.lookup(lookup(lease=False))).HasField("hit")
        in_the_way = kind == "lease" or (kind == "entry" and put is a_list)
        assert not in_the_way or cache.metric("damaged_total") == 1


@pytest.mark.parametrize("kind", ["entry", "lease", "holder"])
async def test_another_type_of_value_in_the_way_of_a_store_is_replaced(own_redis, kind):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        lease = (await cache.lookup(lookup())).miss.lease
        (name,) = [name async for name in redis.scan_iter("pw:*:lease")]
        await a_list(redis, name.replace(b":lease", f":{kind}".encode()))
        await cache.store(store(lease))
        assert await cache.store(store((await cache.lookup(lookup())).miss.lease))
        assert (await cache.lookup(lookup(lease=False))).HasField("hit")


@pytest.mark.parametrize("kind", ["lease", "holder"])
async def test_another_type_of_value_holds_up_no_lease_that_is_given_back(own_redis, kind):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        lease = (await cache.lookup(lookup())).miss.lease
        (name,) = [name async for name in redis.scan_iter("pw:*:lease")]
        await a_list(redis, name.replace(b":lease", f":{kind}".encode()))
        assert not await cache.abandon(abandon(lease))
        assert (await cache.lookup(lookup())).miss.lease


async def test_an_entry_copied_to_another_tenant_does_not_serve(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.store(store(), tenant="rival")
        (stolen,) = [name async for name in redis.scan_iter("pw:*:entry")]
        await cache.store(store())
        (own,) = [name async for name in redis.scan_iter("pw:*:entry") if name != stolen]
        await redis.copy(stolen, own, replace=True)
        assert (await cache.lookup(lookup())).HasField("miss")
        assert cache.metric("damaged_total") == 1


async def test_what_redis_holds_tells_no_prompt_and_lies_in_one_slot(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.store(store((await cache.lookup(lookup("a secret question"))).miss.lease))
        await cache.lookup(lookup("another secret question"))
        names = [name async for name in redis.scan_iter("*")]
        assert len(names) == 3
        assert not any(b"secret" in name or b"acme" in name for name in names)
        tags = {name.split(b"{")[1].split(b"}")[0] for name in names}
        assert len({key_slot(name) for name in names}) == len(tags) == 2
        assert all([await redis.pttl(name) > 0 for name in names])


async def until_awaited(redis) -> None:
    """Returns once Redis knows that somebody waits for an answer."""
    async with asyncio.timeout(5):
        while not [name async for name in redis.scan_iter("pw:*:awaited")]:
            await asyncio.sleep(0.003)


async def test_two_caches_share_a_lease(own_redis):
    async with (
        over(own_redis) as first_store,
        over(own_redis) as second_store,
        cache_over(first_store) as first,
        cache_over(second_store) as second,
        client(own_redis) as redis,
    ):
        lease = (await first.lookup(lookup())).miss.lease
        assert not (await second.lookup(lookup())).miss.lease
        waiting = [asyncio.create_task(cache.lookup(lookup(wait=10))) for cache in (first, second)]
        await until(lambda: first.waiters == second.waiters == 1)
        await until_awaited(redis)
        assert await second.abandon(abandon(lease, unless_awaited=True))
        await second.abandon(abandon(lease))
        finished, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (found,) = finished
        (other,) = others
        assert not other.done()
        assert await first.store(store(found.result().miss.lease))
        assert (await other).hit.shared


async def test_a_lease_ends_by_itself_for_a_cache_that_never_saw_it(own_redis):
    short = {"lease_seconds": 0.2}
    async with (
        over(own_redis, **short) as first_store,
        over(own_redis, **short) as second_store,
        cache_over(first_store) as first,
        cache_over(second_store) as second,
    ):
        lease = (await first.lookup(lookup())).miss.lease
        miss = (await second.lookup(lookup(wait=10))).miss
        assert miss.lease
        assert (await second.stats()).leases_expired == 1
        assert not await first.store(store(lease))


async def test_a_wake_that_was_not_heard_is_made_up_for(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache, client(own_redis) as redis:
        await cache.lookup(lookup())
        waiting = asyncio.create_task(cache.lookup(lookup(wait=10)))
        await until(lambda: cache.waiters == 1)
        await until_awaited(redis)
        (name,) = [name async for name in redis.scan_iter("pw:*:lease")]
        await redis.delete(name)
        assert (await waiting).miss.lease


async def test_caches_with_different_hash_keys_do_not_meet(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache:
        await cache.store(store())
    key = policy.key_of(HASH_KEY, "t", "r", policy.Request([]))
    other = policy.key_of(b"another key of 16", "t", "r", policy.Request([]))
    assert key != other
