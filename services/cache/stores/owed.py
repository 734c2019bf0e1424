"""Leases that Redis may hold for nobody: it granted them too late, or could not be asked.

A claim that times out here may still be run there later, and what is given back meanwhile is not
heard. Such a lease would hold up whoever asks the same until it ends by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from services.cache.policy import Lease
from services.common.redis_link import RedisFailed, RedisRefused

MOST_OWED = 10_000
"""Beyond it the oldest end by themselves."""

AGAIN_SECONDS = 1.0
"""How soon a Redis that did not answer is asked again."""


class OwedLeases:
    """Gives them back: at once, and again and again while Redis does not answer."""

    def __init__(
        self, abandon: Callable[[Lease], Awaitable[object]], up: Callable[[], bool]
    ) -> None:
        """Asks nothing yet.

        Args:
            abandon: gives one back, and raises `RedisFailed` where it cannot.
            up: whether Redis can be asked now.
        """
        self._abandon = abandon
        self._up = up
        self._owed: dict[Lease, None] = {}
        self._owing, self._again = asyncio.Event(), asyncio.Event()

    def add(self, lease: Lease) -> None:
        """Has a lease given back."""
        if lease not in self._owed and len(self._owed) >= MOST_OWED:
            del self._owed[next(iter(self._owed))]
        self._owed[lease] = None
        self._owing.set()

    def resumed(self) -> None:
        """Redis answers again."""
        self._again.set()

    async def give_back(self) -> None:
        """Does so until cancelled."""
        while True:
            await self._owing.wait()
            self._owing.clear()
            self._again.clear()
            await self._give_back_in_turn(list(self._owed))
            if self._owed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_SECONDS):
                        await self._again.wait()
                self._owing.set()

    async def _give_back_in_turn(self, owed: Sequence[Lease]) -> None:
        for lease in owed:
            if not self._up():
                return
            try:
                await self._abandon(lease)
            except RedisRefused:
                pass  # Redis is there, and will not do it the next time either
            except RedisFailed:
                return
            self._owed.pop(lease, None)
