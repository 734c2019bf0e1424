"""What is wanted of each pool, as another actuator is told: its size, and who still drains."""

import asyncio
import time
from collections.abc import Callable

from services.scaler.fleet.fleet import PoolView
from services.scaler.policy.draining import ReplicaState
from services.scaler.ports import Wish

LOOK_SECONDS = 0.5


class FleetWishes:
    """See `services.scaler.ports.Wishes`; looks at the fleet at times.

    `pools` gives the fleet's pools, `wall` seconds since 1970.
    """

    def __init__(
        self, pools: Callable[[], list[PoolView]], *, wall: Callable[[], float] = time.time
    ) -> None:
        self._pools = pools
        self._wall = wall
        self._wishes: dict[str, Wish | None] = {}
        self._changed = asyncio.Event()

    def wish(self, pool: str) -> Wish | None:
        """What is wanted of a pool; None: that is not known now.

        Raises:
            KeyError: there is no such pool.
        """
        return self._wishes[pool]

    async def changed(self) -> None:
        """Waits until any wish is another, or a pool comes or goes."""
        await self._changed.wait()

    def look(self) -> None:
        """Takes what is wanted now."""
        before = self._wishes
        self._wishes = {view.name: self._of(view) for view in self._pools()}
        if self._wishes != before:
            woken, self._changed = self._changed, asyncio.Event()
            woken.set()

    async def run(self) -> None:
        """Looks for ever; the caller owns it."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _of(self, view: PoolView) -> Wish | None:
        if view.held:
            return None
        draining = sum(seen.state is ReplicaState.DRAINING for seen in view.replicas)
        size, active = view.desired + draining, view.desired > 0
        before = self._wishes.get(view.name)
        same = before is not None and (before.size, before.active) == (size, active)
        return before if same else Wish(size, active, self._wall())
