"""The exact test behind a certificate: its size and power by adding up every outcome."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from services.router.calibrate import exact

EPSILON, LEVEL = 0.05, 0.05
SHARES = [*(EPSILON + np.geomspace(1e-6, 0.5, 60)), 0.7, 0.9, 1.0]


def refuted(samples: int, epsilon: float = EPSILON) -> NDArray[np.int64]:
    """For each number that differ, most of them that may be worse; -1 for none."""
    found = []
    for differing in range(samples + 1):
        within, beyond = -1, differing + 1
        while beyond - within > 1:
            worse = (within + beyond) // 2
            p_value = exact.exact_p_value(worse, differing - worse, samples, epsilon, LEVEL)
            within, beyond = (worse, beyond) if p_value <= LEVEL else (within, worse)
        found.append(within)
    return np.array(found)


def chance(most_worse: NDArray[np.int64], share: float, mean: float) -> float:
    """Probability that the test refutes where so many differ and the mean loss is this."""
    samples = len(most_worse) - 1
    differing = np.arange(samples + 1)
    below = np.where(
        most_worse >= 0, binom.cdf(most_worse, differing, (share + mean) / (2.0 * share)), 0.0
    )
    return float(binom.pmf(differing, samples, share) @ below)


@pytest.fixture(scope="module")
def region() -> NDArray[np.int64]:
    return refuted(100)


def test_it_is_wrong_no_more_often_than_told_and_nearly_as_often(
    region: NDArray[np.int64],
) -> None:
    sizes = [chance(region, share, EPSILON) for share in SHARES]
    assert 0.045 < max(sizes) <= LEVEL


def test_a_mean_above_the_tolerance_is_refuted_more_rarely(region: NDArray[np.int64]) -> None:
    for share in (0.1, 0.3, 0.8):
        means = np.linspace(EPSILON, share, 20)
        chances = [chance(region, share, mean) for mean in means]
        assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize(("share", "power"), [(0.02, 0.78), (0.05, 0.58), (0.1, 0.40)])
def test_what_loses_nothing_is_certified_as_often_as_by_the_score_test(
    share: float, power: float, region: NDArray[np.int64]
) -> None:
    """A test confined from one side alone reaches 0.46, 0.26 and 0.18."""
    assert chance(region, share, 0.0) > power


@pytest.mark.parametrize("epsilon", [0.3, -0.1])
def test_other_tolerances_keep_the_level_too(epsilon: float) -> None:
    region = refuted(30, epsilon)
    shares = abs(epsilon) + (1.0 - abs(epsilon)) * np.geomspace(1e-6, 1.0, 60)
    assert max(chance(region, share, epsilon) for share in shares) <= LEVEL


@pytest.mark.parametrize(
    ("worse", "better", "samples", "epsilon"),
    [(2, 3, 40, 0.1), (0, 0, 40, 0.1), (5, 10, 80, 0.02), (1, 1, 60, 0.05), (3, 20, 80, -0.05)],
)
def test_the_p_value_is_the_highest_sum_over_outcomes_and_little_above(
    worse: int, better: int, samples: int, epsilon: float
) -> None:
    """Beside the sum over every outcome with no higher score, on a fine grid."""
    ups, downs = np.meshgrid(*2 * [np.arange(samples + 1.0)], indexing="ij")
    reached = exact._score(np.array(worse + better), np.array(worse - better), samples, epsilon)
    inside = ups + downs <= samples
    ups, downs = ups[inside], downs[inside]
    inside = exact._score(ups + downs, ups - downs, samples, epsilon) <= reached + 1e-9
    outcomes = list(zip(ups[inside], downs[inside], strict=True))
    ways = np.array(
        [math.comb(samples, int(up)) * math.comb(samples - int(up), int(dn)) for up, dn in outcomes]
    )
    ups, downs = np.array(outcomes).T
    spent = exact.CONFINED_AT * LEVEL
    low, high = exact.share_interval(worse + better, samples, spent)
    tails = []
    for share in np.linspace(max(low, abs(epsilon)), high, 2001):
        up, down = (share + epsilon) / 2.0, (share - epsilon) / 2.0
        tails.append(ways @ (up**ups * down**downs * (1.0 - share) ** (samples - ups - downs)))
    found = exact.exact_p_value(worse, better, samples, epsilon, LEVEL)
    assert max(tails) + spent <= found <= max(tails) + spent + 1.5 * exact.CLOSE * LEVEL


@given(
    samples=st.integers(2, 400),
    epsilon=st.floats(-0.5, 0.5),
    differing=st.floats(0.0, 1.0),
)
def test_of_those_that_differ_more_worse_ones_have_a_higher_score(
    samples: int, epsilon: float, differing: float
) -> None:
    """So an outcome that is more extreme has no more of them, whatever the shares."""
    count = round(differing * samples)
    losses = 2.0 * np.arange(count + 1.0) - count
    losses = losses[losses < samples * epsilon]
    scores = exact._score(np.full(len(losses), float(count)), losses, samples, epsilon)
    assert np.all(np.diff(scores) > -1e-9)


@pytest.mark.parametrize("samples", [50, 5_000, 100_000])
@pytest.mark.parametrize("share", [0.011, 0.05, 0.5])
def test_between_two_shares_the_bound_holds(samples: int, share: float) -> None:
    """The bound from a coarse grid is above every value of a fine one."""
    epsilon, width = 0.01, 3.0 / math.sqrt(samples)
    low, high = max(epsilon, share - width), min(1.0, share + width)
    tail = exact._tail(-0.5, samples, epsilon, (low, high))
    coarse, fine = np.linspace(low, high, 9), np.linspace(low, high, 801)
    limits = exact._limits(coarse, tail(coarse), samples, epsilon)
    for limit, values in zip(limits, tail(fine)[:-1].reshape(8, 100), strict=True):
        assert values.max() <= limit


def test_a_larger_tolerance_is_easier_and_more_loss_harder() -> None:
    values = [exact.exact_p_value(10, 5, 500, one, LEVEL) for one in (0.015, 0.02, 0.04)]
    assert values == sorted(values, reverse=True)
    values = [exact.exact_p_value(one, 5, 500, 0.03, LEVEL) for one in (5, 10, 15, 20)]
    assert values == sorted(values)


def test_what_shows_the_tolerance_or_more_refutes_nothing() -> None:
    assert exact.exact_p_value(6, 1, 100, 0.05, LEVEL) == 1.0
    assert exact.exact_p_value(1, 1, 1_000, 0.5, LEVEL) == exact.CONFINED_AT * LEVEL


def test_limits_of_a_share_are_those_of_clopper_and_pearson() -> None:
    for count, samples, level in ((1, 2, 0.5), (3, 40, 0.0005), (700, 9_000, 0.0025)):
        low, high = exact.share_interval(count, samples, level)
        assert binom.cdf(count, samples, high) == pytest.approx(level / 2, rel=1e-6)
        assert binom.sf(count - 1, samples, low) == pytest.approx(level / 2, rel=1e-6)
    assert exact.share_interval(0, 100, 0.1) == (0.0, pytest.approx(1 - 0.05**0.01))
    assert exact.share_interval(100, 100, 0.1) == (pytest.approx(0.05**0.01), 1.0)
