"""Both kinds of shared state for one suite, and the time they live in, which passes on command."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis

from services.common.redis_link import RedisLink
from services.router.levers.copy import parse_record
from services.router.policy.lever_record import LeverRecord
from services.router.policy.lever_values import values_of
from services.router.state.file import FileState
from services.router.state.redis import KEPT, RedisState
from services.router.state.store import SharedState

LONG = 1e6
"""Seconds, so many that those a slow machine takes do not count."""

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def a_record(said: str = "why") -> bytes:
    return orjson.dumps(values_of(LeverRecord().halt("ann", said, 10.0)))


ONE, TWO, THREE = map(a_record, ("one", "two", "three"))


def redis_state(url: str, timeout_seconds: float = 5.0, **limits: Any) -> RedisState:
    kept, levers = (
        RedisLink(url, timeout_seconds=timeout_seconds, connections=connections)
        for connections in (8, 4)
    )
    return RedisState(kept, levers, **limits)


@dataclass
class Stage:
    """A state, and what tells it that time has passed."""

    state: SharedState
    advance: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def file_stage(folder: Path, **limits: Any) -> AsyncIterator[Stage]:
    now = [1000.0]
    state = FileState(folder, parse_record, clock=lambda: now[0], **limits)

    async def advance(seconds: float) -> None:
        now[0] += seconds

    yield Stage(state, advance)
    await state.close()


@asynccontextmanager
async def redis_stage(url: str) -> AsyncIterator[Stage]:
    state = redis_state(url)
    async with Redis.from_url(url) as redis:

        async def advance(seconds: float) -> None:
            """Redis keeps its own time; what has less to live is older."""
            async for name in redis.scan_iter(f"{KEPT}*"):
                left = await redis.pttl(name)
                await redis.pexpire(name, left - round(seconds * 1000))

        yield Stage(state, advance)
        await state.close()
