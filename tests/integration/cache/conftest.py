from collections.abc import AsyncIterator, Iterator

import pytest

from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import HASH_KEY, Cache, cache_over
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def where(request: pytest.FixtureRequest) -> str:
    """Where the store is: each test that uses this runs over both."""
    if request.param == "memory":
        return "memory"
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return server.url


@pytest.fixture
async def cache(where: str) -> AsyncIterator[Cache]:
    settings = CacheSettings(store=where, redis_timeout_seconds=2.0)
    async with open_store(settings, HASH_KEY) as store, cache_over(store) as cache:
        yield cache
