"""What came of a run: how many answers came in time, and what that took.

Requests are weighed by their work; a replica is paid for from its order until it is gone, starts
and drains included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.scaler.simulator.silicon import Floats

HOUR = 3600.0


@dataclass(frozen=True)
class Ticks:
    """The pool at each decision; arrays of one length.

    Attributes:
        at: seconds since the trace began.
        wanted: replicas, as decided.
        ready, starting: replicas before it.
        waiting, running: requests.
        arrived: requests of mean work, a second, since the one before.
        late: share of the answers begun since then that came late.
        ttft: seconds to the first text of the request that was admitted last.
        begun: answers begun since the one before.
    """

    at: Floats
    wanted: Floats
    ready: Floats
    starting: Floats
    waiting: Floats
    running: Floats
    arrived: Floats
    late: Floats
    ttft: Floats
    begun: Floats


@dataclass(frozen=True)
class Course:
    """What a run gave, its first part left out.

    Attributes:
        seconds: that are scored.
        requests: answers that were due.
        attainment: share of them that began in time, 0 to 1.
        replica_hours: paid, by the hour of one replica.
        wasted_hours: of these, starts that were called off before they were ready.
        starts, stops: replicas begun and ended, called-off ones included.
        changes: decisions that changed the size.
        waiting: mean of requests that waited.
        waiting_max: most that waited at a decision.
        wait: mean seconds that a request waited for a place.
        size_max: most replicas at a decision, starting ones included.
        ttft_p50, ttft_p95: seconds.
        usd: what the replica-hours cost; None: no price was given.
        ticks: the pool at each decision, the first part included.
    """

    seconds: float
    requests: float
    attainment: float
    replica_hours: float
    wasted_hours: float
    starts: int
    stops: int
    changes: int
    waiting: float
    waiting_max: float
    wait: float
    size_max: int
    ttft_p50: float
    ttft_p95: float
    usd: float | None
    ticks: Ticks

    @property
    def replicas(self) -> float:
        """Mean number that was paid for."""
        return self.replica_hours * HOUR / self.seconds


@dataclass
class Counts:
    """What grows during a run; a part of it is the difference of two."""

    begun: float = 0.0
    late: float = 0.0
    paid: float = 0.0
    wasted: float = 0.0
    starts: int = 0
    stops: int = 0
    changes: int = 0


def course_of(
    before: Counts, after: Counts, ticks: Ticks, *, overdue: float, warm: float, end: float,
    usd_per_hour: float | None = None,
) -> Course:  # fmt: skip
    """Adds up what came between two counts.

    Args:
        before: counts when scoring began.
        after: counts at the end.
        ticks: all of them.
        overdue: requests that still wait at the end, beyond their objective.
        warm: seconds that are not scored.
        end: seconds of the whole run.
        usd_per_hour: of a replica.
    """
    due = after.begun - before.begun + overdue
    late = after.late - before.late + overdue
    hours = (after.paid - before.paid) / HOUR
    scored = ticks.at > warm
    waits = ticks.waiting[scored]
    sizes = (ticks.ready + ticks.starting)[scored]
    p50, p95 = _quantiles(ticks.ttft[scored], ticks.begun[scored])
    return Course(
        seconds=end - warm,
        requests=due,
        attainment=max(1.0 - late / due, 0.0) if due > 0.0 else 1.0,
        replica_hours=hours,
        wasted_hours=(after.wasted - before.wasted) / HOUR,
        starts=after.starts - before.starts,
        stops=after.stops - before.stops,
        changes=after.changes - before.changes,
        waiting=float(waits.mean()) if len(waits) else 0.0,
        waiting_max=float(waits.max()) if len(waits) else 0.0,
        # Little's law.
        wait=float(waits.mean()) * (end - warm) / due if len(waits) and due > 0.0 else 0.0,
        size_max=int(sizes.max()) if len(sizes) else 0,
        ttft_p50=p50,
        ttft_p95=p95,
        usd=None if usd_per_hour is None else hours * usd_per_hour,
        ticks=ticks,
    )


def as_one(courses: Sequence[Course], worth: Sequence[float]) -> Course:
    """Courses of pools that served one line, as one of it all.

    Args:
        courses: over the same decisions; one at least.
        worth: what a replica of each counts for, such as its price by another's.
    """
    first = courses[0]

    def added(values: Sequence[Floats]) -> Floats:
        return np.asarray(sum(w * one for w, one in zip(worth, values, strict=True)), float)

    ticks = replace(
        first.ticks,
        wanted=added([one.ticks.wanted for one in courses]),
        ready=added([one.ticks.ready for one in courses]),
        starting=added([one.ticks.starting for one in courses]),
    )
    hours = sum(w * one.replica_hours for w, one in zip(worth, courses, strict=True))
    return replace(first, ticks=ticks, replica_hours=hours)


def _quantiles(values: Floats, weights: Floats) -> tuple[float, float]:
    """Median and 95th percentile of weighed values; 0 where nothing weighs."""
    total = float(weights.sum()) if len(weights) else 0.0
    if total <= 0.0:
        return 0.0, 0.0
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    at = np.searchsorted(below, (0.5 * total, 0.95 * total))
    found = values[order][np.minimum(at, len(values) - 1)]
    return float(found[0]), float(found[1])
