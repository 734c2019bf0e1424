"""One tenant asks a cache on Redis much at once: others are served, and Redis is not given up."""

import asyncio

import pytest

from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import HASH_KEY, Exchange, cache_over
from tests.integration.cache.messages import lookup, store
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

CONNECTIONS = 2
FLOOD = 500


@pytest.fixture
def own_redis():
    with RedisServer() as server:
        yield server


def over(server, **changes):
    chosen = {"redis_connections": CONNECTIONS, "redis_timeout_seconds": 5.0} | changes
    return open_store(CacheSettings(store=server.url, **chosen), HASH_KEY)


async def test_a_flood_of_one_stored_question_holds_up_no_other_tenant(own_redis):
    async with over(own_redis) as kept, cache_over(kept) as cache:
        exchange = Exchange(cache)
        for tenant in ("acme", "rival"):
            await cache.store(store(), tenant=tenant)
        flood = [exchange.operation(lookup=lookup()) for _ in range(FLOOD)]
        other = exchange.operation(tenant="rival", lookup=lookup())
        came: list[int] = []
        results = await exchange.send(*flood, other)
        for at, result in enumerate(results):
            result.add_done_callback(lambda _, at=at: came.append(at))
        found = await asyncio.wait_for(asyncio.gather(*results), 30)
        assert all(result.lookup.HasField("hit") for result in found)
        assert came.index(FLOOD) <= 4 * CONNECTIONS  # not behind the five hundred
        await exchange.close()


async def test_a_redis_that_stands_still_once_is_not_given_up_however_much_is_asked(own_redis):
    connections = 16
    limits = {"redis_connections": connections, "redis_timeout_seconds": 0.1}
    async with over(own_redis, **limits) as kept, cache_over(kept) as cache:
        exchange = Exchange(cache)
        await cache.store(store())
        own_redis.pause()
        try:
            flood = [exchange.operation(lookup=lookup(lease=False)) for _ in range(connections)]
            found = await asyncio.wait_for(asyncio.gather(*await exchange.send(*flood)), 30)
        finally:
            own_redis.resume()
        assert not any(result.lookup.HasField("hit") for result in found)
        assert cache.metric("store_up") == 1
        await exchange.close()
