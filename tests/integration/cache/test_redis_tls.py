"""Redis over TLS with a password."""

import pytest

from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import HASH_KEY, cache_over
from tests.integration.cache.messages import lookup
from tests.redis_server import tls_redis

pytestmark = pytest.mark.redis


async def test_tls_and_password_come_from_files(tmp_path):
    with tls_redis(tmp_path) as address:
        settings = CacheSettings(
            store=address,
            redis_ca_file=tmp_path / "cert.pem",
            redis_password_file=tmp_path / "password",
            redis_timeout_seconds=2.0,
        )
        async with open_store(settings, HASH_KEY) as store, cache_over(store) as cache:
            assert cache.metric("store_up") == 1
            assert (await cache.lookup(lookup())).miss.lease
