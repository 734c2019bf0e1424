"""What came of trying scaling files on load, and of two of them beside each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from services.scaler.policy.sizing.settings import Capacity

COLUMNS = ("engine", "model", "gpu", "precision", "gemm", "tensor_parallel")
"""What measured rows can be chosen by."""

RULES = ("static", "hpa_load", "hpa_rate", "kpa", "wva", "dynamo")
"""Of others, that can be run beside a file."""


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
class Assumed:
    """What a pool's replicas are taken to be in a trial.

    Attributes:
        capacity: time of their steps.
        start_seconds: how long a start takes, the median.
        start_spread: standard deviation of the logarithm of starts.
        source: where the constants come from, in a few words.
    """

    capacity: Capacity
    start_seconds: float
    start_spread: float
    source: str


@dataclass(frozen=True)
class Difference:
    """A time in which two files would have given a pool unlike sizes.

    Attributes:
        since, until: seconds since 1970.
        live_size, planned_size: by the file in force and by the other.
        live_why, planned_why: why, in one sentence each; empty: it was not kept.
    """

    since: float
    until: float
    live_size: int
    planned_size: int
    live_why: str
    planned_why: str


@dataclass(frozen=True)
class PoolPlan:
    """What two scaling files would have done with one pool.

    Attributes:
        live: by the file in force; None: it has no such pool, or it was not tried.
        planned: by the file that was given; None: the same.
        differences: when the two sizes differed, in order; those of most replica-hours.
        differences_found: how many such times there were.
        replica: what its replicas were taken to be; None: it was not tried.
        untried: why the pool was not tried, in one sentence; empty: it was.
    """

    live: Course | None = None
    planned: Course | None = None
    differences: tuple[Difference, ...] = ()
    differences_found: int = 0
    replica: Assumed | None = None
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
        reason_needed: it is applied only with a reason: it does worse, or nobody can say though
            enough is on record.
        page: with pictures of it, HTML; empty: not asked for, or nothing was tried.
    """

    verdict: Verdict
    because: str
    pools: Mapping[str, PoolPlan]
    since: float | None = None
    until: float | None = None
    recorded_share: float = 0.0
    live: Course | None = None
    planned: Course | None = None
    reason_needed: bool = False
    page: str = ""


@dataclass(frozen=True)
class Scene:
    """What a scaling file is tried on by `simulate`.

    Attributes:
        trace: text; see `services.scaler.simulator.traces`.
        pool: that serves it; empty: the only one with a `scale`.
        times: as many requests.
        generator: how rates become arrivals, `poisson` or `steps`.
        replica: what its replicas are to be taken to be, `capacity`, `start_seconds` and
            `start_spread`; what is not there is as it was measured.
        rows: measured rows of engines, CSV; empty: none.
        rows_of: which of them, by column.
        beside: rules of others to run beside it.
        page: with a page.
    """

    trace: str
    pool: str = ""
    times: float = 1.0
    generator: str = "poisson"
    replica: Mapping[str, Any] = field(default_factory=dict)
    rows: str = ""
    rows_of: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    page: bool = False


@dataclass(frozen=True)
class Baseline:
    """What a rule of others would have done, with knobs that nobody has tuned.

    Attributes:
        name, title: as it is asked for, and in words.
        course: how it fared.
        knobs: by name.
    """

    name: str
    title: str
    course: Course
    knobs: Mapping[str, float]


@dataclass(frozen=True)
class Simulation:
    """What a scaling file would have done with a trace.

    Attributes:
        pool: that served it.
        course: how it fared.
        seconds: length of the trace.
        requests: in it.
        replica: what its replicas were taken to be.
        arrivals: how its requests came to be, in a few words.
        beside: rules of others, as they were asked for.
        page: with pictures of it, HTML; empty: not asked for.
    """

    pool: str
    course: Course
    seconds: float
    requests: int
    replica: Assumed
    arrivals: str = ""
    beside: tuple[Baseline, ...] = ()
    page: str = ""
