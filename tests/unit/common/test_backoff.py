"""Waits double up to a cap, and those who failed together do not come back together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.backoff import Backoff

BACKOFF = Backoff(0.5, 8.0)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(0, 0.0), (1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (100_000, 8.0)],
)
def test_the_longest_wait_doubles_up_to_the_cap(failures: int, seconds: float) -> None:
    assert BACKOFF.seconds(failures) == seconds


def test_half_of_a_wait_is_certain_and_half_is_drawn() -> None:
    assert [BACKOFF.seconds(3, drawn) for drawn in (0.0, 0.5, 1.0)] == [1.0, 1.5, 2.0]


@given(
    failures=st.integers(1, 10_000),
    drawn=st.floats(0, 1),
    first=st.floats(0.001, 10),
    cap=st.floats(0.001, 1000),
)
def test_no_wait_is_nothing_or_beyond_the_cap(
    failures: int, drawn: float, first: float, cap: float
) -> None:
    backoff = Backoff(first, cap)
    assert min(first, cap) / 2 <= backoff.seconds(failures, drawn) <= cap
    assert backoff.seconds(failures, drawn) <= backoff.seconds(failures + 1, drawn)
