"""How sure a model was of its answer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.certainty import (
    Certainty,
    Measure,
    certainty_of,
    score,
)

log_probs = st.lists(st.floats(-50, 0), min_size=1, max_size=40)


@given(told=log_probs, first_k=st.integers(1, 50))
def test_every_number_is_a_log_prob_and_the_minimum_the_least(
    told: list[float], first_k: int
) -> None:
    found = certainty_of(told, first_k)
    if found is None:
        assert min(told) == 0.0
        return
    assert found.minimum == min(told)
    for value in (found.mean, found.first_k):
        assert found.minimum - 1e-9 <= value <= 0.0


def test_the_numbers_are_what_they_say() -> None:
    found = certainty_of([-0.1, -0.3, -2.0, 0.0], first_k=2)
    assert found is not None
    assert found == Certainty(pytest.approx(-0.6), -2.0, pytest.approx(-0.2))
    assert score(found, Measure.MEAN) == found.mean
    assert score(found, Measure.MINIMUM) == found.minimum
    assert score(found, Measure.FIRST_K) == found.first_k
    with pytest.raises(ValueError, match="needs a model"):
        score(found, Measure.LEARNED)


@pytest.mark.parametrize(
    "told",
    [[], [0.0], [0.0, 0.0, 0.0], [-1.0, math.nan], [math.nan], [-1.0, 0.5], [-math.inf, -1.0]],
)
def test_what_cannot_be_a_log_prob_is_unknown_never_certain(told: list[float]) -> None:
    assert certainty_of(told, 4) is None


def test_rounding_above_zero_is_zero() -> None:
    found = certainty_of([1e-6, -0.5], 1)
    assert found is not None
    assert found.first_k == 0.0
    assert certainty_of([-0.5], 1) is not None
    with pytest.raises(ValueError, match="first_k"):
        certainty_of([-0.5], 0)


@given(st.integers(1, 9))
def test_zeros_are_certain_where_the_engine_tells_log_probs(count: int) -> None:
    zeros = [0.0] * count
    assert certainty_of(zeros, 4, reported=True) == Certainty(0.0, 0.0, 0.0)
    assert certainty_of(zeros, 4) is None


@given(st.lists(st.floats(-50, -0.1), min_size=1, max_size=9))
def test_what_an_engine_fills_in_that_tells_none_is_unknown(given_in: list[float]) -> None:
    assert certainty_of(given_in, 4, reported=False) is None
