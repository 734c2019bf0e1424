"""What the `scale` block of a pool in scaling.yaml may say. Without one a pool keeps its `size`.

Field names are those of the file; words for behaviour are those of Kubernetes' HPA v2.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.rules import spelled

Count = Annotated[int, Field(ge=0, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
WindowSeconds = Annotated[float, Field(ge=0, le=3600)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
QueryName = Annotated[
    str,
    spelled(
        r"[a-z][a-z0-9_]{0,62}",
        "must be a name of at most 63 small letters, digits and '_', the first a letter",
    ),
]


class Measure(StrEnum):
    """What is measured of a pool everywhere; values are those of the whole pool unless said."""

    WAITING = "waiting"
    """Requests waiting for a place, by replica."""
    RUNNING = "running"
    """Requests running divided by places (`max_in_flight`) of the ready replicas, 0 to 1."""
    KV = "kv"
    """Used fraction of the KV cache, mean of the ready replicas, 0 to 1."""
    QUEUED_TOKENS = "queued_tokens"
    """Prompt tokens of waiting requests, by replica."""
    TTFT_SECONDS = "ttft_seconds"
    """95th percentile of the time from arrival to first text."""
    ITL_SECONDS = "itl_seconds"
    """95th percentile of the mean time between two tokens of an answer."""
    TOKENS_PER_SECOND = "tokens_per_second"
    """Prompt and output tokens, by second and replica."""


class Select(StrEnum):
    """Which of several rates holds: the biggest change, the smallest, or none may happen."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class RateType(StrEnum):
    """What a rate counts."""

    PODS = "Pods"
    PERCENT = "Percent"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rate:
    """At most so many replicas, or percent of them, within a period.

    Attributes:
        type: replicas, or percent of those at the period's beginning.
        value: how many.
        period_seconds: the period.
    """

    type: RateType
    value: Annotated[int, Field(ge=1, le=10_000)]
    period_seconds: Annotated[float, Field(gt=0, le=1800)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Direction:
    """How fast a pool may go one way.

    Attributes:
        tolerance: change of the wanted size, as a share of the present one, below which nothing
            happens; the queue term is never held back by it.
        stabilization_window_seconds: up, the least size wanted in this time holds; down, the
            greatest. Demand alone is stabilised, never what waits.
        policies: rates; none: as fast as can be.
        select_policy: which of them holds.
    """

    tolerance: Share = 0.0
    stabilization_window_seconds: WindowSeconds = 0.0
    policies: Annotated[tuple[Rate, ...], Field(max_length=8)] = ()
    select_policy: Select = Select.MAX


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Behavior:
    """Both directions.

    Attributes:
        scale_up: to more replicas.
        scale_down: to fewer.
    """

    scale_up: Direction = field(default_factory=Direction)
    scale_down: Direction = field(default_factory=Direction)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Capacity:
    """Time of a replica's step, in seconds: the four constants of the capacity model.

    ``step(n) = a + b*n + c*n*(prompt + output/2) + p*n*prompt/output`` with n requests running.

    Attributes:
        a: of a step, whatever runs.
        b: more for each running request.
        c: more for each token of context.
        p: of one prompt token.
    """

    a: Annotated[float, Field(gt=0, le=60)]
    b: Annotated[float, Field(ge=0, le=60)] = 0.0
    c: Annotated[float, Field(ge=0, le=1)] = 0.0
    p: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Work:
    """Size from the demand, measured in work: replica-seconds by the capacity model.

    Defaults were found at ticks of 15 s on ServeGen's m-large, days 0 to 6, also with the days in
    reverse, and on Azure's conversation hour, thickened with 31 seeds other than the one it is
    scored with: by search and by hand over some thousands of settings, one of the cheapest of those
    that kept 99 % of the answers within 2 s in every cell, as their neighbours did.

    Attributes:
        capacity: the model; None: learned from what replicas do, beginning with the first answers.
        window_seconds: over which the rate of demand is taken.
        utilization: of the modelled throughput that is planned with, before the headroom has
            learned anything; it may shrink far enough to plan with more than the model says.
        queue_seconds: within which what waits is to be worked off.
        usual_seconds: over which the usual rate is taken.
        usual_share: of the way up to the usual rate, in logarithms, that demand is taken to come
            back after a dip while a replica starts; 0: it is taken to stay where it is.
        volatility: standard deviations of the measured growth over a start that are kept free.
        late_share: of the answers that may come after `objectives.ttft_seconds`; the headroom
            shrinks while fewer do.
        late_gain: how fast the headroom answers to that.
        headroom_min: the least that it comes to by that, as a logarithm.
        headroom_max: the most that it comes to by that, as a logarithm.
        hold: times the start time that a fall of the demand is held back for.
        spare: a replica goes only where the others would serve the demand with this share to
            spare; 0: no such check.
    """

    capacity: Capacity | None = None
    window_seconds: Annotated[float, Field(ge=5, le=3600)] = 60.0
    utilization: Annotated[float, Field(gt=0, le=2)] = 0.98
    queue_seconds: Seconds = 10.0
    usual_seconds: Seconds = 1500.0
    usual_share: Share = 0.5
    volatility: Annotated[float, Field(ge=0, le=5)] = 1.0
    late_share: Annotated[float, Field(gt=0, lt=1)] = 0.0075
    late_gain: Annotated[float, Field(ge=0, le=1)] = 0.012
    headroom_min: Annotated[float, Field(ge=-2, le=0)] = -0.4
    headroom_max: Annotated[float, Field(ge=0, le=2)] = 0.7
    hold: Annotated[float, Field(ge=0, le=10)] = 0.4
    spare: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Signal:
    """A measure that is kept at a value.

    Attributes:
        target: the value.
        stale_seconds: older than this it says nothing; the pool then never shrinks.
    """

    target: Positive
    stale_seconds: Seconds = 15.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Query:
    """A Prometheus query as a signal; its answer is one number.

    Attributes:
        query: in PromQL.
        target: value to keep it at.
        per_replica: the target is for each replica (HPA's AverageValue), else for the whole pool.
        stale_seconds: older than this it says nothing.
    """

    query: Annotated[str, Field(min_length=1, max_length=4096)]
    target: Positive
    per_replica: bool = True
    stale_seconds: Seconds = 60.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rule:
    """Changes the size by a fixed step while a signal is beyond a value for a time.

    Attributes:
        signal: a measure or the name of a query.
        above: the rule acts while the signal is more than this. A rule has this or `below`.
        below: the rule acts while the signal is less than this.
        for_seconds: how long without a break.
        change: replicas more (up) or fewer (down).
    """

    signal: QueryName
    above: Annotated[float, Field(ge=0, le=1e9)] | None = None
    below: Annotated[float, Field(ge=0, le=1e9)] | None = None
    for_seconds: WindowSeconds = 60.0
    change: Annotated[int, Field(ge=-100, le=100)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Burst:
    """While demand of a short window is many times the present capacity: never down.

    Attributes:
        window_seconds: the short window.
        threshold: times of what the ready replicas can do; above it the burst begins.
        keep_seconds: after the last time above it, the burst goes on.
    """

    window_seconds: Annotated[float, Field(ge=1, le=600)] = 6.0
    threshold: Annotated[float, Field(gt=1, le=100)] = 2.0
    keep_seconds: Seconds = 60.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule:
    """Other bounds from each time of a cron expression on, for a while.

    Attributes:
        cron: five fields: minute, hour, day of month, month, day of week.
        time_zone: IANA name.
        duration_seconds: how long from each time.
        min: fewest replicas in that time; None: as otherwise.
        max: most replicas in that time; None: as otherwise.
    """

    cron: Annotated[str, Field(min_length=1, max_length=200)]
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    duration_seconds: Annotated[float, Field(ge=60, le=7 * 86_400)]
    min: Count | None = None
    max: Count | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Zero:
    """May go to zero: after this long without a request; the next one wakes it.

    Attributes:
        idle_seconds: without a request running, waiting or arriving.
    """

    idle_seconds: Annotated[float, Field(ge=1, le=7 * 86_400)] = 300.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spot:
    """A second pool of the same tier, on spot capacity, takes a share of the size (SpotHedge).

    Attributes:
        pool: its name; it has no `scale` of its own.
        share: of the size that is to be on spot.
        over_provision: replicas more there, against losing one.
        min_on_demand: replicas that stay on demand whatever spot has.
    """

    pool: Annotated[str, Field(min_length=1, max_length=32)]
    share: Share = 1.0
    over_provision: Count = 1
    min_on_demand: Count = 0


class Forecast(StrEnum):
    """What demand is to be at the end of a start. Off unless it beats none on recorded days."""

    OFF = "off"
    SEASON = "season"
    """The growth that the same time of the day before had."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Objectives:
    """What answers are held to.

    Attributes:
        ttft_seconds: from arrival to first text.
        itl_seconds: mean time between two tokens of an answer; None: any. Of the two, the one that
            more answers miss is fed back to the headroom.
    """

    ttft_seconds: Seconds = 2.0
    itl_seconds: Seconds | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scale:
    """How a pool's size follows what is asked of it. The largest of all wishes holds.

    Attributes:
        min: fewest replicas; without `zero` one stays whatever it says.
        max: most replicas.
        objectives: what answers are held to.
        work: size from demand in work; None: signals, rules and schedule alone.
        signals: measures that are kept at a value.
        stale_seconds: routers' reports that are older say nothing; the pool then never shrinks.
        queries: Prometheus queries as further signals, by name.
        rules: fixed steps.
        behavior: how fast.
        burst: never down in a burst.
        schedule: bounds by time; where several hold, the greatest.
        forecast: what demand is taken to be at the end of a start. ``season`` takes the growth that
            the same time of the day before had, while that beats none.
        zero: whether it goes to zero; None: never below 1, whatever `min`.
        spot: a second pool on spot capacity that takes a share.
    """

    min: Count = 1
    max: Annotated[int, Field(ge=1, le=1024)]
    objectives: Objectives = field(default_factory=Objectives)
    work: Work | None = field(default_factory=Work)
    signals: Mapping[Measure, Signal] = field(default_factory=dict)
    stale_seconds: Seconds = 15.0
    queries: Annotated[Mapping[QueryName, Query], Field(max_length=32)] = field(
        default_factory=dict
    )
    rules: Annotated[tuple[Rule, ...], Field(max_length=32)] = ()
    behavior: Behavior = field(default_factory=Behavior)
    burst: Burst | None = None
    schedule: Annotated[tuple[Schedule, ...], Field(max_length=32)] = ()
    forecast: Forecast = Forecast.OFF
    zero: Zero | None = None
    spot: Spot | None = None


class Resource(StrEnum):
    """What pools share."""

    GPUS = "gpus"
    SLOTS = "slots"
    WATTS = "watts"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BudgetShare:
    """One pool's part in a budget.

    Attributes:
        priority: who gets first; a higher one.
        each: what one replica takes of it.
    """

    priority: Annotated[int, Field(ge=0, le=1000)] = 0
    each: Positive = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Budget:
    """What several pools share. Within a priority each gets its least, then by turns.

    Attributes:
        of: what it is of.
        limit: how much of it there is.
        pools: who shares it, by name.
    """

    of: Resource
    limit: Positive
    pools: Annotated[Mapping[str, BudgetShare], Field(max_length=256)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Money:
    """Most that all pools may cost. What a replica costs an hour is its pool's `usd_per_hour`.

    Attributes:
        usd_per_hour: at any time.
        usd_per_day: from midnight UTC; what is spent is counted, and the rest of the day is kept
            affordable at the least sizes.
    """

    usd_per_hour: Positive | None = None
    usd_per_day: Positive | None = None
