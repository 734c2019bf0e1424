"""The guardrail at work: judged samples go to the records of levers, which it halts by them.

Every pair is a sample for each lever that acted, and one for all of them together. Samples are
taken in turn, of which there is a bounded number; while the shared state is away they are lost, but
for the one that halts a lever.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from services.common.errors import Unavailable
from services.router.levers.changes import LeverChanges, name_of
from services.router.levers.copy import Change, LeverCopy
from services.router.metrics import Metrics
from services.router.policy.guardrail import Guard
from services.router.policy.lever_record import LeverRecord
from services.router.policy.levers import (
    TOTAL,
    calibration_version,
    evidence_until,
    guard_of,
    levers_of,
    total_guard,
)
from services.router.policy.routes import Route
from services.router.policy.total import blame, total_judged

log = structlog.get_logger()

MAX_WAITING = 256
"""Judged samples that wait for their turn; more are left out."""


class Guardrail:
    """Takes samples. State of the process; what it decides by is in the shared records."""

    def __init__(
        self, copy: LeverCopy, changes: LeverChanges, metrics: Metrics, wall: Callable[[], float]
    ) -> None:
        """`wall` gives seconds since 1970."""
        self._copy = copy
        self._changes = changes
        self._metrics = metrics
        self._wall = wall
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        """Takes what a pair says of each lever that acted, and of all together. Never raises."""
        calibration = calibration_version(route)
        for lever in levers_of(route):
            guard = guard_of(route, lever)
            if guard is not None and lever in losses:
                await self._take(route, lever, self._sample(route, guard, losses[lever], weight))
        guard = total_guard(route)
        if guard is not None and losses:
            await self._take(route, TOTAL, self._pair(route, guard, calibration, losses, weight))
            await self.halt_blamed(route)

    async def halt_blamed(self, route: Route) -> None:
        """Halts the lever that is to blame for what all lost together, if one is. Never raises."""
        calibration = calibration_version(route)
        record = self._copy.record(name_of(route, TOTAL))
        found = blame(record, self._records(route), calibration)
        if found is None:
            return

        def halted(lever: LeverRecord) -> LeverRecord:
            now = max(self._wall(), found.since)
            return lever.halted_for_all(calibration, found.reason, now, evidence_until(route))

        try:
            await self._changes.change(route, found.lever, halted)
        except Unavailable:
            self._keep(route, found.lever, halted)

    def _sample(self, route: Route, guard: Guard, loss: float, weight: float) -> Change:
        calibration, until = calibration_version(route), evidence_until(route)
        return lambda record: record.judged(
            guard, calibration, loss, weight, self._wall(), until=until
        )

    def _pair(
        self,
        route: Route,
        guard: Guard,
        calibration: str,
        losses: Mapping[str, float],
        weight: float,
    ) -> Change:
        return lambda record: total_judged(
            record,
            self._records(route),
            guard,
            calibration=calibration,
            until=evidence_until(route),
            losses=losses,
            weight=weight,
            now=self._wall(),
        )

    def _records(self, route: Route) -> dict[str, LeverRecord]:
        return {lever: self._copy.record(name_of(route, lever)) for lever in levers_of(route)}

    async def _take(self, route: Route, name: str, taken: Change) -> None:
        """Has a record take a sample."""
        if self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            async with self._turn:
                if not self._copy.away and await self._changes.change(route, name, taken):
                    self._metrics.guard_samples.labels(route.name, name).inc()
        except Unavailable:
            self._keep(route, name, taken)
        except ValueError as error:
            log.warning("a sample says nothing", route=route.name, lever=name, error=str(error))
        finally:
            self._waiting -= 1

    def _keep(self, route: Route, name: str, change: Change) -> None:
        """A halt that cannot be written holds here at once, and for all as soon as can be."""
        before = self._copy.record(name_of(route, name))
        after = change(before)
        standing = after.standing(self._wall(), calibration_version(route), evidence_until(route))
        if standing.halted and after is not before:
            self._changes.keep(route, name, after)
