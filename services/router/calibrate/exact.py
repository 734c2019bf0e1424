"""The exact test of a mean paired loss, for losses of -1, 0 and 1 drawn with equal probability.

Of n samples `worse` lost 1 and `better` won 1; the null is that P(worse) - P(better) is epsilon or
more. Outcomes are ordered by the score statistic (Tango, "Equivalence test and confidence interval
for the difference in proportions for the paired-sample design", 1998): how far the loss stands
below epsilon, in standard errors as the null has them. The p-value is the probability of an outcome
at least as extreme, at the worst value that the null leaves open. No formula is approximated:

- How many samples differ, t on average, is the null's free parameter. It is confined to its
  Clopper-Pearson interval at a small share of the level, which is added to the p-value (Berger and
  Boos, 1994).
- Inside, the highest probability is bounded, not only sought: between two values of t the
  probability of any event grows by no more than its curvature allows, which is at most
  sqrt(P (1 - P)) sqrt(2 n (n - 1)) I, with I the Fisher information of one sample (Cauchy and
  Schwarz, with the second derivative of the likelihood). Intervals that may hide more are halved.
- A mean above epsilon only makes an extreme outcome rarer: of the samples that differ, more are
  worse.

Floating point must not make the test easier: what it may take off is added back, as `ROUNDING`.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaln
from scipy.stats import beta

Floats = NDArray[np.float64]
Span = tuple[float, float]
Tail = Callable[[Floats], Floats]

CONFINED_AT = 0.01
"""Share of the level that is spent on confining the free parameter."""

FIRST_GRID = 33
"""Values of the free parameter that are tried at once."""

CLOSE = 0.01
"""The bound ends within this share of the level, or of the p-value where that is higher."""

MOST_HALVINGS = 40

BEYOND = 8.0
"""Standard deviations beyond which outcomes are not summed up; their probability is added."""

ROUNDING = 1e-9
"""Added to the p-value. Logarithms of factorials are off by 1e-10 for 200,000 samples."""

TIED = 1e-9
"""Scores that differ by less are taken for equal."""

KEPT_P_VALUES = 1 << 16
"""Neighbouring candidates mostly differ in nothing that the test sees."""


@lru_cache(maxsize=KEPT_P_VALUES)
def exact_p_value(worse: int, better: int, samples: int, epsilon: float, level: float) -> float:
    """P-value of the null that P(worse) - P(better) is epsilon or more.

    Args:
        worse: samples with loss 1.
        better: samples with loss -1.
        samples: all of them, at least 1.
        epsilon: in (-1, 1).
        level: it will be compared with; a small share of it confines the free parameter.
    """
    if worse - better >= samples * epsilon:
        return 1.0
    spent = CONFINED_AT * level
    low, high = share_interval(worse + better, samples, spent)
    least = abs(epsilon)  # of a mean of epsilon at least so many differ
    if high < least:
        return spent
    span = max(low, least), high
    seen = np.array([worse + better, worse - better], float)
    reached = float(_score(seen[0], seen[1], samples, epsilon))
    tail = _tail(reached + TIED, samples, epsilon, span)
    return min(1.0, spent + _highest(tail, samples, epsilon, span, level) + ROUNDING)


def share_interval(count: int, samples: int, level: float) -> tuple[float, float]:
    """Confidence limits of a share, missed with probability `level` (Clopper-Pearson)."""
    half = level / 2.0
    low = 0.0 if count == 0 else float(beta.ppf(half, count, samples - count + 1))
    high = 1.0 if count == samples else float(beta.isf(half, count + 1, samples - count))
    return low, high


def null_share(share: float, loss: float, epsilon: float) -> float:
    """The likeliest share that differs where the mean is epsilon, not the loss that was seen.

    Args:
        share: of the samples, that differ.
        loss: mean of all samples.
        epsilon: of the null.
    """
    return float(_restricted(np.array(share), np.array(loss), epsilon))


def _restricted(share: Floats, loss: Floats, epsilon: float) -> Floats:
    """The root of the restricted likelihood's derivative, a quadratic in the share."""
    half = (share + epsilon * loss) / 2.0
    rest = epsilon * (loss - (1.0 - share) * epsilon)
    root: Floats = half + np.sqrt(np.maximum(half * half - rest, 0.0))
    return root


def _score(differing: Floats, loss: Floats, samples: int, epsilon: float) -> Floats:
    """Standard errors that the summed loss stands above the null's, as the null has them.

    For a given number that differ it grows with the loss.
    """
    share = _restricted(differing / samples, loss / samples, epsilon)
    variance = np.maximum(share - epsilon * epsilon, 1e-300)
    score: Floats = (loss - samples * epsilon) / np.sqrt(samples * variance)
    return score


def _tail(score: float, samples: int, epsilon: float, span: Span) -> Tail:
    """P(an outcome's score <= this one) as a function of the share that differs."""
    differing = _window(samples, span)
    most_worse = _most_worse(differing, score, samples, epsilon)
    ways = gammaln(samples + 1) - gammaln(differing + 1) - gammaln(samples - differing + 1)
    some = (most_worse >= 0) & (most_worse < differing)
    every = most_worse >= differing

    def tail(shares: Floats) -> Floats:
        column = shares[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            others = np.where(samples == differing, 0.0, np.log1p(-column))
            logs = ways + differing * np.log(column) + (samples - differing) * others
        chances = np.exp(logs)
        better_share = (column - epsilon) / (2.0 * column)  # of those that differ
        below = np.broadcast_to(every.astype(float), chances.shape).copy()
        below[:, some] = betainc(
            (differing - most_worse)[some], most_worse[some] + 1.0, better_share
        )
        missed = np.maximum(0.0, 1.0 - chances.sum(axis=1))
        found: Floats = np.clip((chances * below).sum(axis=1) + missed, 0.0, 1.0)
        return found

    return tail


def _window(samples: int, span: Span) -> Floats:
    """Numbers of differing samples that are likely anywhere within these shares."""
    low, high = span
    deviations = [math.sqrt(samples * share * (1.0 - share)) for share in span]
    first = max(0, math.floor(samples * low - BEYOND * (deviations[0] + BEYOND)))
    last = min(samples, math.ceil(samples * high + BEYOND * (deviations[1] + BEYOND)))
    return np.arange(first, last + 1, dtype=np.float64)


def _most_worse(differing: Floats, score: float, samples: int, epsilon: float) -> Floats:
    """For each number that differ, most that may be worse within the score; -1 for none."""
    within, beyond = np.full(len(differing), -1.0), differing + 1.0
    while np.any(beyond - within > 1.0):
        middle = np.floor((within + beyond) / 2.0)
        inside = _score(differing, 2.0 * middle - differing, samples, epsilon) <= score
        inside |= middle < 0.0
        within, beyond = np.where(inside, middle, within), np.where(inside, beyond, middle)
    return within


def _highest(tail: Tail, samples: int, epsilon: float, span: Span, level: float) -> float:
    """An upper bound of the tail's highest value between two shares, closely."""
    low, high = span
    least = abs(epsilon)
    # Information grows without limit towards the least share: even steps of the root are as good.
    roots = np.linspace(math.sqrt(low - least), math.sqrt(max(high, low) - least), FIRST_GRID)
    values = tail(least + roots**2)
    for _ in range(MOST_HALVINGS):
        limits = _limits(least + roots**2, values, samples, epsilon)
        best = float(values.max())
        open_ = limits > best + CLOSE * max(level, best)
        if not open_.any():
            break
        middles = (roots[:-1] + roots[1:])[open_] / 2.0
        places = np.flatnonzero(open_) + 1
        values = np.insert(values, places, tail(least + middles**2))
        roots = np.insert(roots, places, middles)
    else:
        limits = _limits(least + roots**2, values, samples, epsilon)
    return float(limits.max())


def _limits(shares: Floats, values: Floats, samples: int, epsilon: float) -> Floats:
    """Most that the probability of any event may be between neighbouring shares."""
    widths = np.diff(shares)
    with np.errstate(divide="ignore"):
        per_sample = (1.0 / (shares - epsilon) + 1.0 / (shares + epsilon)) / 4.0 + 1.0 / (
            1.0 - shares
        )
    information = np.maximum(per_sample[:-1], per_sample[1:])  # it is convex
    ends = np.maximum(values[:-1], values[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        angles = np.arcsin(np.sqrt(ends)) + np.sqrt(samples * information) * widths / 4.0
        steepest = np.sin(np.minimum(angles, np.pi / 2.0)) ** 2
        spread = np.where(steepest < 0.5, np.sqrt(steepest * (1.0 - steepest)), 0.5)  # noqa: PLR2004
        curved = spread * math.sqrt(2.0) * samples * information * widths**2 / 8.0
    # Two samples are told apart with a probability of no more than the width.
    apart = samples * widths / 2.0
    found: Floats = np.minimum(1.0, ends + np.fmin(np.fmin(curved, apart), steepest - ends))
    return found
