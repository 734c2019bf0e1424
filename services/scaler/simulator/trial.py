"""One policy against one trace: what `simulate`, `plan` and the gate of `apply` ask.

The door of this room: online code imports this, `together`, `verdict` and nothing else of it.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.scaler.policy.sizing.settings import Capacity, Scale
from services.scaler.simulator.arrivals import (
    Arrivals,
    Generator,
    from_rates,
    from_requests,
    mean_lengths,
    multiplied,
)
from services.scaler.simulator.core import TICK_SECONDS, Core, not_simulated
from services.scaler.simulator.course import Course
from services.scaler.simulator.fluid import Pool, Progress, run
from services.scaler.simulator.silicon import Floats, Serving
from services.scaler.simulator.traces import Rates, Requests

__all__ = ["Recorded", "Replica", "Trace", "not_simulated", "read_as", "recorded_trace", "trial"]

STARTS = 997
"""Start times that are drawn, and used in turn."""
SIZE_SECONDS = 300.0
"""The first size fits the mean of this long."""
MAX_WINDOWS = 100_000
MAX_TIMES = 10_000.0
USUAL_PROMPT, USUAL_OUTPUT = 1155.0, 211.0
"""Tokens of a request, where nobody says; those of Azure's conversations of 2023."""


@dataclass(frozen=True)
class Recorded:
    """What came to a pool, window by window, as the scaler kept it. All of one length.

    Attributes:
        window_seconds: length of each.
        arrivals: requests.
        prompt_tokens: of these.
        finished: answers that ended.
        output_tokens: of these.
    """

    window_seconds: float
    arrivals: Sequence[float]
    prompt_tokens: Sequence[float]
    finished: Sequence[float]
    output_tokens: Sequence[float]


@dataclass(frozen=True)
class Replica:
    """What serves: measured, whatever the policy takes it to be.

    Attributes:
        capacity: time of its steps.
        places: requests that it runs at once.
        start_seconds: of a start, the median.
        start_spread: standard deviation of a start's logarithm; 0: all take the same.
        usd_per_hour: None: not known.
    """

    capacity: Capacity
    places: int
    start_seconds: float
    start_spread: float = 0.0
    usd_per_hour: float | None = None


@dataclass(frozen=True)
class Trace:
    """Arrivals with what serves them.

    Attributes:
        arrivals: step by step.
        serving: the replica under the mean request of these.
        replica: how it starts, what it costs.
    """

    arrivals: Arrivals
    serving: Serving
    replica: Replica


def recorded_trace(recorded: Recorded, replica: Replica, *, seed: int = 1) -> Trace:
    """Recorded windows made into seconds: straight between their middles, Poisson.

    Raises:
        ValueError: the windows are of no length, too many, not as many of each, negative or not
            finite, or nothing came in them.
    """
    columns = (
        recorded.arrivals, recorded.prompt_tokens, recorded.finished, recorded.output_tokens
    )  # fmt: skip
    windows, window = len(recorded.arrivals), recorded.window_seconds
    if not 2 <= windows <= MAX_WINDOWS or any(len(one) != windows for one in columns):  # noqa: PLR2004
        raise ValueError(
            f"recorded windows must be from 2 to {MAX_WINDOWS}, as many of each figure"
        )
    table = np.array(columns, float)
    if not (math.isfinite(window) and window >= 1.0) or not np.isfinite(table).all():
        raise ValueError("recorded windows must be of at least one second, their figures finite")
    counts, prompts, finished, outputs = table
    if (table < 0.0).any() or not counts.sum() > 0.0:
        raise ValueError("recorded windows must have arrivals, and no negative figures")
    steps = round(window * windows)
    at = (np.arange(windows) + 0.5) * window
    middle = np.arange(steps) + 0.5
    prompt = np.interp(middle, at, _means(prompts, counts, USUAL_PROMPT))
    output = np.maximum(1.0, np.interp(middle, at, _means(outputs, finished, USUAL_OUTPUT)))
    drawn = np.random.default_rng(seed).poisson(np.interp(middle, at, counts / window))
    count = drawn.astype(float)
    came = max(1.0, float(count.sum()))
    serving = Serving(
        replica.capacity,
        prompt=float((count * prompt).sum()) / came,
        output=max(1.0, float((count * output).sum()) / came),
        places=replica.places,
    )
    work = count * serving.work(prompt, output)
    arrivals = Arrivals(1.0, count, count * prompt, count * output, work)
    return Trace(arrivals, serving, replica)


def _means(tokens: Floats, requests: Floats, usual: float) -> Floats:
    """Mean tokens by window; where a window has no request, those of all."""
    total = float(requests.sum())
    mean = float(tokens.sum()) / total if total > 0.0 else usual
    return np.where(requests > 0.0, tokens / np.maximum(requests, 1e-9), mean)


def read_as(
    trace: Requests | Rates,
    replica: Replica,
    *,
    times: float = 1.0,
    lengths: tuple[float, float] = (USUAL_PROMPT, USUAL_OUTPUT),
    generator: Generator = Generator.POISSON,
    seed: int = 1,
) -> Trace:
    """A trace that was read.

    Args:
        trace: of `traces`.
        replica: what serves.
        times: as many requests.
        lengths: prompt and output tokens, where a trace has none.
        generator: what fills windows of rates.
        seed: of draws.

    Raises:
        ValueError: it is too long, or `times` leaves too many requests or none.
    """
    if not 0.0 < times <= MAX_TIMES:
        raise ValueError(f"requests must be multiplied by more than 0, at most {MAX_TIMES:g}")
    if isinstance(trace, Requests):
        many = trace if times == 1.0 else multiplied(trace, times, seed)
        serving = Serving(replica.capacity, *mean_lengths(trace), replica.places)
        return Trace(from_requests(many, serving), serving, replica)
    serving = Serving(replica.capacity, *lengths, replica.places)
    rates = Rates(trace.window_seconds, trace.per_second * times)
    arrivals = from_rates(rates, serving, replicas=None, generator=generator, seed=seed)
    return Trace(arrivals, serving, replica)


def trial(
    scale: Scale,
    trace: Trace,
    *,
    tick: float = TICK_SECONDS,
    warm: float | None = None,
    wall: float = 0.0,
    seed: int = 1,
    progress: Progress | None = None,
) -> Course:
    """What the policy would have done.

    Args:
        scale: the policy.
        trace: what comes, and what serves it.
        tick: seconds between decisions.
        warm: seconds at the beginning that are not scored; None: see `warm_of`.
        wall: time at its beginning, in seconds since 1970, for schedules.
        seed: of start times.
        progress: told the share that is done.
    """
    replica = trace.replica
    pool = pool_of(scale, trace, warm=warm, seed=seed)
    core = Core(
        scale,
        size=pool.size,
        places=replica.places,
        start_seconds=replica.start_seconds,
        tick=tick,
        wall=wall,
        usd_per_hour=replica.usd_per_hour or 0.0,
    )
    return run(pool, trace.arrivals, core, progress)


def pool_of(scale: Scale, trace: Trace, *, warm: float | None = None, seed: int = 1) -> Pool:
    """What a run of a trace begins with; see `trial`."""
    return Pool(
        serving=trace.serving,
        objective=scale.objectives.ttft_seconds,
        starts=start_times(trace.replica, seed),
        size=begins_with(scale, trace),
        warm=warm_of(trace) if warm is None else warm,
        usd_per_hour=trace.replica.usd_per_hour,
    )


def begins_with(scale: Scale, trace: Trace) -> int:
    """Replicas at the beginning: as many as are needed then."""
    begin = trace.arrivals.between(0.0, min(SIZE_SECONDS, trace.arrivals.seconds))
    needed = float(begin.work.sum()) / max(begin.seconds, 1e-9) / trace.serving.throughput
    least = 0 if scale.zero is not None and scale.min == 0 else max(1, scale.min)
    return min(scale.max, max(least, math.ceil(1.2 * needed)))


def warm_of(trace: Trace) -> float:
    """Seconds at the beginning that are not scored: a twentieth of the trace, at most a day."""
    return min(86_400.0, trace.arrivals.seconds / 20.0)


def start_times(replica: Replica, seed: int) -> tuple[float, ...]:
    """Start times, drawn from the log-normal distribution around the median."""
    if replica.start_spread <= 0.0:
        return (replica.start_seconds,)
    draw = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    return tuple(
        draw.lognormvariate(math.log(replica.start_seconds), replica.start_spread)
        for _ in range(STARTS)
    )


PEAKS = frozenset({"ttft", "late", "waiting"})
"""Of these the worst of the decisions left out is kept: it is what a picture is looked at for."""


def thinned(course: Course, points: int) -> Course:
    """With at most so many decisions kept, for a picture or a message."""
    count = len(course.ticks.at)
    every = math.ceil(count / max(1, points))
    if every <= 1:
        return course
    begins = np.arange(0, count, every)
    kept = {
        name: np.maximum.reduceat(values, begins) if name in PEAKS else values[begins]
        for name in course.ticks.__dataclass_fields__
        for values in (getattr(course.ticks, name),)
    }
    return replace(course, ticks=type(course.ticks)(**kept))
