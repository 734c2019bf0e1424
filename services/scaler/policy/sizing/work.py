"""Demand in work: what is asked of a pool, what it may grow to while a replica starts, what waits.

Pure. The rate of work over a window, headroom from the volatility that was measured over the time
a start takes, an error budget fed back from answers that came late, what waits to be worked off,
and a latch on the first two, so that a fall is not followed at once. Leaves to `path` what becomes
of it, and to `capacity` what a request weighs.

Volatility grows with the square root of the time that is looked ahead, so it is kept by second:
when starts take longer, headroom follows at once.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import NamedTuple

from services.scaler.policy.sizing import forecast, windows
from services.scaler.policy.sizing.capacity import Learned, learn, work
from services.scaler.policy.sizing.settings import Capacity, Forecast, Scale, Work
from services.scaler.policy.sizing.views import Traffic, View

QUICK_SECONDS = 15.0
"""Peaks are those of rates over this long."""
HORIZON_MOST_SECONDS = 3600.0
MOST_SAMPLES = 720
HALF_LIFE_SECONDS = 6 * 3600.0
"""Of volatility and of the mean arrivals."""
USUAL_VARIANCE = 0.08**2 / 60
"""By second: what is taken before any was measured, as if in `USUAL_WEIGHT` ticks."""
USUAL_WEIGHT = 20.0
GROWTH_MOST = 3.0
"""As a logarithm; beyond, it was next to nothing before."""
LENGTH_SECONDS = 120.0
"""Over which the mean lengths are taken."""
USUAL_OUTPUT, USUAL_PROMPT = 256.0, 512.0
"""Tokens, before any were seen."""
LATE_MOST = 10.0
"""Times the mean arrivals that one tick may count late."""


WINDOW = "demand for as long as the window"
"""What is missing just after a beginning."""


class Sample(NamedTuple):
    """What was known after a tick: sums since the window began, and rates in work by second."""

    seconds: float
    work: float
    at: float
    rate: float
    quick: float


@dataclass(frozen=True, slots=True)
class WorkMemory:
    """What demand is told from.

    Attributes:
        samples: by tick; empty: nothing is known.
        variance: of the growth over a start, by second of it.
        variance_weight: ticks that say so.
        arrivals: mean by tick.
        arrivals_weight: ticks that say so.
        guard: the error budget: headroom for answers that came late, as a logarithm.
        answers, answer_tokens: that ended lately, decayed.
        prompts, prompt_tokens: that arrived lately, decayed.
        output: mean tokens of an answer.
        prompt: mean tokens of a prompt.
        held: demand with headroom lately.
        learned: of replicas.
        season: what the day before was like.
    """

    samples: tuple[Sample, ...] = ()
    variance: float = USUAL_VARIANCE
    variance_weight: float = USUAL_WEIGHT
    arrivals: float = 0.0
    arrivals_weight: float = 0.0
    guard: float = 0.0
    answers: float = 0.0
    answer_tokens: float = 0.0
    prompts: float = 0.0
    prompt_tokens: float = 0.0
    output: float = USUAL_OUTPUT
    prompt: float = USUAL_PROMPT
    held: windows.Seen = ()
    learned: Learned = field(default_factory=Learned)
    season: forecast.Season = field(default_factory=forecast.Season)

    def restarted(self) -> "WorkMemory":
        """After a jump of the clock: what was learned stays, windows begin anew."""
        learned = replace(self.learned, running=None)
        return replace(self, samples=(), held=(), learned=learned)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a pool, in work by second: replicas that are full with it.

    Attributes:
        rate: now.
        expected: at the end of a start, as the forecast has it.
        headroom: the same with headroom.
        held: the most of that lately.
        queue: what waits, within the time it may take.
        short: rate over the burst's window; None: no burst is set.
        usable: of a replica: work it is planned to do in a second.
        missing: what of it is not known; `WINDOW`: it is not known for as long as the window yet;
            empty: all is known.
        learned: the weights are measured or given; else a request counts as one place.
    """

    rate: float
    expected: float
    headroom: float
    held: float
    queue: float
    short: float | None
    usable: float
    missing: str
    learned: bool = True

    def replicas(self, load: float) -> int:
        """Replicas that do this much work."""
        return math.ceil(load / self.usable - 1e-9)


def sound(value: float | None) -> bool:
    """Whether a figure says something."""
    return value is not None and 0.0 <= value < 1e15  # noqa: PLR2004 - NaN is in no range


def fresh(traffic: Traffic | None, now: float, stale_seconds: float) -> Traffic | None:
    """The traffic if it is new and sound; else nobody says."""
    if traffic is None or not traffic.seconds > 0 or not now - traffic.at <= stale_seconds:
        return None
    figures = (
        traffic.seconds,
        traffic.arrivals,
        traffic.prompt_tokens,
        traffic.finished,
        traffic.output_tokens,
        traffic.first_texts,
        traffic.late,
    )
    return traffic if all(0.0 <= figure < 1e15 for figure in figures) else None  # noqa: PLR2004


def demanded(
    scale: Scale, asked: Work, before: WorkMemory, view: View, tick: float
) -> tuple[Demand | None, WorkMemory]:
    """What is asked of the pool now; None: nothing is known of it.

    Args:
        scale: the pool's.
        asked: its `work`.
        before: what was known.
        view: the pool.
        tick: seconds since the tick before.
    """
    traffic = fresh(view.traffic, view.now, scale.stale_seconds)
    waiting = view.waiting if sound(view.waiting) else None
    running = view.running if sound(view.running) else None
    memory = before
    if traffic is None:
        memory = replace(memory, learned=replace(memory.learned, running=None))
        if memory.samples and view.now - memory.samples[-1].at > asked.window_seconds:
            memory = replace(memory, samples=(), held=())
    else:
        memory = _counted(memory, asked, traffic, view, running)
    model = asked.capacity or memory.learned.capacity
    if model is None:
        return _by_places(asked, view.places, traffic, waiting, running), memory
    usable = asked.utilization * memory.learned.correction
    horizon = min(view.start_seconds, HORIZON_MOST_SECONDS) + tick
    if traffic is not None:
        memory = _sampled(memory, asked, model, traffic, view=view, horizon=horizon)
    if not memory.samples:
        return None, memory
    rate = memory.samples[-1].rate
    expected = rate
    if scale.forecast is Forecast.SEASON:
        season = forecast.noted(memory.season, view.wall, rate)
        expected = rate * forecast.growth(season, view.wall, horizon)
        memory = replace(memory, season=season)
    deviation = math.sqrt(memory.variance * horizon)
    headroom = max(expected * math.exp(asked.volatility * deviation + memory.guard), rate)
    since = view.now - asked.hold * min(view.start_seconds, HORIZON_MOST_SECONDS)
    memory = replace(memory, held=windows.with_greatest(memory.held, view.now, headroom, since))
    one = work(model, view.places, 1.0, memory.prompt, memory.output)
    short = None
    if scale.burst is not None:
        short = _rate(memory.samples, max(scale.burst.window_seconds, tick))
    demand = Demand(
        rate=rate,
        expected=expected,
        headroom=headroom,
        held=memory.held[0][1],
        queue=(waiting or 0.0) * one / asked.queue_seconds,
        short=short,
        usable=usable,
        missing=_missing(traffic, waiting, running)
        or ("" if _covers(memory.samples, asked.window_seconds) else WINDOW),
    )
    return demand, memory


def _missing(traffic: Traffic | None, waiting: float | None, running: float | None) -> str:
    if traffic is None:
        return "traffic"
    return "waiting requests" if waiting is None else "" if running is not None else "running ones"


def _counted(
    memory: WorkMemory, asked: Work, traffic: Traffic, view: View, running: float | None
) -> WorkMemory:
    """Lengths, arrivals, the error budget and the replicas' capacity, with this traffic."""
    kept = math.exp(-traffic.seconds / LENGTH_SECONDS)
    answers = kept * memory.answers + traffic.finished
    answer_tokens = kept * memory.answer_tokens + traffic.output_tokens
    prompts = kept * memory.prompts + traffic.arrivals
    prompt_tokens = kept * memory.prompt_tokens + traffic.prompt_tokens
    prompt = prompt_tokens / prompts if prompts >= 1 else memory.prompt
    weight = 0.5 ** (traffic.seconds / HALF_LIFE_SECONDS) * memory.arrivals_weight + 1
    arrivals = memory.arrivals + (traffic.arrivals - memory.arrivals) / weight
    guard = memory.guard
    if arrivals > 0:
        over = (traffic.late - asked.late_share * traffic.arrivals) / arrivals
        guard += asked.late_gain * min(over, LATE_MOST)
    return replace(
        memory,
        answers=answers,
        answer_tokens=answer_tokens,
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        output=max(answer_tokens / answers, 1.0) if answers >= 1 else memory.output,
        prompt=prompt,
        arrivals=arrivals,
        arrivals_weight=weight,
        guard=min(max(guard, asked.headroom_min), asked.headroom_max),
        learned=learn(
            memory.learned,
            asked.capacity,
            places=view.places,
            ready=view.ready,
            running=running,
            seconds=traffic.seconds,
            finished=traffic.finished,
            output_tokens=traffic.output_tokens,
            prompt=prompt,
        ),
    )


def _sampled(
    memory: WorkMemory,
    asked: Work,
    model: Capacity,
    traffic: Traffic,
    *,
    view: View,
    horizon: float,
) -> WorkMemory:
    """The window with this traffic, and the volatility that it shows."""
    came = work(model, view.places, traffic.arrivals, traffic.prompt_tokens, memory.output)
    samples = memory.samples or (Sample(0.0, 0.0, view.now - traffic.seconds, 0.0, 0.0),)
    last = samples[-1]
    newest = Sample(last.seconds + traffic.seconds, last.work + came, view.now, 0.0, 0.0)
    samples = (*samples, newest)
    rate, quick = _rate(samples, asked.window_seconds), _rate(samples, QUICK_SECONDS)
    keep = max(horizon, asked.window_seconds, QUICK_SECONDS)
    oldest = max(bisect_right(samples, view.now - keep, key=_AT) - 1, 0)
    oldest = max(oldest, len(samples) - MOST_SAMPLES)
    samples = (*samples[oldest:-1], newest._replace(rate=rate, quick=quick))
    variance, weight = memory.variance, memory.variance_weight
    past = bisect_right(samples, view.now - horizon + 1e-6, key=_AT) - 1
    if past < 0 and len(samples) == MOST_SAMPLES:
        past = 0
    if past >= 0 and samples[past].rate > 0 and past < len(samples) - 1:
        was = samples[past]
        peak = max(sample.quick for sample in samples[past + 1 :])
        growth = min(max(math.log(peak / was.rate), 0.0), GROWTH_MOST) if peak > 0 else 0.0
        weight = 0.5 ** (traffic.seconds / HALF_LIFE_SECONDS) * weight + 1
        variance += (growth**2 / (view.now - was.at) - variance) / weight
    return replace(memory, samples=samples, variance=variance, variance_weight=weight)


_SECONDS = itemgetter(0)
_AT = itemgetter(2)


def _rate(samples: tuple[Sample, ...], seconds: float) -> float:
    """Work by second over the last so many seconds that are known."""
    last, first = samples[-1], samples[0]
    since = last.seconds - seconds
    if since <= first.seconds:
        return (last.work - first.work) / max(last.seconds - first.seconds, 1e-9)
    after = bisect_left(samples, since, key=_SECONDS)
    low, high = samples[after - 1], samples[after]
    part = (since - low.seconds) / (high.seconds - low.seconds)
    return (last.work - low.work - part * (high.work - low.work)) / seconds


def _covers(samples: tuple[Sample, ...], seconds: float) -> bool:
    """Whether so many seconds are known, or as many as are kept."""
    known = samples[-1].seconds - samples[0].seconds
    return known >= seconds - 1e-6 or len(samples) >= MOST_SAMPLES


def _by_places(
    asked: Work,
    places: int,
    traffic: Traffic | None,
    waiting: float | None,
    running: float | None,
) -> Demand | None:
    """Demand where no replica has shown yet what it can do: a request takes one place."""
    if waiting is None and running is None:
        return None
    load = ((waiting or 0.0) + (running or 0.0)) / places
    return Demand(
        rate=load,
        expected=load,
        headroom=load,
        held=load,
        queue=0.0,
        short=None,
        usable=asked.utilization,
        missing=_missing(traffic, waiting, running),
        learned=False,
    )
