"""Windows and rates against working them out the long way."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.rates import (
    MOST_SAMPLES,
    Sample,
    Usual,
    Volatility,
    covers,
    observed,
    rate_over,
    sampled,
    usual,
)
from services.scaler.policy.sizing.windows import MOST, with_greatest, with_least

AS_IT_IS = {"usual": 0.0, "back": 0.0}
"""Demand is taken to stay what it is."""

steps = st.lists(st.tuples(st.sampled_from((1.0, 5.0, 20.0)), st.integers(0, 9)), min_size=1)


@settings(deadline=None)
@given(steps, st.sampled_from((0.0, 10.0, 60.0)))
def test_the_first_is_the_extreme_of_the_window(course, window):
    greatest = least = ()
    now, seen = 0.0, []
    for step, value in course:
        now += step
        seen.append((now, value))
        greatest = with_greatest(greatest, now, value, now - window)
        least = with_least(least, now, value, now - window)
        inside = [value for at, value in seen if at >= now - window]
        assert greatest[0][1] == max(inside)
        assert least[0][1] == min(inside)


def test_a_window_is_bounded_and_keeps_its_extreme():
    seen = ()
    for tick in range(3 * MOST):
        seen = with_greatest(seen, float(tick), 1e6 - tick, 0.0)
    assert len(seen) <= MOST
    assert seen[0] == (0.0, 1e6)


@settings(deadline=None)
@given(steps, st.sampled_from((7.0, 15.0, 70.0)))
def test_a_rate_is_what_came_in_the_last_seconds_that_are_known(course, window):
    samples: tuple[Sample, ...] = ()
    now, came = 0.0, []
    for seconds, work in course:
        now += seconds + 3.0  # of which three seconds nobody reports
        samples = sampled(
            samples, now, seconds=seconds, work=work, window=window, horizon=60.0, **AS_IT_IS
        )
        came.append((seconds, work))
    left, total = window, 0.0
    for seconds, work in reversed(came):
        part = min(left / seconds, 1.0)
        total += part * work
        left -= part * seconds
    known = sum(seconds for seconds, _ in came)
    assert samples[-1].rate == pytest.approx(total / min(window, known))
    assert samples[-1].rate == pytest.approx(rate_over(samples, window))
    assert covers(samples, window) == (known >= window)


def test_samples_are_bounded():
    samples: tuple[Sample, ...] = ()
    for tick in range(2 * MOST_SAMPLES):
        samples = sampled(
            samples, float(tick), seconds=1.0, work=1.0, window=70.0, horizon=1e6, **AS_IT_IS
        )
    assert len(samples) == MOST_SAMPLES
    assert covers(samples, 3600.0)


@settings(deadline=None)
@given(steps, st.floats(0.0, 1.0))
def test_a_rate_tends_up_to_the_usual_one_and_never_down(course, back):
    samples: tuple[Sample, ...] = ()
    now, known = 0.0, Usual()
    for seconds, work in course:
        now += seconds
        known = usual(known, seconds=seconds, work=work, over=100.0)
        samples = sampled(
            samples, now, seconds=seconds, work=work, window=15.0, horizon=60.0,
            usual=known.rate, back=back,
        )  # fmt: skip
    last = samples[-1]
    assert last.rate - 1e-9 <= last.tends <= max(last.rate, known.rate) + 1e-9


@pytest.mark.parametrize(
    ("back", "usual", "tends"), [(0.0, 8.0, 2.0), (0.5, 8.0, 4.0), (1.0, 8.0, 8.0), (0.5, 1.0, 2.0)]
)
def test_after_a_dip_a_rate_comes_back_part_of_the_way_in_logarithms(back, usual, tends):
    last = sampled(
        (), 10.0, seconds=10.0, work=20.0, window=10.0, horizon=60.0, usual=usual, back=back
    )[-1]  # fmt: skip
    assert last.tends == pytest.approx(tends)


def test_the_usual_rate_is_the_mean_until_it_is_known_for_long():
    known = Usual()
    for work in (10.0, 30.0, 20.0):
        known = usual(known, seconds=10.0, work=work, over=1000.0)
    assert known == (pytest.approx(2.0), 30.0)
    known = Usual(2.0, 5000.0)
    for _ in range(100):
        known = usual(known, seconds=10.0, work=0.0, over=1000.0)
    assert known.rate == pytest.approx(2.0 / math.e)  # after `over` a third is left


def test_growth_is_the_highest_peak_by_where_the_rate_tended_before_it():
    samples = tuple(
        Sample(10.0 * i, 0.0, 10.0 * i, 9.0, quick, tends)
        for i, (tends, quick) in enumerate([(2.0, 2.0), (2.0, 2.0), (3.0, 8.0), (4.0, 5.0)])
    )
    after = observed(Volatility(0.0, 0.0), samples, 30.0, window=0.0, horizon=20.0)
    # ln(8 / 2) over 20 seconds, the first tick that says anything
    assert after.variance == pytest.approx(1.3862943611**2 / 20.0)
    assert (
        observed(Volatility(), samples, 30.0, window=0.0, horizon=31.0) == Volatility()
    )  # not known so far back
    fell = tuple(sample._replace(quick=1.0) for sample in samples)
    assert observed(Volatility(0.0, 0.0), fell, 30.0, window=0.0, horizon=20.0).variance == 0.0
    idle = tuple(sample._replace(tends=0.0) for sample in samples)
    assert observed(Volatility(), idle, 30.0, window=0.0, horizon=20.0) == Volatility()


def test_a_beginning_is_not_growth():
    """What a few ticks had is no rate to grow from: it waits until the window is known."""
    samples: tuple[Sample, ...] = ()
    volatility = Volatility()
    for tick, work in enumerate([1.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0], start=1):
        now = 10.0 * tick
        samples = sampled(
            samples, now, seconds=10.0, work=work, window=40.0, horizon=20.0, **AS_IT_IS
        )
        volatility = observed(volatility, samples, now, window=40.0, horizon=20.0)
        assert tick > 5 or volatility == Volatility()
    assert volatility.weight > Volatility().weight
