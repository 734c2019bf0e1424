"""The rate of work over a window, where it tends, and how much it grows while a replica starts.

Pure. What came is kept tick by tick as sums, so that the rate over any time is one difference; a
tick that nobody reports is left out of them. After a dip demand comes back to its usual rate: it
tends to above what there is. After a peak it is not taken to fall. Volatility is what demand grew
beyond that; it grows with the square root of the time that is looked ahead, so its square is kept
by second: when starts take longer, headroom follows at once.
"""

import math
from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import NamedTuple

QUICK_SECONDS = 45.0
"""Peaks are those of rates over this long."""
MOST_SAMPLES = 720
HALF_LIFE_SECONDS = 1.5 * 3600.0
"""Of what was seen of growth: calm and stormy hours come in a row."""
USUAL_VARIANCE = 0.08**2 / 60
"""By second: what is taken before any was measured, as if in `USUAL_WEIGHT` ticks."""
USUAL_WEIGHT = 20.0
GROWTH_MOST = 3.0
"""As a logarithm; beyond, it was next to nothing before."""


class Sample(NamedTuple):
    """What was known after a tick: sums since the window began, and rates in work by second.

    Attributes:
        seconds, work: the sums.
        at: time of the tick.
        rate: over the window.
        quick: over `QUICK_SECONDS`.
        tends: where the rate tends from there: in a dip, to between it and the usual one.
    """

    seconds: float
    work: float
    at: float
    rate: float
    quick: float
    tends: float


class Usual(NamedTuple):
    """The mean rate of work by second, decayed, and the seconds that are known."""

    rate: float = 0.0
    seconds: float = 0.0


class Volatility(NamedTuple):
    """Mean square growth by second looked ahead, and the ticks that say so, decayed."""

    variance: float = USUAL_VARIANCE
    weight: float = USUAL_WEIGHT


Samples = tuple[Sample, ...]
_SECONDS = itemgetter(0)
_AT = itemgetter(2)
_QUICK = itemgetter(4)


def usual(before: Usual, *, seconds: float, work: float, over: float) -> Usual:
    """With what came in one tick more: the plain mean at first, then about that of `over` seconds.

    Args:
        before: the mean so far.
        seconds: how long the tick was.
        work: that came in it.
        over: seconds after which what came counts for a third.
    """
    known = before.seconds + seconds
    part = max(1.0 - math.exp(-seconds / over), seconds / known)
    return Usual(before.rate + part * (work / seconds - before.rate), known)


def sampled(
    before: Samples,
    now: float,
    *,
    seconds: float,
    work: float,
    window: float,
    horizon: float,
    usual: float,
    back: float,
) -> Samples:
    """With what came in one tick more, and without what nothing looks back to any more.

    Args:
        before: the ticks so far.
        now: time of this one.
        seconds: how long it was.
        work: that came in it.
        window: seconds over which the rate is taken.
        horizon: seconds over which growth is looked for.
        usual: the usual rate.
        back: share of the way up to it, in logarithms, that the rate is taken to go.
    """
    samples = before or (Sample(0.0, 0.0, now - seconds, 0.0, 0.0, 0.0),)
    last = samples[-1]
    newest = Sample(last.seconds + seconds, last.work + work, now, 0.0, 0.0, 0.0)
    samples = (*samples, newest)
    rate = rate_over(samples, window)
    newest = Sample(
        newest.seconds,
        newest.work,
        now,
        rate,
        rate_over(samples, QUICK_SECONDS),
        rate ** (1.0 - back) * usual**back if rate < usual else rate,
    )
    # Where ticks are missing, the window reaches further back than its own length.
    known = bisect_right(samples, newest.seconds - max(window, QUICK_SECONDS), key=_SECONDS) - 1
    oldest = min(bisect_right(samples, now - horizon, key=_AT) - 1, known)
    oldest = max(oldest, len(samples) - MOST_SAMPLES, 0)
    return (*samples[oldest:-1], newest)


def rate_over(samples: Samples, seconds: float) -> float:
    """Work by second over the last so many seconds that are known."""
    last, first = samples[-1], samples[0]
    since = last.seconds - seconds
    if since <= first.seconds:
        return (last.work - first.work) / max(last.seconds - first.seconds, 1e-9)
    after = bisect_left(samples, since, key=_SECONDS)
    low, high = samples[after - 1], samples[after]
    part = (since - low.seconds) / (high.seconds - low.seconds)
    return max(last.work - low.work - part * (high.work - low.work), 0.0) / seconds


def covers(samples: Samples, seconds: float) -> bool:
    """Whether so many seconds are known, or as many as are kept."""
    known = samples[-1].seconds - samples[0].seconds
    return known >= seconds - 1e-6 or len(samples) >= MOST_SAMPLES


def observed(
    before: Volatility, samples: Samples, now: float, *, window: float, horizon: float
) -> Volatility:
    """With the growth that the last horizon had: its highest peak by where the rate tended.

    A rate of less than the window is left out: it is what a few ticks had, so that a beginning
    would count as growth.
    """
    past = bisect_right(samples, now - horizon + 1e-6, key=_AT) - 1
    if past < 0 and len(samples) == MOST_SAMPLES:
        past = 0
    last = len(samples) - 1
    if not 0 <= past < last or samples[past].tends <= 0:
        return before
    was = samples[past]
    if was.seconds < window - 1e-6:
        return before
    peak = max(map(_QUICK, samples[past + 1 :]))
    growth = min(math.log(peak / was.tends), GROWTH_MOST) if peak > was.tends else 0.0
    seconds = now - samples[last - 1].at
    weight = 0.5 ** (seconds / HALF_LIFE_SECONDS) * before.weight + 1
    share = growth * growth / (now - was.at)
    return Volatility(before.variance + (share - before.variance) / weight, weight)
