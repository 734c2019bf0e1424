"""Counts of durations: they add up in any order, and give back what was counted nearly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.buckets import BOUNDS, BUCKETS, bucket_of, merged, quantile

counts = st.lists(st.integers(0, 1000), max_size=BUCKETS)
durations = st.lists(st.floats(0.0001, 100.0), min_size=1, max_size=50)


def counted(seconds: list[float]) -> list[int]:
    result = [0] * BUCKETS
    for value in seconds:
        result[bucket_of(value)] += 1
    return result


def test_the_scale_is_the_one_the_proto_promises() -> None:
    assert len(BOUNDS) == 81
    assert BOUNDS[0] == 0.0001
    assert BOUNDS[4] == pytest.approx(0.0002)
    assert BOUNDS[80] == pytest.approx(104.8576)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.0001, 0), (0.000101, 1), (0.0002, 4), (104.8, 80), (105.0, 81), (1e9, 81)],
)
def test_a_bound_belongs_to_the_bucket_below_it(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@given(counts, counts, counts)
def test_merging_knows_no_order_and_no_brackets(a, b, c) -> None:
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, []) == tuple(a)


@given(durations, durations)
def test_merged_counts_are_those_of_all_durations(a, b) -> None:
    assert list(merged(counted(a), counted(b))) == counted(a + b)


@given(durations, st.floats(0.01, 1))
def test_a_quantile_is_the_true_one_within_a_bucket(seconds, fraction) -> None:
    exact = sorted(seconds)[math.ceil(fraction * len(seconds)) - 1]
    found = quantile(counted(seconds), fraction)
    assert found is not None
    ratio = found / exact
    assert 2**-0.2501 <= ratio <= 2**0.2501


@given(durations, durations, st.floats(0, 1))
def test_a_quantile_of_all_is_between_those_of_the_parts(a, b, fraction) -> None:
    parts = [quantile(counted(a), fraction), quantile(counted(b), fraction)]
    whole = quantile(merged(counted(a), counted(b)), fraction)
    assert min(parts) * 2**-0.25 <= whole <= max(parts) * 2**0.25


def test_nothing_has_no_quantile_and_the_longest_count_as_the_last_bound() -> None:
    assert quantile([], 0.5) is None
    assert quantile([0, 0], 0.5) is None
    assert quantile(counted([500.0]), 0.95) == BOUNDS[-1]
