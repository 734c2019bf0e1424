"""What is wanted of pools now, for an actuator other than ours: see `ports.Wishes`."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from services.scaler.ports import Wish


class WishBoard:
    """The last wish of each pool. Written by the fleet, read by whoever acts on it."""

    def __init__(self) -> None:
        """Nothing is wished yet."""
        self._wishes: dict[str, Wish | None] = {}
        self._changed = asyncio.Event()

    def note(self, pool: str, wish: Wish | None) -> None:
        """Takes what is wanted of a pool; None: that is not known. `since` alone is no news."""
        before = self._wishes.get(pool)
        if pool in self._wishes and (
            wish == before
            or (
                wish is not None
                and before is not None
                and replace(wish, since=before.since) == before
            )
        ):
            return
        self._wishes[pool] = wish
        self._tell()

    def keep(self, pools: Collection[str]) -> None:
        """Forgets all other pools."""
        gone = self._wishes.keys() - set(pools)
        for name in gone:
            del self._wishes[name]
        if gone:
            self._tell()

    def wish(self, pool: str) -> Wish | None:
        """What is wanted of a pool; None: that is not known now.

        Raises:
            KeyError: there is no such pool.
        """
        return self._wishes[pool]

    async def changed(self) -> None:
        """Waits until any wish is another, or a pool comes or goes."""
        await self._changed.wait()

    def _tell(self) -> None:
        told, self._changed = self._changed, asyncio.Event()
        told.set()
