"""Asks for replicas of tiers that requests wait for in vain: one call at a time for each tier.

It asks again as long as somebody waits, so that what is said stays true: a start may fail, a pool
may be taken away. Leaves to `group` who waits, and for how long.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from services.common.backoff import Backoff
from services.common.shared import Shared
from services.router.metrics import Metrics
from services.router.ports import Coming, Waking

AGAIN_SECONDS = 1.0
"""Until a tier whose replica is on its way is asked about again."""
UNKNOWN = Backoff(0.2, 5.0)
"""Where nobody answers."""
HINT_SECONDS = 0.5
"""How long an error waits for what it is to say of the replica that comes."""


class TierWaking:
    """State of the process: which tiers are being asked for."""

    def __init__(
        self,
        waking: Waking,
        metrics: Metrics,
        *,
        needed: Callable[[str], bool],
        answered: Callable[[str, Coming], None],
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Nobody is asked for yet.

        Args:
            waking: who is asked.
            metrics: what it counts.
            needed: says whether somebody waits for a tier of which no replica is ready.
            answered: hears each answer.
            spawn: starts a task that is owned by the process.
            pause: waits for so many seconds.
            chance: draws from [0, 1).
        """
        self._waking = waking
        self._metrics = metrics
        self._needed = needed
        self._answered = answered
        self._spawn = spawn
        self._pause = pause
        self._chance = chance
        self._asking: set[str] = set()
        self._once: dict[str, Shared[Coming]] = {}

    def miss(self, tier: str) -> None:
        """Somebody waits for a replica of the tier; comes back at once."""
        if tier not in self._asking:
            self._asking.add(tier)
            self._spawn(self._ask(tier))

    async def ask_once(self, tier: str) -> None:
        """Asks for a tier whose replica was lost; many who do are one. Takes half a second at most.

        Who lost it comes back: so it is woken, and said when that is worth it.
        """
        shared = self._once.setdefault(tier, Shared(partial(self._told, tier)))
        with suppress(TimeoutError):
            async with asyncio.timeout(HINT_SECONDS):
                await shared.get()

    async def _told(self, tier: str) -> Coming:
        coming = await self._waking.wake(tier)
        self._metrics.wakes.labels(tier, str(coming.answer)).inc()
        self._answered(tier, coming)
        return coming

    async def _ask(self, tier: str) -> None:
        failures = 0
        try:
            while self._needed(tier):
                coming = await self._told(tier)
                failures = failures + 1 if coming.unknown else 0
                unknown = UNKNOWN.seconds(failures, self._chance())
                await self._pause(unknown if coming.unknown else AGAIN_SECONDS)
        finally:
            self._asking.discard(tier)
