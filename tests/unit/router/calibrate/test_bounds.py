"""The tests behind a certificate: how often they are wrong, and what rounding does."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from services.router.calibrate import bounds

EPSILON, DELTA = 0.05, 0.1


def exact_size(samples: int, worse: float, better: float, epsilon: float) -> float:
    """Probability that the exact test refutes, by adding up every outcome."""
    total = 0.0
    for ups in range(samples + 1):
        for downs in range(samples + 1 - ups):
            if bounds.exact_p_value(ups, downs, samples, epsilon, DELTA) > DELTA:
                continue
            same = samples - ups - downs
            ways = math.comb(samples, ups) * math.comb(samples - ups, downs)
            total += ways * worse**ups * better**downs * (1 - worse - better) ** same
    return total


@pytest.mark.parametrize("better", [0.0, 0.02, 0.1, 0.4])
def test_the_exact_test_is_wrong_no_more_often_than_told(better: float) -> None:
    assert exact_size(30, better + 0.1, better, 0.1) <= DELTA


def test_a_larger_tolerance_is_easier_and_more_loss_harder() -> None:
    values = [bounds.exact_p_value(10, 5, 500, one, DELTA) for one in (0.01, 0.02, 0.04)]
    assert values == sorted(values, reverse=True)
    values = [bounds.exact_p_value(one, 5, 500, 0.03, DELTA) for one in (5, 10, 20)]
    assert values == sorted(values)


@pytest.mark.parametrize("samples", [20, 1_000, 50_000])
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_rounding_never_makes_the_exact_test_easier(
    samples: int, epsilon: float, share: float
) -> None:
    """Beside the same tail as sums of binomials: of what differs, so many are worse."""
    worse = round(samples * (share / 2 + epsilon))
    better = round(samples * share / 2)
    spent = bounds.CONFINED_AT * DELTA
    most = bounds.upper_share(worse + better, samples, spent)
    differing = np.arange(samples + 1)
    tails = [
        binom.pmf(differing, samples, one)
        @ binom.cdf((differing + worse - better) // 2, differing, (one + epsilon) / (2 * one))
        for one in np.linspace(epsilon, most, bounds.GRID)
    ]
    found = bounds.exact_p_value(worse, better, samples, epsilon, DELTA)
    assert max(tails) + spent < found <= max(tails) + spent + 2 * bounds.ROUNDING


def test_the_upper_limit_of_a_share_is_that_of_clopper_and_pearson() -> None:
    assert bounds.upper_share(0, 100, 0.05) == pytest.approx(1 - 0.05**0.01, abs=1e-12)
    assert bounds.upper_share(5, 100, 0.025) == pytest.approx(0.11284, abs=1e-4)
    assert bounds.upper_share(100, 100, 0.05) == 1.0
    for count, samples, level in ((1, 2, 0.5), (3, 40, 0.0005), (700, 9_000, 0.0025)):
        limit = bounds.upper_share(count, samples, level)
        assert binom.cdf(count, samples, limit) == pytest.approx(level, rel=1e-6)


def test_more_pairs_are_needed_for_less_probability_of_error() -> None:
    needed = [
        bounds.samples_needed(0.0, 0.2, 0.05, delta, exact=True) for delta in (0.5, 0.1, 0.05, 0.01)
    ]
    assert needed == sorted(needed, key=lambda many: many or 0)
    assert None not in needed
    assert bounds.samples_needed(0.05, 0.2, 0.05, 0.05, exact=True) is None


def test_the_betting_test_is_wrong_no_more_often_than_told_with_weights_too() -> None:
    random = np.random.default_rng(0)
    refuted = 0
    for _ in range(400):
        # Half of the requests are drawn twice as often and lose 0, the others lose twice epsilon.
        lossy = random.random(300) < 1.0 / 3.0
        losses = np.where(lossy, (random.random(300) < 2 * EPSILON) * 1.0, 0.0)
        weights = np.where(lossy, 1.0, 0.5)
        bet = bounds.planned_bet(0.0, 0.3, 300, EPSILON, DELTA)
        refuted += bounds.betting_p_value(losses, weights, EPSILON, bet) <= DELTA
    assert refuted / 400 <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 400)


@given(
    losses=st.lists(st.floats(-1, 1), min_size=1, max_size=200),
    epsilon=st.floats(0.001, 0.5),
    planned=st.floats(-0.5, 0.5),
)
def test_a_bet_never_loses_more_than_everything(
    losses: list[float], epsilon: float, planned: float
) -> None:
    bet = bounds.planned_bet(planned, 0.2, 100, epsilon, DELTA)
    p_value = bounds.betting_p_value(np.array(losses), np.ones(len(losses)), epsilon, bet)
    assert 0.0 < p_value <= 1.0
