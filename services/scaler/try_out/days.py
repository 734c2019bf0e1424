"""Two scaling files on the recorded days, beside each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.scaler.config import Pool, Scaling
from services.scaler.history.recorder import recorded
from services.scaler.policy.plans import Plan, PoolPlan, Verdict
from services.scaler.policy.recorded import MINUTE_SECONDS, RecordedMinute
from services.scaler.simulator.course import Course
from services.scaler.simulator.trial import trial
from services.scaler.simulator.verdict import Outcome, judged
from services.scaler.try_out.pools import (
    UNKNOWN_REPLICAS,
    Measured,
    Progress,
    Unanswerable,
    not_tried,
    read,
    replica_of,
    scale_of,
    shown,
    trace_of,
)

LEAST_MINUTES = 30
"""On record; fewer say nothing of days."""

LEAST_ARRIVALS = 100

USUAL_LATE_SHARE = 0.01
"""Of the answers, where the policy in force names no share that may be late."""

NOTHING_TO_COMPARE = "there is nothing to compare it with, as only one of the files has it"

_VERDICTS = {
    Outcome.BETTER: Verdict.BETTER,
    Outcome.WORSE: Verdict.WORSE,
    Outcome.SAME: Verdict.SAME,
}


@dataclass(frozen=True)
class Both:
    """One pool in both files.

    Attributes:
        name: its name.
        live: by the file in force; None: it has none.
        given: by the other; None: the same.
        ticks: seconds between decisions, in both.
        measured: what is known of its replicas.
        minutes: of its tier.
        moved: its part of its tier's load is another one in the two files.
        untried: why it cannot be tried; empty: it can.
    """

    name: str
    live: Pool | None
    given: Pool | None
    ticks: tuple[float, float]
    measured: Measured
    minutes: Sequence[RecordedMinute]
    moved: bool
    untried: str

    @property
    def same(self) -> bool:
        """Whether both files would decide the same for it."""
        live, given = self.live, self.given
        if live is None or given is None or self.moved or self.ticks[0] != self.ticks[1]:
            return False
        return _policy(live) == _policy(given)

    def courses(self, progress: Progress) -> tuple[Course | None, Course | None]:
        """How it fared by both files."""
        live = self._course(self.live, self.ticks[0], lambda share: progress(share / 2))
        if self.same:
            return live, live
        given = self._course(self.given, self.ticks[1], lambda share: progress(0.5 + share / 2))
        return live, given

    def _course(self, pool: Pool | None, tick: float, progress: Progress) -> Course | None:
        replica = None if pool is None else replica_of(pool, self.measured)
        if pool is None or replica is None:
            return None
        try:
            trace = trace_of(self.minutes, replica)
        except ValueError as error:
            raise Unanswerable(f"{self.name}: its recorded load is of no use: {error}") from error
        wall = float(self.minutes[0].minute * MINUTE_SECONDS)
        return trial(scale_of(pool), trace, tick=tick, wall=wall, progress=progress)


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
        Unanswerable: a file or the record cannot be read.
    """
    before, after = read(live, source), read(given, source)
    try:
        last_minute = math.floor(until / MINUTE_SECONDS)
        minutes = recorded(load, math.ceil(since / MINUTE_SECONDS), last_minute)
    except OSError as error:
        raise Unanswerable(f"the recorded load cannot be read: {error}") from error
    names = sorted({*before.pools, *after.pools})
    found: dict[str, PoolPlan] = {}
    outcomes: dict[str, tuple[Verdict, str]] = {}
    for place, name in enumerate(names):
        both = _both(name, before, after, minutes, Measured.of(replicas.get(name)))

        def told(share: float, place: int = place) -> None:
            progress((place + share) / len(names))

        found[name], outcomes[name] = _tried(both, told)
        told(1.0)
    verdict, because = concluded(outcomes)
    if not minutes:
        return Plan(verdict, because, found)
    first, last = minutes[0].minute, minutes[-1].minute
    return Plan(
        verdict,
        because,
        found,
        since=float(first * MINUTE_SECONDS),
        until=float((last + 1) * MINUTE_SECONDS),
        recorded_share=len({one.minute for one in minutes}) / (last - first + 1),
    )


def concluded(outcomes: Mapping[str, tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """One verdict of all pools: the worst that there is, with its reason."""
    for wanted in (Verdict.WORSE, Verdict.UNKNOWN, Verdict.BETTER, Verdict.SAME):
        for name, (verdict, because) in outcomes.items():
            if verdict is wanted and because:
                return wanted, f"{name}: {because}"
    return Verdict.SAME, "both decide the same"


def _tried(both: Both, progress: Progress) -> tuple[PoolPlan, tuple[Verdict, str]]:
    """One pool by both files. One that is not changed is no reason to doubt."""
    if both.untried:
        plan = PoolPlan(untried=both.untried)
        if both.same:
            return plan, (Verdict.SAME, "")
        return plan, (Verdict.UNKNOWN, f"it is not tried: {both.untried}")
    live, given = both.courses(progress)
    if live is None or given is None:
        plan = PoolPlan(
            live=None if live is None else shown(live),
            planned=None if given is None else shown(given),
        )
        return plan, (Verdict.UNKNOWN, NOTHING_TO_COMPARE)
    if both.same:
        return PoolPlan(shown(live), shown(given)), (Verdict.SAME, "")
    outcome = judged(live, given, aim=1.0 - _late_share(both.live))
    return _compared(both, live, given), (_VERDICTS[outcome.outcome], outcome.why)


def _both(
    name: str,
    before: Scaling,
    after: Scaling,
    minutes: Sequence[RecordedMinute],
    measured: Measured,
) -> Both:
    live, given = before.pools.get(name), after.pools.get(name)
    tier = next(pool.tier for pool in (live, given) if pool is not None)
    of = [one for one in minutes if one.tier == tier]
    shares = _shared(name, before), _shared(name, after)
    untried = (
        shares[0]
        or shares[1]
        or _idle(live)
        or _idle(given)
        or _unknown(tier, of)
        or (not_tried(live) if live is not None else "")
        or (not_tried(given) if given is not None else "")
        or next(
            (
                UNKNOWN_REPLICAS
                for pool in (live, given)
                if pool is not None and replica_of(pool, measured) is None
            ),
            "",
        )
    )
    if live is not None and given is not None and live.tier != given.tier:
        untried = f"it changes from tier {live.tier} to {given.tier}"
    ticks = before.tick_seconds, after.tick_seconds
    return Both(name, live, given, ticks, measured, of, shares[0] != shares[1], untried)


def _shared(name: str, scaling: Scaling) -> str:
    """Why a pool's part of its tier's load is not known; empty: it has all of it."""
    pool = scaling.pools.get(name)
    if pool is None:
        return ""
    spots = {one.scale.spot.pool for one in scaling.pools.values() if one.scale and one.scale.spot}
    if name in spots:
        return "it is the spot part of another pool, which is tried whole"
    for other, one in scaling.pools.items():
        if one.tier == pool.tier and other not in {name, *spots}:
            return f"what part of tier {pool.tier} it served beside {other} is not on record"
    return ""


def _idle(pool: Pool | None) -> str:
    """Why a pool serves nothing; empty: it does."""
    fixed = pool is not None and pool.scale is None and pool.first == 0
    return "its size is 0, so that it serves nothing" if fixed else ""


def _unknown(tier: str, minutes: Sequence[RecordedMinute]) -> str:
    """Why too little is on record; empty: enough is."""
    if len(minutes) < LEAST_MINUTES:
        count = len(minutes)
        there = (
            f"{count} minute of its load is" if count == 1 else f"{count} minutes of its load are"
        )
        return f"only {there} on record, least are {LEAST_MINUTES}"
    if sum(one.arrivals for one in minutes) < LEAST_ARRIVALS:
        return f"fewer than {LEAST_ARRIVALS} requests of tier {tier} are on record"
    return ""


def _policy(pool: Pool) -> tuple[Any, ...]:
    """What the course of a pool depends on."""
    return scale_of(pool), pool.tier, pool.max_in_flight, pool.usd_per_hour


def _late_share(live: Pool | None) -> float:
    """Share of the answers that may be late, as the policy in force says."""
    work = live.scale.work if live is not None and live.scale is not None else None
    return USUAL_LATE_SHARE if work is None else work.late_share


def _compared(both: Both, live: Course, given: Course) -> PoolPlan:
    """Both courses, and when their sizes differed most."""
    at = live.ticks.at
    place = np.clip(np.searchsorted(given.ticks.at, at, side="right") - 1, 0, None)
    wanted = given.ticks.wanted[place]
    differs = np.abs(wanted - live.ticks.wanted)
    most = int(differs.argmax())
    if not differs[most]:
        return PoolPlan(shown(live), shown(given))
    return PoolPlan(
        shown(live),
        shown(given),
        differ_most_at=float(both.minutes[0].minute * MINUTE_SECONDS + at[most]),
        live_size=int(live.ticks.wanted[most]),
        planned_size=int(wanted[most]),
    )
