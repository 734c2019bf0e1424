"""A router that is stopped (SIGSTOP) with a lease: who asks the same waits for the lease alone."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import HASH_KEY, Cache, Exchange, cache_over
from tests.integration.cache.messages import answer, lookup, store

LEASE_SECONDS = 1.0

ROUTER = """
import os, queue, signal, sys
import grpc
from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1.cache_pb2_grpc import CacheServiceStub
from tests.integration.cache.harness import METADATA
from tests.integration.cache.messages import lookup, store

requests = queue.Queue()
with grpc.insecure_channel(sys.argv[1]) as channel:
    stream = CacheServiceStub(channel).Exchange(iter(requests.get, None), metadata=METADATA)
    def run(**operation):
        one = pb.Operation(id=1, tenant="acme", **operation)
        requests.put(pb.ExchangeRequest(operations=[one]))
        return next(stream).results[0]
    lease = run(lookup=lookup()).lookup.miss.lease
    assert lease
    os.kill(os.getpid(), signal.SIGSTOP)
    print(run(store=store(lease)).store.stored)
    requests.put(None)
"""


def stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@asynccontextmanager
async def frozen_router(address: str) -> AsyncIterator[Process]:
    """A process that took a lease over a stream, and stands still since."""
    router = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ROUTER, address), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            while not stands_still(router.pid):
                await asyncio.sleep(0.01)
        yield router
    finally:
        with suppress(ProcessLookupError):
            router.kill()
        await router.wait()


@pytest.fixture
async def short(where: str) -> AsyncIterator[Cache]:
    """A cache whose leases end soon."""
    settings = CacheSettings(store=where, redis_timeout_seconds=2.0, lease_seconds=LEASE_SECONDS)
    async with open_store(settings, HASH_KEY) as kept, cache_over(kept) as cache:
        yield cache


async def test_who_asks_the_same_gets_the_lease_when_that_of_a_frozen_router_ends(
    short: Cache,
) -> None:
    other, stored = Exchange(short), False
    async with frozen_router(short.address) as router:
        while not stored:  # again, should the test itself be as slow as a lease
            found = await other.run(lookup=lookup(wait=60))  # which takes no 10 s
            lease = found.lookup.miss.lease
            assert lease
            said = await other.run(store=store(lease, answer=answer("Mine.")))
            stored = said.store.stored
        assert short.metric("streams") == 2  # the frozen one is there all the time
        router.send_signal(signal.SIGCONT)
        late, _ = await asyncio.wait_for(router.communicate(), 60)
        assert late.strip() == b"False"  # what it had to say came too late, and changes nothing
    hit = (await other.run(lookup=lookup())).lookup.hit
    assert [piece.text for piece in hit.answer.pieces] == ["Mine. "]
    await other.close()


async def test_who_will_not_wait_so_long_goes_on_without_a_lease(short: Cache) -> None:
    other = Exchange(short)
    async with frozen_router(short.address):
        found = await other.run(lookup=lookup(wait=0.01))
        assert found.lookup.HasField("miss")
    await other.close()
