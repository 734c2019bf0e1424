"""Two scaling files on the recorded days, beside each other."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.scaler.config import Pool, Scaling
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Plan, PoolPlan, Verdict
from services.scaler.policy.recorded import MINUTE_SECONDS
from services.scaler.simulator.course import Course, as_one
from services.scaler.simulator.together import Fared, Line, Member, Shares, together
from services.scaler.simulator.verdict import Outcome, judged
from services.scaler.try_out.pools import (
    Measured,
    Progress,
    Unanswerable,
    added,
    read,
    shown,
    trace_of,
)
from services.scaler.try_out.tiers import Tier, coupled, replica_in, serving, tiers_of

USUAL_LATE_SHARE = 0.01
"""Of the answers, where the policy in force names no share that may be late."""

USUAL_OBJECTIVE = 2.0
"""Seconds to the first text, where no pool of a tier names any."""

MOST_STEPS = 9_000_000
"""Seconds of all tiers that are tried at once: as much as fits in the memory that a trial has."""

NOTHING_TO_COMPARE = "there is nothing to compare it with, as only one of the files has it"

_VERDICTS = {
    Outcome.BETTER: Verdict.BETTER,
    Outcome.WORSE: Verdict.WORSE,
    Outcome.SAME: Verdict.SAME,
}


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


def planned(
    *,
    live: str,
    given: str,
    source: str,
    load: Path,
    since: float,
    until: float,
    replicas: Mapping[str, Any],
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
        progress: told the share that is done.

    Raises:
        Unanswerable: a file or the record cannot be read, or it is too much at once.
    """
    before, after = read(live, source), read(given, source)
    try:
        last_minute = math.floor(until / MINUTE_SECONDS)
        minutes = recorded(load, math.ceil(since / MINUTE_SECONDS), last_minute)
    except OSError as error:
        raise Unanswerable(f"the recorded load cannot be read: {error}") from error
    measured = {name: Measured.of(said) for name, said in replicas.items()}
    first, last = (minutes[0].minute, minutes[-1].minute) if minutes else (0, 0)
    days = _Days(first, last - first + 1, lambda name: measured.get(name, Measured()))
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
        outcomes[tier.label] = _outcome(tier, *courses)
        for name in {*tier.live, *tier.given}:
            pools[name] = (
                PoolPlan(untried=tier.untried)
                if tier.untried
                else _compared(courses[0].get(name), courses[1].get(name), first)
            )
    verdict, because = concluded(outcomes)
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
    )


def concluded(outcomes: Mapping[str, tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """One verdict of all tiers: the worst that there is, with its reason."""
    for wanted in (Verdict.WORSE, Verdict.UNKNOWN, Verdict.BETTER, Verdict.SAME):
        for name, (verdict, because) in outcomes.items():
            if verdict is wanted and because:
                return wanted, f"{name}: {because}"
    return Verdict.SAME, "both decide the same"


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


def _outcome(
    tier: Tier, live: Mapping[str, Fared], given: Mapping[str, Fared]
) -> tuple[Verdict, str]:
    """What is to be thought of one tier. One that is not changed is no reason to doubt."""
    if tier.untried:
        if tier.same:
            return Verdict.SAME, ""
        return Verdict.UNKNOWN, f"it is not tried: {tier.untried}"
    if not tier.live or not tier.given:
        return Verdict.UNKNOWN, NOTHING_TO_COMPARE
    before, after = _parts(tier.live, live), _parts(tier.given, given)
    if before.keys() == after.keys() and all(
        np.array_equal(one.ticks.wanted, after[name].ticks.wanted) for name, one in before.items()
    ):
        return Verdict.SAME, ""
    pools = {**tier.live, **tier.given}
    prices = {name: pools[name].usd_per_hour for name in {*before, *after}}
    weighed = min(prices.values()) > 0.0 and len(set(prices.values())) > 1
    dearest = max(prices, key=lambda name: (prices[name], name))
    worth = {name: price / prices[dearest] if weighed else 1.0 for name, price in prices.items()}
    outcome = judged(
        *(as_one(list(of.values()), [worth[name] for name in of]) for of in (before, after)),
        aim=1.0 - _late_share(tier.live),
        unit=f"replica-hours at the price of {dearest}" if weighed else "replica-hours",
    )
    return _VERDICTS[outcome.outcome], outcome.why


def _parts(pools: Mapping[str, Pool], courses: Mapping[str, Fared]) -> dict[str, Course]:
    return {name: courses[name].course for name in pools if name in courses}


def _lines(tiers: Iterable[Mapping[str, Pool]], courses: Mapping[str, Fared]) -> list[list[Course]]:
    """The courses of each tier that was tried."""
    parts = [list(_parts(pools, courses).values()) for pools in tiers]
    return [some for some in parts if some]


def _beside(name: str, pools: Mapping[str, Pool]) -> Mapping[str, Pool]:
    """The pools of the same tier."""
    return {one: pool for one, pool in pools.items() if pool.tier == pools[name].tier}


def _objective(pools: Mapping[str, Pool]) -> float:
    """Seconds to the first text that a tier is held to; of several the least."""
    named = [one.scale.objectives.ttft_seconds for one in pools.values() if one.scale is not None]
    return min(named, default=USUAL_OBJECTIVE)


def _late_share(pools: Mapping[str, Pool]) -> float:
    """Share of the answers that may be late, as the policy in force says."""
    named = [one.scale.work.late_share for one in pools.values() if one.scale and one.scale.work]
    return min(named, default=USUAL_LATE_SHARE)


def _compared(live: Fared | None, given: Fared | None, first: int) -> PoolPlan:
    """Both courses of a pool, and when their sizes differed most."""
    both = PoolPlan(
        None if live is None else shown(live.course, live.bounds),
        None if given is None else shown(given.course, given.bounds),
    )
    if live is None or given is None:
        return both
    at = live.course.ticks.at
    of_given = given.course.ticks
    place = np.clip(np.searchsorted(of_given.at, at, side="right") - 1, 0, None)
    wanted = of_given.wanted[place]
    differs = np.abs(wanted - live.course.ticks.wanted)
    most = int(differs.argmax())
    if not differs[most]:
        return both
    return PoolPlan(
        both.live,
        both.planned,
        differ_most_at=float(first * MINUTE_SECONDS + at[most]),
        live_size=int(live.course.ticks.wanted[most]),
        planned_size=int(wanted[most]),
    )
