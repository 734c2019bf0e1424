"""What a link does with operations that fail; no Redis is needed, nor waited for."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Gone
from redis.exceptions import ResponseError

from services.common.redis_link import FAILURES_IN_A_ROW, REST, RedisFailed, RedisLink


class Redis:
    """Operations of a link that nobody listens to, and what becomes of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.error: Exception | None = None
        self.held: asyncio.Event | None = None
        self.asked = 0
        self.link = RedisLink(
            "redis://nowhere",
            timeout_seconds=60.0,
            connections=4,
            clock=lambda: self.now,
            drawn=lambda: 1.0,
        )

    async def _answer(self) -> str:
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        return "answer"

    def use(self) -> Awaitable[Any]:
        return self.link._timely(self._answer, "")

    async def fails(self, times: int = 1) -> int:
        """Uses it, each time in vain; returns how often Redis itself was asked."""
        before = self.asked
        for _ in range(times):
            with pytest.raises(RedisFailed):
                await self.use()
        return self.asked - before


@pytest.fixture
async def redis() -> Redis:
    return Redis()


async def test_after_failures_in_a_row_it_is_left_alone(redis: Redis) -> None:
    redis.error = Gone("away")
    assert await redis.fails(20) == FAILURES_IN_A_ROW
    assert not redis.link.up


async def test_failures_that_do_not_come_in_a_row_are_borne(redis: Redis) -> None:
    for _ in range(10):
        redis.error = Gone("away")
        await redis.fails(FAILURES_IN_A_ROW - 1)
        redis.error = None
        assert await redis.use() == "answer"


async def test_after_a_rest_one_tries_it_and_the_others_do_not_wait(redis: Redis) -> None:
    redis.error = Gone("away")
    await redis.fails(FAILURES_IN_A_ROW)
    redis.now += REST.first_seconds
    redis.held = asyncio.Event()
    trial = asyncio.ensure_future(redis.use())
    await asyncio.sleep(0)
    assert await redis.fails(5) == 0
    redis.error = None
    redis.held.set()
    assert await trial == "answer"
    assert [await redis.use() for _ in range(3)] == ["answer"] * 3


async def test_failures_of_what_was_under_way_together_are_one(redis: Redis) -> None:
    for times in range(1, FAILURES_IN_A_ROW + 1):
        assert redis.link.up
        redis.held = asyncio.Event()
        together = [asyncio.ensure_future(redis.use()) for _ in range(4)]
        await asyncio.sleep(0)
        redis.now += 1.0
        redis.error = Gone("away")
        redis.held.set()
        await asyncio.gather(*together, return_exceptions=True)
        assert redis.asked == 4 * times
        redis.now += 1.0
    redis.now -= 1.0
    assert not redis.link.up


async def test_a_trial_that_fails_makes_the_rest_longer(redis: Redis) -> None:
    redis.error = Gone("away")
    await redis.fails(FAILURES_IN_A_ROW)
    redis.now += REST.first_seconds
    assert await redis.fails() == 1
    redis.now += REST.first_seconds
    assert await redis.fails() == 0
    redis.now += REST.first_seconds
    assert await redis.fails() == 1


async def test_a_trial_whose_caller_leaves_does_not_close_it_for_ever(redis: Redis) -> None:
    redis.error = Gone("away")
    await redis.fails(FAILURES_IN_A_ROW)
    redis.now += REST.first_seconds
    redis.held = asyncio.Event()
    trial = asyncio.ensure_future(redis.use())
    await asyncio.sleep(0)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    redis.error = redis.held = None
    redis.now += REST.cap_seconds
    assert await redis.use() == "answer"


async def test_a_refusal_is_an_answer_of_a_redis_that_is_there(redis: Redis) -> None:
    redis.error = ResponseError("OOM command not allowed")
    assert await redis.fails(20) == 20
    assert redis.link.up
    redis.error = Gone("away")
    await redis.fails(FAILURES_IN_A_ROW)
    redis.now += REST.first_seconds
    redis.error = ResponseError("READONLY")
    assert await redis.fails(3) == 3


async def test_a_timeout_that_this_process_came_late_to_is_no_failure(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis.link, "_timeout_seconds", 0.001)
    redis.held, answer = asyncio.Event(), redis._answer

    async def held_up() -> str:
        time.sleep(0.01)  # noqa: ASYNC251 -- as whatever else holds up the loop
        return await answer()

    monkeypatch.setattr(redis, "_answer", held_up)
    assert await redis.fails(3 * FAILURES_IN_A_ROW) == 3 * FAILURES_IN_A_ROW
    assert redis.link.up
    redis.held.set()
    assert await redis.use() == "answer"


async def test_a_link_that_listens_is_up_only_while_it_does(redis: Redis) -> None:
    tending = asyncio.ensure_future(redis.link.tend("channel", lambda _: None, lambda: None))
    await asyncio.sleep(0)
    assert not redis.link.up
    assert await redis.fails(3) == 0
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="many"):
        RedisLink("redis://host:many", timeout_seconds=1.0, connections=1)
