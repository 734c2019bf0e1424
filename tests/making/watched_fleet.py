"""A fleet that a test can have refuse a place, or hear of it."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from services.router.fleet.fleet import Fleet
from services.router.fleet.place import Place
from services.router.policy.line import Priority
from services.router.policy.routes import Tier

OnPlace = Callable[[Tier, Priority, float], Awaitable[None]]
"""Hears of tier, priority and the time until when a place is waited for; may raise, or wait."""


async def _gives(tier: Tier, priority: Priority, until: float) -> None:
    """Lets everybody have a place."""


class WatchedFleet(Fleet):
    """A fleet that asks `on_place` before it gives a place."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.on_place: OnPlace = _gives

    async def place(
        self,
        tier: Tier,
        priority: Priority,
        *,
        avoid: Collection[str],
        until: float,
        tenant: str = "",
        elsewhere: Callable[[], bool] | None = None,
    ) -> Place:
        await self.on_place(tier, priority, until)
        return await super().place(
            tier, priority, avoid=avoid, until=until, tenant=tenant, elsewhere=elsewhere
        )
