"""What is owed is given back once Redis answers, and what cannot be is bounded."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.cache.policy import Key, Lease
from services.cache.stores import owed as module
from services.cache.stores.owed import OwedLeases
from services.common.redis_link import RedisFailed, RedisRefused


def lease(name: str) -> Lease:
    return Lease(Key(b"p" * 16, name.encode().ljust(32)), name.encode())


class Redis:
    """Takes leases back, or not."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.up = True
        self.asked: list[bytes] = []
        self.changed = asyncio.Event()
        self.owed = OwedLeases(self.abandon, lambda: self.up)

    async def abandon(self, one: Lease) -> None:
        self.asked.append(one.token)
        self.changed.set()
        if self.error is not None:
            raise self.error

    async def until(self, *asked: bytes) -> None:
        async with asyncio.timeout(30):
            while self.asked != list(asked):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    one = Redis()
    task = asyncio.create_task(one.owed.give_back())
    yield one
    task.cancel()


async def test_it_is_given_back_at_once_and_once(redis: Redis) -> None:
    redis.owed.add(lease("a"))
    await redis.until(b"a")
    redis.owed.add(lease("b"))
    await redis.until(b"a", b"b")


async def test_it_is_tried_again_when_redis_resumes(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 3600.0)
    redis.error = RedisFailed()
    redis.owed.add(lease("a"))
    redis.owed.add(lease("b"))
    await redis.until(b"a")  # and the next would fail too
    await asyncio.sleep(0)
    redis.error = None
    redis.owed.resumed()
    await redis.until(b"a", b"a", b"b")


async def test_it_is_tried_again_where_nobody_noticed_that_redis_was_away(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    redis.up = False
    redis.owed.add(lease("a"))
    await asyncio.sleep(0)
    assert redis.asked == []
    redis.up = True
    await redis.until(b"a")


async def test_what_redis_refuses_holds_up_no_other(redis: Redis) -> None:
    redis.error = RedisRefused("no such right")
    redis.owed.add(lease("a"))
    redis.owed.add(lease("b"))
    await redis.until(b"a", b"b")


async def test_the_oldest_make_way(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OWED", 2)
    for name in ("a", "b", "c"):
        redis.owed.add(lease(name))
    await redis.until(b"b", b"c")
