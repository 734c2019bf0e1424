"""Both stores for one suite, and the time they live in, which passes on command."""

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from services.cache.policy import Key, Record, writer_mark
from services.cache.ports import Outcome, Soon, Store
from services.cache.stores.memory import MemoryStore
from services.cache.stores.redis import RedisStore, open_redis
from services.common.redis_link import RedisLink
from tests.integration.cache.harness import HASH_KEY, until
from tests.making.clock import FakeClock

LEASE_SECONDS = 3000.0
"""So long that the real seconds a slow machine takes do not count."""

SMALL = writer_mark("small", "m", "int4")
LARGE = writer_mark("large", "m", "int4")
BY_SMALL, BY_LARGE, BY_ANY = frozenset({SMALL}), frozenset({LARGE}), frozenset({SMALL, LARGE})


def key(text: str = "hi", partition: str = "acme") -> Key:
    return Key(partition.encode().ljust(16), text.encode().ljust(32))


def record(text: str = "hello", mark: bytes = SMALL) -> Record:
    return Record(mark, text.encode())


async def done(soon: Soon[Any]) -> Any:
    return await asyncio.wait_for(soon, 5) if isinstance(soon, Future) else soon


@dataclass
class Stage:
    """A store, its clock, and what tells it that time has passed."""

    store: Store
    clock: FakeClock
    redis: Redis | None = None

    async def advance(self, seconds: float) -> None:
        if self.redis is not None:
            # Redis keeps its own time; what has less to live is older. The signs of who waits are
            # left alone: those who wait renew them, in real time.
            names = [name async for name in self.redis.scan_iter("pw:*")]
            for name in [name for name in names if not name.endswith(b":awaited")]:
                left = await self.redis.pttl(name)
                await self.redis.pexpire(name, left - round(seconds * 1000))
        self.clock.advance(seconds)
        if isinstance(self.store, RedisStore):
            self.store.resumed()

    async def claim(self, *args: Any, wait: float = 0) -> Outcome:
        key, wanted = args
        return await done(self.store.claim(key, wanted, wait))

    async def wait(self, *args: Any, wait: float = 10, after: int = 0) -> Future[Outcome]:
        """Begins to wait, as the `after`-th of this store."""
        key, wanted = args
        pending = self.store.claim(key, wanted, wait)
        assert isinstance(pending, Future)
        await until(lambda: self.store.counts().waiters > after)
        return pending


@asynccontextmanager
async def memory_stage(**limits: Any) -> AsyncIterator[Stage]:
    clock = FakeClock()
    chosen = {"max_bytes": 2**20, "max_entries": 100, "max_waiters": 100} | limits
    yield Stage(MemoryStore(clock, lease_seconds=LEASE_SECONDS, **chosen), clock)


@asynccontextmanager
async def redis_stage(url: str, **limits: Any) -> AsyncIterator[Stage]:
    clock = FakeClock()
    link = RedisLink(url, timeout_seconds=2.0, connections=4)
    chosen = {"max_waiters": 100} | limits
    async with (
        Redis.from_url(url) as redis,
        open_redis(link, HASH_KEY, clock, lease_seconds=LEASE_SECONDS, **chosen) as store,
    ):
        yield Stage(store, clock, redis)


def open_stage(where: str, **limits: Any) -> Any:
    return memory_stage(**limits) if where == "memory" else redis_stage(where, **limits)
