"""What came of trying scaling files on load, and of two of them beside each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class BoundShare:
    """How often one thing decided a size.

    Attributes:
        bound: its kind, such as `budget`.
        detail: which one, such as the budget's name; empty: there is just one.
        share: of the decisions, those it bound last, 0 to 1.
    """

    bound: str
    detail: str
    share: float


@dataclass(frozen=True)
class Course:
    """How a pool fared in a trial.

    Attributes:
        replica_hours: hours that replicas were there, starting ones included.
        usd: what they cost; 0: what a replica costs is not known.
        attainment: share of the work that began within the objective, 0 to 1, of all that its tier
            was asked for; None: no work came.
        changes_per_hour: of the size.
        wasted_hours: replica-hours of starts that never served.
        mean_wait_seconds: mean time that work waited for a place.
        max_size: most replicas at once.
        bounds: what decided its sizes, most often first.
    """

    replica_hours: float
    usd: float
    attainment: float | None
    changes_per_hour: float
    wasted_hours: float
    mean_wait_seconds: float
    max_size: int
    bounds: tuple[BoundShare, ...] = ()


@dataclass(frozen=True)
class PoolPlan:
    """What two scaling files would have done with one pool.

    Attributes:
        live: by the file in force; None: it has no such pool, or it was not tried.
        planned: by the file that was given; None: the same.
        differ_most_at: when the two sizes differed most, seconds since 1970; None: never.
        live_size, planned_size: the sizes then.
        untried: why the pool was not tried, in one sentence; empty: it was.
    """

    live: Course | None = None
    planned: Course | None = None
    differ_most_at: float | None = None
    live_size: int = 0
    planned_size: int = 0
    untried: str = ""


class Verdict(StrEnum):
    """What is to be thought of a plan."""

    SAME = "same"
    BETTER = "better"
    WORSE = "worse"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Plan:
    """What a scaling file would have done on recorded days, beside the one in force.

    Attributes:
        verdict: what is to be thought of it.
        because: why, in one sentence.
        pools: by name.
        since, until: what was tried, seconds since 1970; None: nothing.
        recorded_share: share of the minutes in between that are on record, 0 to 1.
        live, planned: all pools that were tried, together; None: fewer than two were.
    """

    verdict: Verdict
    because: str
    pools: Mapping[str, PoolPlan]
    since: float | None = None
    until: float | None = None
    recorded_share: float = 0.0
    live: Course | None = None
    planned: Course | None = None


@dataclass(frozen=True)
class Simulation:
    """What a scaling file would have done with a trace.

    Attributes:
        pool: that served it.
        course: how it fared.
        seconds: length of the trace.
        requests: in it.
    """

    pool: str
    course: Course
    seconds: float
    requests: int
