"""What the core is told of pools, and what it answers. Times are seconds of one monotonic clock.

A figure that is NaN, infinite or negative counts as one that nobody said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.scaler.policy.sizing.settings import Measure


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a signal.

    Attributes:
        value: in the signal's unit. Measures that are by replica are divided by the ready replicas,
            or by 1 where none is ready; of a query, what Prometheus answered. NaN: it was asked
            for and there is none, as of answers' times where nothing is answered.
        at: when it was measured.
    """

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came and went at a pool since the tick before; counts, added up over routers.

    Attributes:
        seconds: since then.
        arrivals: requests that arrived.
        prompt_tokens: of these.
        finished: answers that ended.
        output_tokens: of these.
        first_texts: answers that began and were timed.
        late: of these, those later than the objective; where more answers miss the one for the
            time between tokens, those.
        at: until when it is known.
    """

    seconds: float
    arrivals: float
    prompt_tokens: float
    finished: float
    output_tokens: float
    first_texts: float
    late: float
    at: float


@dataclass(frozen=True, slots=True)
class View:
    """A pool at one tick.

    Attributes:
        now: time of the tick, monotonic.
        wall: the same in seconds since 1970, for schedules and days.
        ready: replicas that take requests.
        starting: replicas on their way.
        leaving: replicas that run beside these: those that drain or are taken down, and those that
            are there once more while the pool is rolled out. They cost like others.
        places: requests one replica runs at once.
        start_seconds: how long a start takes, as measured.
        traffic: since the tick before; None: nobody says, which is not to say nothing.
        waiting: requests that wait for a place; None: nobody says.
        running: requests that run; None: nobody says.
        readings: newest value of each measure and query that is known.
        fits: most replicas that there is room for; None: not known.
        usd_per_hour: of one replica; 0: not known.
        woken: somebody asked for a pool that has no replica.
        idle_seconds: since the last request was seen; None: not known.
    """

    now: float
    wall: float
    ready: int
    starting: int
    places: int
    start_seconds: float
    traffic: Traffic | None
    waiting: float | None
    running: float | None
    readings: Mapping[Measure | str, Reading] = field(default_factory=dict)
    fits: int | None = None
    usd_per_hour: float = 0.0
    woken: bool = False
    idle_seconds: float | None = None
    leaving: int = 0


class Bound(StrEnum):
    """What made a size what it is. The names are those of metrics and protos."""

    FIXED = "fixed"
    DEMAND = "demand"
    HEADROOM = "headroom"
    QUEUE = "queue"
    SIGNAL = "signal"
    RULE = "rule"
    FORECAST = "forecast"
    SCHEDULE = "schedule"
    MIN = "min"
    MAX = "max"
    ROOM = "room"
    TOLERANCE = "tolerance"
    STABILIZATION = "stabilization"
    HOLD = "hold"
    RATE = "rate"
    SPARE = "spare"
    BURST = "burst"
    SPOT = "spot"
    STALE = "stale"
    STARTING = "starting"
    IDLE = "idle"
    WOKEN = "woken"
    BUDGET = "budget"
    MONEY = "money"
    OVERRIDE = "override"


@dataclass(frozen=True, slots=True)
class Constraint:
    """One thing that bound the size.

    Attributes:
        bound: its kind.
        detail: which one, such as the name of a signal; empty: there is just one.
        size: the size it asked for or allowed.
        value: what was measured, if anything was.
        limit: what it was held against.
    """

    bound: Bound
    size: int
    detail: str = ""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A pool's size, and why.

    Attributes:
        size: replicas wanted.
        before: replicas wanted before.
        constraints: all that bound, in the order in which they came into play; the last one that
            changed the size comes last.
        usd_per_hour_before, usd_per_hour: what the wanted replicas cost an hour; 0: not known.
        demand: replicas' worth of work that was asked for, without headroom; None: not known.
        why: why this size, in one sentence.
        why_not_fewer: why not one fewer; empty: it is 0.
        why_not_more: why not one more.
    """

    size: int
    before: int
    constraints: tuple[Constraint, ...] = ()
    usd_per_hour_before: float = 0.0
    usd_per_hour: float = 0.0
    demand: float | None = None
    why: str = ""
    why_not_fewer: str = ""
    why_not_more: str = ""
