"""Changes of the records of levers, each counted once where it changes how a lever stands."""

from collections.abc import Callable

from services.router.levers.copy import Change, LeverCopy
from services.router.metrics import Metrics
from services.router.policy.lever_record import RESERVED_AUTHORS, LeverRecord
from services.router.policy.levers import TOTAL, calibration_version, evidence_until
from services.router.policy.routes import Route


class LeverChanges:
    """Changes records through a router's copy; state of the process is in that copy."""

    def __init__(self, copy: LeverCopy, metrics: Metrics, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since 1970."""
        self._copy = copy
        self._metrics = metrics
        self._wall = wall

    async def change(self, route: Route, lever: str, change: Change) -> bool:
        """Changes a record; False where there is nothing to change.

        Raises:
            Unavailable: the shared state cannot be reached.
        """
        before, after = await self._copy.change(name_of(route, lever), change)
        self._count(route, lever, before, after)
        return after is not before

    async def change_at_once(self, route: Route, lever: str, change: Change) -> None:
        """Changes a record here at once, and for all as soon as that can be written."""
        before, after = await self._copy.change_at_once(name_of(route, lever), change)
        self._count(route, lever, before, after)

    def keep(self, route: Route, lever: str, record: LeverRecord) -> None:
        """Takes a record that could not be written: here at once, for all as soon as can be."""
        before = self._copy.record(name_of(route, lever))
        self._copy.keep(name_of(route, lever), record)
        self._count(route, lever, before, record)

    def _count(self, route: Route, lever: str, before: LeverRecord, after: LeverRecord) -> None:
        now, calibration = self._wall(), calibration_version(route)
        until = evidence_until(route)
        standing = after.standing(now, calibration, until)
        if lever != TOTAL and standing != before.standing(now, calibration, until):
            kind = standing.author if standing.author in RESERVED_AUTHORS else "person"
            self._metrics.lever_changes.labels(route.name, lever, kind).inc()


def name_of(route: Route, lever: str) -> str:
    """The name of a lever's record, and of that of all levers together (`levers.TOTAL`)."""
    return f"{route.name}/{lever}"
