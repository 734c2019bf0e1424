"""Demand in work: what is asked of a pool, what it may grow to while a replica starts, what waits.

Pure. The rate of work over a window and where it tends, headroom from the volatility that was
measured over the time a start takes, an error budget fed back from answers that came late, what
waits to be worked off, and a latch on the first two, so that a fall is not followed at once. Leaves
to `path` what becomes of it, and to `capacity` what a request weighs.
"""

import math
from dataclasses import dataclass, field, replace

from services.scaler.policy.sizing import forecast, rates, windows
from services.scaler.policy.sizing.capacity import Learned, learn, work
from services.scaler.policy.sizing.lengths import Lengths, counted
from services.scaler.policy.sizing.settings import Forecast, Scale, Work
from services.scaler.policy.sizing.views import Traffic, View

HORIZON_MOST_SECONDS = 3600.0
USUAL_START_SECONDS = 60.0
LATE_MOST = 10.0
"""Times the mean arrivals that one tick may count late, or in time."""
WINDOW = "demand for as long as the window"
"""What is missing just after a beginning."""
ABILITY = "what a replica can do"
"""What is missing until answers have shown it."""
FIGURE_MOST = 1e15
"""No figure of a pool is larger."""


@dataclass(frozen=True, slots=True)
class WorkMemory:
    """What demand is told from.

    Attributes:
        samples: by tick; empty: nothing is known.
        usual: rate of the last while.
        volatility: measured growth over a start.
        lengths: of prompts and answers.
        guard: the error budget: headroom for answers that came late, as a logarithm.
        held: demand with headroom lately.
        learned: of replicas.
        season: what the day before was like.
    """

    samples: rates.Samples = ()
    usual: rates.Usual = field(default_factory=rates.Usual)
    volatility: rates.Volatility = field(default_factory=rates.Volatility)
    lengths: Lengths = field(default_factory=Lengths)
    guard: float = 0.0
    held: windows.Seen = ()
    learned: Learned = field(default_factory=Learned)
    season: forecast.Season = field(default_factory=forecast.Season)

    def restarted(self) -> "WorkMemory":
        """After a jump of the clock: what was learned stays, windows begin anew."""
        return replace(
            self, samples=(), usual=rates.Usual(), held=(), learned=self.learned.unseen()
        )

    def lasting(self) -> "WorkMemory":
        """What holds for whoever begins anew: what replicas can do, and how long texts are."""
        was = self.learned
        learned = Learned(was.correction, was.fit, was.capacity)
        return WorkMemory(lengths=self.lengths, learned=learned)


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
    return value is not None and 0.0 <= value < FIGURE_MOST


def fresh(traffic: Traffic | None, now: float, stale_seconds: float) -> Traffic | None:
    """The traffic if it is new and sound; else nobody says."""
    if traffic is None or not now - traffic.at <= stale_seconds:
        return None
    told = (
        0.0 < traffic.seconds < FIGURE_MOST
        and 0.0 <= traffic.arrivals < FIGURE_MOST
        and 0.0 <= traffic.prompt_tokens < FIGURE_MOST
        and 0.0 <= traffic.finished < FIGURE_MOST
        and 0.0 <= traffic.output_tokens < FIGURE_MOST
        and 0.0 <= traffic.first_texts < FIGURE_MOST
        and 0.0 <= traffic.late < FIGURE_MOST
    )
    return traffic if told else None


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
    start = view.start_seconds if sound(view.start_seconds) else USUAL_START_SECONDS
    start = min(start, HORIZON_MOST_SECONDS)
    places = max(view.places, 1)
    horizon = start + tick
    samples, usual, held, season = before.samples, before.usual, before.held, before.season
    volatility, seen, guard, learned = (
        before.volatility,
        before.lengths,
        before.guard,
        before.learned,
    )
    if traffic is None:
        learned = learned.unseen()
        if samples and view.now - samples[-1].at > asked.window_seconds:
            samples, held = (), ()
    else:
        seen = counted(seen, traffic)
        guard = _guard(asked, guard, traffic, seen.arrivals)
        learned = learn(
            learned,
            asked.capacity,
            traffic,
            places=places,
            ready=view.ready,
            running=running,
            prompt=seen.prompt,
        )
    model = asked.capacity or learned.capacity
    demand = None
    if model is None:
        demand = _by_places(asked, view, waiting, running, told=traffic is not None)
    elif traffic is not None:
        came = work(model, places, traffic.arrivals, traffic.prompt_tokens, seen.output)
        usual = rates.usual(usual, seconds=traffic.seconds, work=came, over=asked.usual_seconds)
        samples = rates.sampled(
            samples,
            view.now,
            seconds=traffic.seconds,
            work=came,
            window=asked.window_seconds,
            horizon=horizon,
            usual=usual.rate,
            back=asked.usual_share,
        )
        volatility = rates.observed(
            volatility, samples, view.now, window=asked.window_seconds, horizon=horizon
        )
    if model is not None and samples:
        rate, growth = samples[-1].rate, 1.0
        if scale.forecast is Forecast.SEASON:
            season = forecast.noted(season, view.wall, rate)
            growth = forecast.growth(season, view.wall, horizon)
        deviation = math.sqrt(volatility.variance * horizon)
        tends = samples[-1].tends * growth
        headroom = max(tends * math.exp(asked.volatility * deviation + guard), rate)
        held = windows.with_greatest(held, view.now, headroom, view.now - asked.hold * start)
        one = work(model, places, 1.0, seen.prompt, seen.output)
        short = None
        if scale.burst is not None:
            short = rates.rate_over(samples, max(scale.burst.window_seconds, tick))
        covered = rates.covers(samples, asked.window_seconds)
        demand = Demand(
            rate=rate,
            expected=rate * growth,
            headroom=headroom,
            held=held[0][1],
            queue=(waiting or 0.0) * one / asked.queue_seconds,
            short=short,
            usable=asked.utilization * learned.correction,
            missing=_missing(waiting, running, told=traffic is not None)
            or ("" if covered else WINDOW),
        )
    after = WorkMemory(samples, usual, volatility, seen, guard, held, learned, season)
    return demand, after


def _guard(asked: Work, before: float, traffic: Traffic, arrivals: float) -> float:
    """The error budget after a tick: more while too many answers are late, less while few are."""
    if arrivals <= 0:
        return before
    over = (traffic.late - asked.late_share * traffic.arrivals) / arrivals
    over = min(max(over, -asked.late_share * LATE_MOST), LATE_MOST)
    guard = before + asked.late_gain * over
    return min(max(guard, asked.headroom_min), asked.headroom_max)


def _missing(waiting: float | None, running: float | None, *, told: bool) -> str:
    if not told:
        return "traffic"
    return "waiting requests" if waiting is None else "" if running is not None else "running ones"


def _by_places(
    asked: Work, view: View, waiting: float | None, running: float | None, *, told: bool
) -> Demand | None:
    """Demand where no replica has shown yet what it can do: a request takes one place.

    That is enough to grow by; to shrink only where nothing was asked for as long as the window.
    """
    if waiting is None and running is None:
        return None
    load = (waiting or 0.0) + (running or 0.0)
    idle = load == 0 and (view.idle_seconds or 0.0) >= asked.window_seconds
    load /= max(view.places, 1)
    return Demand(
        rate=load,
        expected=load,
        headroom=load,
        held=load,
        queue=0.0,
        short=None,
        usable=asked.utilization,
        missing=_missing(waiting, running, told=told) or ("" if idle else ABILITY),
        learned=False,
    )
