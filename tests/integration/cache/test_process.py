"""The cache as processes of its own, over one Redis."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import grpc
import pytest
from redis.asyncio import Redis

from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1.cache_pb2_grpc import CacheServiceStub
from tests.integration.cache.harness import METADATA
from tests.integration.cache.messages import lookup, store


@asynccontextmanager
async def process(**settings):
    chosen = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"} | settings
    environ = {f"PENNYWEIGHT_CACHE_{name.upper()}": value for name, value in chosen.items()}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cache"),
        env=os.environ | environ,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def port_of(running) -> int:
    async with asyncio.timeout(60):
        async for line in running.stderr:
            if line.startswith(b"{") and (record := json.loads(line))["event"] == "serving":
                return int(record["port"])
    raise AssertionError("the cache does not start")


async def awaited(url: str) -> None:
    """Returns when somebody waits for an answer."""
    async with Redis.from_url(url) as redis, asyncio.timeout(20):
        while not [name async for name in redis.scan_iter("pw:*:awaited")]:
            await asyncio.sleep(0.01)


@pytest.mark.redis
async def test_two_processes_share_a_lease_and_stop_when_they_must(redis_server):
    redis_server.flush()
    slow = {"store": redis_server.url, "redis_timeout_seconds": "2"}
    async with process(**slow) as first, process(**slow) as second:
        ports = [await port_of(first), await port_of(second)]
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}") as one,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as other,
        ):
            lookups = [CacheServiceStub(channel).Lookup for channel in (one, other)]
            lease = (await lookups[0](lookup(), metadata=METADATA)).miss.lease
            found = lookups[1](lookup(wait=30), metadata=METADATA)
            await awaited(redis_server.url)
            await CacheServiceStub(one).Store(store(lease), metadata=METADATA)
            assert (await found).hit.shared
            stream = CacheServiceStub(other).Exchange(metadata=METADATA)
            await stream.write(
                pb.ExchangeRequest(operations=[pb.Operation(id=1, tenant="acme", lookup=lookup())])
            )
            assert (await stream.read()).results[0].id == 1
            for running in (first, second):
                running.send_signal(signal.SIGTERM)
            assert await stream.read() is grpc.aio.EOF  # not held for the whole drain
            assert [await running.wait() for running in (first, second)] == [0, 0]


async def test_bad_settings_stop_the_start():
    async with process(store="postgres://x", lease_secs="3") as running:
        _, errors = await running.communicate()
        assert running.returncode == 2
        assert b"LEASE_SECS: no such setting" in errors
        assert b"must be memory, redis://host:port" in errors
