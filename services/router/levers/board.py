"""The levers of all routes: which are halted, who halted them, and the guardrail's watch.

Every router decides by a copy of the shared records, at most a moment old, without waiting. What
changes a record changes the shared one, by compare-and-set, so that no router undoes what another
one said. When the shared state has been silent for a while, every lever counts as halted.

A halt never waits for the shared state: it holds here at once, and where it cannot be written, as
on a full disk, it is kept here, shown as unsaved, and written as soon as can be. A release has to
be written, as nobody may use a lever that others know to be halted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf

import structlog

from services.common.errors import Unavailable
from services.router.levers.changes import LeverChanges, name_of
from services.router.levers.copy import LeverCopy
from services.router.levers.guardrail import Guardrail
from services.router.metrics import Metrics
from services.router.policy.guardrail import Guard, GuardState
from services.router.policy.lever_record import LeverRecord, Standing
from services.router.policy.levers import (
    TOTAL,
    calibration_version,
    evidence_until,
    guard_of,
    levers_of,
    total_guard,
)
from services.router.policy.routes import Route
from services.router.routes.in_force import InForce
from services.router.state.store import SharedState

log = structlog.get_logger()

CHECK_SECONDS = 0.25
"""Between two looks at the shared state: so long a halt takes to reach all routers, about."""

ON = Standing(halted=False)
UNREACHABLE = "the state that routers share cannot be reached"


@dataclass(frozen=True, slots=True)
class SeenLever:
    """A lever as this router sees it.

    Attributes:
        route: it is of.
        name: of the lever.
        known: the shared state answers; else it counts as halted.
        standing: how it stands here.
        guard: what the guardrail holds it to; None where nothing watches it.
        watch: where the guardrail stands.
        unsaved: this router alone knows that it is halted, until that can be written.
    """

    route: Route
    name: str
    known: bool
    standing: Standing
    guard: Guard | None
    watch: GuardState
    unsaved: bool

    @property
    def is_told(self) -> bool:
        """Whether anybody has said how it stands, or it merely counts as halted."""
        return self.known or bool(self.standing.author)


@dataclass(frozen=True, slots=True)
class SeenTotal:
    """The watch on what all levers of a route lose together, as this router sees it.

    Attributes:
        route: it is of.
        known: the shared state answers.
        guard: what they are held to together.
        watch: where it stands.
    """

    route: Route
    known: bool
    guard: Guard
    watch: GuardState


@dataclass(frozen=True, slots=True)
class _Halted:
    """What was found of a route, good until then while the copy stays at this version."""

    route: Route
    version: int
    until: float
    names: frozenset[str]


class SharedLeverBoard:
    """The `LeverBoard` of a router. State of the process; the truth is in the shared state."""

    def __init__(
        self,
        *,
        state: SharedState,
        in_force: InForce,
        metrics: Metrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` gives seconds that only grow, `wall` seconds since 1970."""
        self._copy = LeverCopy(state, clock=clock)
        self._changes = LeverChanges(self._copy, metrics, wall)
        self._guardrail = Guardrail(self._copy, self._changes, metrics, wall)
        self._in_force = in_force
        self._metrics = metrics
        self._wall = wall
        self._halted: dict[str, _Halted] = {}
        self._shown: dict[tuple[str, str], Standing] = {}
        self._shown_totals: set[str] = set()
        self._shown_unknown = False

    def halted(self, route: Route) -> Collection[str]:
        """See `ports.LeverBoard.halted`."""
        if self._copy.unknown:
            return levers_of(route)
        now, version, found = self._wall(), self._copy.version, self._halted.get(route.name)
        if (
            found is None
            or found.route is not route
            or found.version != version
            or now >= found.until
        ):
            halted = [lever for lever in self.listed((route,)) if lever.standing.halted]
            until = min((lever.standing.expires or inf for lever in halted), default=inf)
            names = frozenset(lever.name for lever in halted)
            found = self._halted[route.name] = _Halted(route, version, until, names)
        return found.names

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        """See `ports.LeverBoard.judged`."""
        await self._guardrail.judged(route, losses, weight)
        self._show()

    def listed(self, routes: Iterable[Route]) -> tuple[SeenLever, ...]:
        """Every lever of these routes, in their order, as it stands now."""
        known = not self._copy.unknown
        return tuple(
            self._seen(route, lever, known=known) for route in routes for lever in levers_of(route)
        )

    def totals(self, routes: Iterable[Route]) -> Iterator[SeenTotal]:
        """The watch on all levers together, of each of these routes that has one."""
        for route in routes:
            guard = total_guard(route)
            if guard is not None:
                record = self._copy.record(name_of(route, TOTAL))
                watch = record.watch(calibration_version(route))
                state = watch.state if watch else GuardState()
                yield SeenTotal(route, not self._copy.unknown, guard, state)

    async def halt(
        self, route: Route, lever: str, *, author: str, reason: str, seconds: float | None = None
    ) -> SeenLever:
        """A person halts a lever, for so long or until it is released: here at once.

        And for all routers, unless it comes back unsaved.
        """
        await self._changes.change_at_once(
            route, lever, lambda record: record.halt(author, reason, self._wall(), seconds)
        )
        return self._shown_anew(route, lever)

    async def release(self, route: Route, lever: str, *, author: str, reason: str) -> SeenLever:
        """A person releases a lever for all routers; its watch begins anew.

        Raises:
            Unavailable: the shared state cannot be written. Trying again is safe.
        """
        # At once: samples may wait long for their turn.
        await self._changes.change(
            route, lever, lambda record: record.release(author, reason, self._wall())
        )
        return self._shown_anew(route, lever)

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Keeps this router's copy up to date until cancelled. The caller owns it.

        `pause` waits for so many seconds. What is owed is written beside the looks: however slow
        that is, a look comes in time, so that levers count as halted only where the shared state
        does not answer it.
        """
        settling: asyncio.Task[None] | None = None
        try:
            while True:
                await self._copy.look()
                self._show()
                if settling is not None and settling.done():
                    settling.result()  # what failed and never should begins anew with us
                if not self._copy.away and (settling is None or settling.done()):
                    settling = asyncio.create_task(self._settled())
                await pause(CHECK_SECONDS)
        finally:
            if settling is not None:
                settling.cancel()
                await asyncio.wait((settling,))

    async def refresh(self) -> None:
        """Looks once at the shared state, and writes what is owed to it. Never raises."""
        await self._copy.look()
        self._show()
        if not self._copy.away:
            await self._settled()

    async def _settled(self) -> None:
        with suppress(Unavailable):  # the next look tries again
            await self._settle()
        self._show()

    async def _settle(self) -> None:
        """Writes what is owed, halts who is to blame, notes which halts a calibration ended."""
        for route in self._in_force.now.routes.values():
            noted = partial(
                _recalibrated,
                calibration=calibration_version(route),
                now=self._wall(),
                until=evidence_until(route),
            )
            for lever in levers_of(route):
                record = self._copy.record(name_of(route, lever))
                if self._copy.owed(name_of(route, lever)) or noted(record) is not record:
                    await self._changes.change(route, lever, noted)
            if self._copy.owed(name_of(route, TOTAL)):
                await self._changes.change(route, TOTAL, lambda record: record)
            await self._guardrail.halt_blamed(route)

    def _shown_anew(self, route: Route, lever: str) -> SeenLever:
        self._show()
        return self._seen(route, lever, known=True)

    def _seen(self, route: Route, lever: str, *, known: bool) -> SeenLever:
        record, calibration = self._copy.record(name_of(route, lever)), calibration_version(route)
        watch = record.watch(calibration)
        standing = record.standing(self._wall(), calibration, evidence_until(route))
        if not known and not standing.halted:
            standing = Standing(halted=True, reason=self._copy.refusal or UNREACHABLE)
        return SeenLever(
            route=route,
            name=lever,
            known=known,
            standing=standing,
            guard=guard_of(route, lever),
            watch=watch.state if watch else GuardState(),
            unsaved=self._copy.owed(name_of(route, lever)),
        )

    def _show(self) -> None:
        """Says what has changed, in metrics and in one log line a lever."""
        unknown = self._copy.unknown
        self._metrics.lever_state_unreachable.set(unknown)
        if unknown and not self._shown_unknown:
            log.error("every lever counts as halted", why=self._copy.refusal or UNREACHABLE)
        elif self._shown_unknown and not unknown:
            log.info("the state that routers share can be reached again")
        shown, unsaved = {}, 0
        for lever in self.listed(self._in_force.now.routes.values()):
            key = (lever.route.name, lever.name)
            self._metrics.lever_halted.labels(*key).set(lever.standing.halted)
            unsaved += lever.unsaved
            if lever.guard is not None:
                self._show_evidence(key, lever.guard, lever.watch)
            was = self._shown.get(key, ON)
            shown[key] = lever.standing if lever.is_told else was
            if shown[key] != was:
                _log(lever)
        for key in self._shown.keys() - shown.keys():  # no longer in the policy
            self._metrics.lever_halted.remove(*key)
            self._metrics.guard_evidence.remove(*key)
        self._metrics.lever_unsaved.set(unsaved)
        totals = set()
        for total in self.totals(self._in_force.now.routes.values()):
            totals.add(total.route.name)
            self._show_evidence((total.route.name, TOTAL), total.guard, total.watch)
        for name in self._shown_totals - totals:
            self._metrics.guard_evidence.remove(name, TOTAL)
        self._shown, self._shown_totals, self._shown_unknown = shown, totals, unknown

    def _show_evidence(self, key: tuple[str, str], guard: Guard, watch: GuardState) -> None:
        self._metrics.guard_evidence.labels(*key).set(watch.evidence / guard.run_length)


def _recalibrated(
    record: LeverRecord, *, calibration: str, now: float, until: float
) -> LeverRecord:
    return record.recalibrated(calibration, now, until)


def _log(lever: SeenLever) -> None:
    standing = lever.standing
    say = log.warning if standing.halted else log.info
    say(
        "a lever is halted" if standing.halted else "a lever is on",
        route=lever.route.name,
        lever=lever.name,
        author=standing.author,
        reason=standing.reason,
        expires=standing.expires,
        unsaved=lever.unsaved,
    )
