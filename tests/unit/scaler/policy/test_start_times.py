"""The last starts of a pool: the usual time, and how much they differ."""

import math
import statistics

import pytest

from services.scaler.policy.start_times import KEPT_STARTS, LEAST_STARTS, StartTimes


def times(*seconds):
    found = StartTimes()
    for one in seconds:
        found = found.add(one)
    return found


def test_the_spread_is_that_of_logarithms():
    seconds = [10.0, 20.0, 40.0, 80.0]
    assert times(*seconds).spread == pytest.approx(statistics.stdev(map(math.log, seconds)))
    assert times(*(10.0 * one for one in seconds)).spread == pytest.approx(times(*seconds).spread)
    assert times(30.0, 30.0, 30.0).spread == 0.0


def test_too_few_starts_say_nothing():
    assert (times().typical_seconds, times().spread) == (None, 0.0)
    assert times(*([1.0, 9.0] * LEAST_STARTS)[: LEAST_STARTS - 1]).spread == 0.0


def test_a_start_that_took_no_time_is_no_end_and_old_ones_are_forgotten():
    assert math.isfinite(times(0.0, 1.0, 2.0).spread)
    assert times(500.0, *([1.0] * KEPT_STARTS)).spread == 0.0
