"""Two scaling files on the recorded days, beside each other."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.scaler.config import Scaling
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Difference, Plan, PoolPlan, Verdict
from services.scaler.policy.recorded import MINUTE_SECONDS, RecordedMinute
from services.scaler.pools.pool import Pool
from services.scaler.simulator.course import Course
from services.scaler.simulator.together import Fared, Line, Member, Shares, together
from services.scaler.try_out.differences import differences
from services.scaler.try_out.outcomes import concluded, outcome, parts_of
from services.scaler.try_out.pictures import page_of
from services.scaler.try_out.pools import (
    Measured,
    Progress,
    Unanswerable,
    added,
    assumed,
    known,
    read,
    shown,
    trace_of,
)
from services.scaler.try_out.record import Record, sizes_on_record
from services.scaler.try_out.tiers import Tier, coupled, replica_in, serving, tiers_of

USUAL_OBJECTIVE = 2.0
"""Seconds to the first text, where no pool of a tier names any."""

MOST_STEPS = 9_000_000
"""Seconds of all tiers that are tried at once: as much as fits in the memory that a trial has."""


@dataclass(frozen=True)
class _Days:
    """What both files are tried on.

    Attributes:
        first, minutes: the first recorded minute since 1970, and how many there are.
        measured: what is known of a pool's replicas.
    """

    first: int
    minutes: int
    measured: Callable[[str], Measured]

    def courses(
        self, group: Sequence[tuple[Tier, Mapping[str, Pool]]], file: Scaling, progress: Progress
    ) -> dict[str, Fared]:
        """How pools fared, those of tiers that share something, by the file that they are of."""
        pools: dict[str, Pool] = {}
        lines = []
        for tier, of in group:
            pools.update(of)
            names = [] if tier.untried else serving(of)
            if not names:
                continue
            replica = replica_in(names[0], of, self.measured)
            assert replica is not None  # noqa: S101 - as the tier can be tried
            try:
                trace = trace_of(tier.minutes, replica, first=self.first, count=self.minutes)
            except ValueError as error:
                why = f"{tier.label}: its recorded load is of no use: {error}"
                raise Unanswerable(why) from error
            lines.append(Line(trace, names, _objective(of)))
        if not lines:
            return {}
        if len(lines) * self.minutes * MINUTE_SECONDS > MOST_STEPS:
            raise Unanswerable("so many tiers take more memory than a trial has; try fewer days")
        tried = {name for line in lines for name in line.pools}
        members = {
            name: Member(
                one.scale,
                one.first,
                replica_in(name, _beside(name, pools), self.measured) if name in tried else None,
                len(one.slots) or None,
                one.usd_per_hour,
                self.measured(name).learned,
            )
            for name, one in pools.items()
        }
        budgets = {
            name: budget
            for name, budget in file.budgets.items()
            if any(pool in pools for pool in budget.pools)
        }
        return together(
            members,
            lines,
            Shares(budgets, file.money),
            tick=file.tick_seconds,
            wall=float(self.first * MINUTE_SECONDS),
            progress=progress,
        )

    def compared(
        self, name: str, courses: tuple[Mapping[str, Fared], Mapping[str, Fared]],
        pools: Mapping[str, Pool],
    ) -> PoolPlan:  # fmt: skip
        """How a pool fared by both files, when its sizes differed, and what its replicas were."""
        live, given = (of.get(name) for of in courses)
        told: tuple[Difference, ...] = ()
        found = 0
        if live is not None and given is not None:
            told, found = differences(live, given, float(self.first * MINUTE_SECONDS))
        replica = replica_in(name, _beside(name, pools), self.measured)
        source = self.measured(name).sources
        return PoolPlan(
            None if live is None else shown(live.course, live.bounds),
            None if given is None else shown(given.course, given.bounds),
            told,
            found,
            None if replica is None else assumed(replica, source),
        )


def planned(
    *,
    live: str,
    given: str,
    source: str,
    load: Path,
    since: float,
    until: float,
    replicas: Mapping[str, Any],
    asked: Mapping[str, Any] = MappingProxyType({}),
    decisions: Path | None = None,
    in_force_since: float = 0.0,
    page: bool = False,
    progress: Progress,
) -> Plan:
    """What two files would have decided.

    Args:
        live: the text of the file in force.
        given: of the other.
        source: names them in errors.
        load: folder of the recorded load.
        since: seconds since 1970 from which on it is tried.
        until: the same, to which; later minutes are those of a clock that was wrong.
        replicas: what is known of each pool's, by name.
        asked: what they are to be taken to be in its place.
        decisions: folder of the decisions on record, which a trial has to agree with; None: none.
        in_force_since: seconds since 1970 from which on the file in force was.
        page: with a page.
        progress: told the share that is done.

    Raises:
        Unanswerable: a file or the record cannot be read, there is no such pool, or it is too much
            at once.
    """
    before, after = read(live, source), read(given, source)
    if strange := sorted(asked.keys() - before.pools.keys() - after.pools.keys()):
        raise Unanswerable(f"there is no pool {strange[0]!r} of which replicas are named")
    minutes, record = _on_record(load, (since, until), decisions, in_force_since, before)
    measured = {
        name: known(
            replicas.get(name), asked.get(name),
            in_force=before.pools.get(name), given=after.pools.get(name),
        )
        for name in {*before.pools, *after.pools}
    }  # fmt: skip
    first, last = (minutes[0].minute, minutes[-1].minute) if minutes else (0, 0)
    days = _Days(first, last - first + 1, measured.__getitem__)
    tiers = tiers_of(before, after, minutes, days.measured)
    groups = coupled(tiers, before, after)
    courses: tuple[dict[str, Fared], dict[str, Fared]] = ({}, {})
    for place, group in enumerate(groups):

        def told(share: float, place: int = place) -> None:
            progress((place + share) / len(groups))

        found = _tried(group, before, after, days, told)
        for of, some in zip(courses, found, strict=True):
            of.update(some)
        told(1.0)
    pools: dict[str, PoolPlan] = {}
    outcomes: dict[str, tuple[Verdict, str]] = {}
    for tier in tiers:
        tried = {name: courses[0][name] for name in tier.live if name in courses[0]}
        doubt = record.doubt(tried, tier.minutes, float(first * MINUTE_SECONDS))
        outcomes[tier.label] = outcome(tier, *courses, doubt)
        for name in {*tier.live, *tier.given}:
            pools[name] = (
                PoolPlan(untried=tier.untried)
                if tier.untried
                else days.compared(name, courses, {**tier.live, **tier.given})
            )
    # Of tiers of which nobody can say, one of which enough is on record speaks first.
    spoken = sorted(tiers, key=lambda one: not one.recorded)
    verdict, because = concluded({one.label: outcomes[one.label] for one in spoken})
    doubted = [one for one in tiers if outcomes[one.label][0] is Verdict.UNKNOWN]
    if not minutes:
        return Plan(verdict, because, pools)
    several = len(courses[0].keys() | courses[1].keys()) > 1
    return Plan(
        verdict,
        because,
        pools,
        since=float(first * MINUTE_SECONDS),
        until=float((last + 1) * MINUTE_SECONDS),
        recorded_share=len({one.minute for one in minutes}) / days.minutes,
        live=added(_lines((tier.live for tier in tiers), courses[0])) if several else None,
        planned=added(_lines((tier.given for tier in tiers), courses[1])) if several else None,
        reason_needed=verdict is Verdict.WORSE
        or (verdict is Verdict.UNKNOWN and any(one.recorded for one in doubted)),
        page=page_of(pools, courses, f"{verdict}: {because}", days.first, days.minutes)
        if page
        else "",
    )


def _on_record(
    load: Path,
    between: tuple[float, float],
    decisions: Path | None,
    in_force_since: float,
    live: Scaling,
) -> tuple[list[RecordedMinute], Record]:
    """The recorded load, and what the file in force decided on it."""
    first, last = (one / MINUTE_SECONDS for one in between)
    try:
        minutes = recorded(load, math.ceil(first), math.floor(last))
        if not minutes or decisions is None:
            return minutes, Record(0.0, 0.0, {})
        begin = max(float(minutes[0].minute * MINUTE_SECONDS), in_force_since)
        sizes = sizes_on_record(decisions, live.pools, begin)
    except OSError as error:
        raise Unanswerable(f"the record cannot be read: {error}") from error
    return minutes, Record(begin, float((minutes[-1].minute + 1) * MINUTE_SECONDS), sizes)


def _tried(
    group: Sequence[Tier], before: Scaling, after: Scaling, days: _Days, progress: Progress
) -> tuple[dict[str, Fared], dict[str, Fared]]:
    """A group of tiers by both files; what both would decide alike is computed once."""
    live = days.courses(
        [(tier, tier.live) for tier in group], before, lambda share: progress(share / 2)
    )
    alike = all(tier.same for tier in group) and (
        (before.tick_seconds, before.budgets, before.money)
        == (after.tick_seconds, after.budgets, after.money)
    )
    if alike:
        return live, live
    return live, days.courses(
        [(tier, tier.given) for tier in group], after, lambda share: progress(0.5 + share / 2)
    )


def _lines(tiers: Iterable[Mapping[str, Pool]], courses: Mapping[str, Fared]) -> list[list[Course]]:
    """The courses of each tier that was tried."""
    parts = [list(parts_of(pools, courses).values()) for pools in tiers]
    return [some for some in parts if some]


def _beside(name: str, pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """The pools of the same tier."""
    return {one: pool for one, pool in pools.items() if pool.tier == pools[name].tier}


def _objective(pools: Mapping[str, Pool]) -> float:
    """Seconds to the first text that a tier is held to; of several the least."""
    named = [one.scale.objectives.ttft_seconds for one in pools.values() if one.scale is not None]
    return min(named, default=USUAL_OBJECTIVE)
