"""Tests that a mean paired loss is below epsilon, for losses in [-1, 1].

Each returns a p-value for the null "the mean loss is epsilon or more": whatever the distribution,
it is at most p with probability at most p. Both assume that samples are independent draws of one
distribution; the second also holds if, given the past, each has a mean within the null.

- `exact_p_value` for losses of -1, 0 and 1 drawn with equal probability: the trinomial test with
  the null's free parameter, the share of answers that differ, confined as Berger and Boos (1994)
  have it. About half as many pairs as the other test needs.
- `betting_p_value` for graded losses and unequal propensities: the capital of bets against the null
  (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023), by
  Ville's inequality.

Unequal propensities p are met by weights w = lowest p / p, at most 1: as the weights are known
before the loss is, the mean of w * (loss - epsilon) over what was drawn has the sign of the mean
of (loss - epsilon) over all requests. Nothing is normalised by an estimate.

Floating point must not make a test easier: what it may take off the exact p-value is added back, as
`ROUNDING`. What only says how many pairs are needed is an estimate anyway.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

Floats = NDArray[np.float64]

CONFINED_AT = 0.05
"""Share of delta that is spent on confining the free parameter of the exact test."""

GRID = 9
"""Values of the free parameter tried; the highest decides wherever the loss is not near epsilon."""

ROUNDING = 1e-9
"""Added to the exact p-value. Its sum over a Fourier transform is off by about 6e-17 a sample, so
1e-11 for 200,000 (beside sums of binomials); the limit of the free parameter is off by less."""

FOUR_OF_FIVE = 0.8416
"""Standard errors to spare so that a test passes four times out of five."""

KEPT_P_VALUES = 1 << 16
"""Neighbouring candidates mostly differ in nothing that the exact test sees."""

SMALL_SAMPLE = 2_000
"""From here on the normal approximation says how many pairs are needed."""

MIXED_BETS = ((0.5, 0.25), (1.0, 0.5), (2.0, 0.25))
"""Bets relative to the planned one, and how much of the capital goes to each."""


def is_exact(losses: Floats, weights: Floats) -> bool:
    """Whether `exact_p_value` applies: losses of -1, 0, 1 and equal weights."""
    return bool(np.all(np.isin(losses, (-1.0, 0.0, 1.0))) and np.all(weights == weights[:1]))


@lru_cache(maxsize=KEPT_P_VALUES)
def exact_p_value(worse: int, better: int, samples: int, epsilon: float, delta: float) -> float:
    """P-value of the null that P(worse) - P(better) is epsilon or more.

    Args:
        worse: samples with loss 1.
        better: samples with loss -1.
        samples: all of them, at least 1.
        epsilon: in (-1, 1).
        delta: the level it will be compared with; a small share of it confines the free parameter.

    The statistic is S = worse - better. Under the null its lower tail is heaviest where the mean is
    epsilon, and there it grows with the share t that differs (as long as S stands below the mode of
    its distribution: moving mass from 0 to both sides changes P(S <= s) by the difference of two
    neighbouring probabilities). t is confined to its upper Clopper-Pearson limit at level
    CONFINED_AT * delta, which is added to the p-value.
    """
    spent = CONFINED_AT * delta
    most = upper_share(worse + better, samples, spent)
    if most < abs(epsilon):
        return spent
    shares = np.linspace(abs(epsilon), most, GRID)
    tail = float(_lower_tails(shares, samples, epsilon, worse - better).max())
    return min(1.0, spent + tail + ROUNDING)


def _lower_tails(shares: Floats, samples: int, epsilon: float, reached: int) -> Floats:
    """P(S <= reached) where a share of the samples differs and the mean is epsilon."""
    size = 1 << (2 * samples + 1).bit_length()
    angle = 2.0 * np.pi * np.arange(size // 2 + 1) / size  # the other half is its mirror image
    up, down = (shares + epsilon) / 2.0, (shares - epsilon) / 2.0
    of_one = (
        (1.0 - shares)[:, None]
        + up[:, None] * np.exp(1j * angle)
        + down[:, None] * np.exp(-1j * angle)
    )
    # The characteristic function's coefficients; S = s stands at s modulo size.
    chances = np.fft.hfft(of_one**samples, n=size, axis=1) / size
    places = np.arange(-samples, reached + 1) % size
    tails: Floats = np.clip(chances[:, places].sum(axis=1), 0.0, 1.0)
    return tails


def upper_share(count: int, samples: int, level: float) -> float:
    """Upper confidence limit of a share, missed with probability `level` (Clopper-Pearson)."""
    return 1.0 if count >= samples else float(beta.isf(level, count + 1, samples - count))


def planned_bet(loss: float, deviation: float, samples: int, epsilon: float, delta: float) -> float:
    """The bet that suits what the fit part showed; any bet chosen before the test is valid.

    Args:
        loss: mean on the fit part.
        deviation: standard deviation there.
        samples: how many will be tested.
        epsilon: of the null.
        delta: of the test.
    """
    variance = max(deviation * deviation + (loss - epsilon) ** 2, 1e-6)
    at_the_end = math.sqrt(2.0 * math.log(1.0 / delta) / (samples * variance))
    for_growth = max(0.0, epsilon - loss) / variance
    return min(max(at_the_end, for_growth), 0.45 / (1.0 + abs(epsilon)))


def betting_p_value(losses: Floats, weights: Floats, epsilon: float, bet: float) -> float:
    """P-value of the null that the mean loss over all requests is epsilon or more.

    Args:
        losses: in [-1, 1], in an order that does not depend on them.
        weights: lowest propensity divided by each one's own, in (0, 1].
        epsilon: in (-1, 1).
        bet: planned on other data, in (0, 1 / (2 + 2 epsilon)).
    """
    gains = weights * (epsilon - losses)
    shares = np.array([share for _, share in MIXED_BETS])
    # Twice the bet still leaves some capital whatever comes: each gain is above -(1 - epsilon).
    logs = np.cumsum([np.log1p(bet * times * gains) for times, _ in MIXED_BETS], axis=1)
    capital = shares @ np.exp(np.clip(logs, -700.0, 700.0))
    return min(1.0, 1.0 / float(max(capital.max(initial=1.0), 1.0)))


def samples_needed(
    loss: float, deviation: float, epsilon: float, delta: float, *, exact: bool
) -> int | None:
    """About how many pairs certify such a loss four times out of five; None where none would."""
    margin = epsilon - loss
    if margin <= 0.0:
        return None
    by_spread = ((_reach(delta, exact=exact) + FOUR_OF_FIVE) * deviation / margin) ** 2
    at_least = math.log(delta) / math.log1p(-min(margin, 0.999))
    needed = math.ceil(max(by_spread, at_least))
    # Small samples need more, as the free parameter is then hardly confined.
    while exact and needed < SMALL_SAMPLE:
        differing = min(1.0, deviation * deviation + loss * loss) * needed
        reached = min(differing, needed * loss + FOUR_OF_FIVE * deviation * math.sqrt(needed))
        worse, better = round((differing + reached) / 2.0), round((differing - reached) / 2.0)
        if exact_p_value(worse, better, needed, epsilon, delta) <= delta:
            break
        needed = math.ceil(needed * 1.05) + 1
    return needed


def _reach(delta: float, *, exact: bool) -> float:
    """Standard errors that the mean must stay below epsilon for the test to pass."""
    if not exact:
        return math.sqrt(2.0 * math.log(1.0 / delta))
    return max(0.0, float(norm.isf(delta)))
