"""Tests that a mean paired loss is below epsilon, for losses in [-1, 1].

Each returns a p-value for the null "the mean loss is epsilon or more": whatever the distribution,
it is at most p with probability at most p. Both assume that samples are independent draws of one
distribution; the second also holds if, given the past, each has a mean within the null.

- `exact.exact_p_value` for losses of -1, 0 and 1 drawn with equal probability. About half as many
  pairs as the other test needs.
- `betting_p_value` for graded losses and unequal weights: the capital of bets against the null
  (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023), by
  Ville's inequality.

Unequal propensities p are met by weights w = lowest p / p, at most 1: as the weights are known
before the loss is, the mean of w * (loss - epsilon) over what was drawn has the sign of the mean
of (loss - epsilon) over all requests. Nothing is normalised by an estimate, and the lowest p is the
one that was declared: the sample's own would leave out what was so rarely drawn that it is not in.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from services.router.calibrate.exact import null_share

Floats = NDArray[np.float64]

FOUR_OF_FIVE = 0.8416
"""Standard errors to spare so that a test passes four times out of five."""

MIXED_BETS = ((0.5, 0.25), (1.0, 0.5), (2.0, 0.25))
"""Bets relative to the planned one, and how much of the capital goes to each."""


def is_exact(losses: Floats, weights: Floats) -> bool:
    """Whether the exact test applies: losses of -1, 0, 1, and no weight below 1.

    Equal weights below 1 do not do: then something was drawn more rarely, and is not among them.
    """
    return bool(np.all(np.isin(losses, (-1.0, 0.0, 1.0))) and np.all(weights == 1.0))


def planned_bet(
    shown: tuple[float, float], weights: Floats, samples: int, epsilon: float, delta: float
) -> float:
    """The bet that suits what the fit part showed; any bet chosen before the test is valid.

    Args:
        shown: mean loss on the fit part, and its standard deviation there.
        weights: of the fit part.
        samples: how many will be tested.
        epsilon: of the null.
        delta: of the test.
    """
    loss, deviation = shown
    mean, squares = float(weights.mean()), float((weights * weights).mean())
    variance = max(deviation * deviation + (loss - epsilon) ** 2, 1e-6) * squares
    at_the_end = math.sqrt(2.0 * math.log(1.0 / delta) / (samples * variance))
    for_growth = max(0.0, epsilon - loss) * mean / variance
    return min(max(at_the_end, for_growth), 0.45 / (1.0 + abs(epsilon)))


def betting_p_value(
    losses: Floats, weights: Floats, epsilon: float, bet: float, *, at_end: bool = False
) -> float:
    """P-value of the null that the mean loss over all requests is epsilon or more.

    Args:
        losses: in [-1, 1], in an order that does not depend on them.
        weights: of each, in (0, 1], known before the losses are.
        epsilon: in (-1, 1).
        bet: planned on other data, in (0, 1 / (2 + 2 epsilon)).
        at_end: what counts is the capital in the end, not the highest on the way. That is valid for
            independent samples of different distributions too, as the capital that one expects of
            them is at most exp(bet * the sum of what one expects of their gains).
    """
    gains = weights * (epsilon - losses)
    shares = np.array([share for _, share in MIXED_BETS])
    # Twice the bet still leaves some capital whatever comes: each gain is above -(1 - epsilon).
    logs = np.cumsum([np.log1p(bet * times * gains) for times, _ in MIXED_BETS], axis=1)
    capital = shares @ np.exp(np.clip(logs, -700.0, 700.0))
    reached = capital[-1] if at_end else capital.max(initial=1.0)
    return min(1.0, 1.0 / float(max(reached, 1.0)))


def samples_needed(
    loss: float, deviation: float, epsilon: float, delta: float, *, exact: bool
) -> int | None:
    """About how many pairs certify such a loss four times out of five; None where none would."""
    margin = epsilon - loss
    if margin <= 0.0:
        return None
    if exact:
        differing = min(1.0, deviation * deviation + loss * loss)
        null = math.sqrt(max(0.0, null_share(differing, loss, epsilon) - epsilon * epsilon))
        reach = max(0.0, float(norm.isf(delta))) * null
    else:
        reach = math.sqrt(2.0 * math.log(1.0 / delta)) * deviation
    by_spread = ((reach + FOUR_OF_FIVE * deviation) / margin) ** 2
    at_least = math.log(delta) / math.log1p(-min(margin, 0.999))
    return math.ceil(max(by_spread, at_least))
