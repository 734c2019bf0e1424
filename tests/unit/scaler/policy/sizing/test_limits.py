"""Tolerance, stabilisation and rates, with the examples of HPA's documentation."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.limits import (
    MOST_EVENTS,
    Past,
    changed,
    limited,
    stabilized,
    tolerated,
)
from services.scaler.policy.sizing.settings import Behavior, Direction, Rate, RateType, Select


def pods(value: int, period: float = 60.0) -> Rate:
    return Rate(type=RateType.PODS, value=value, period_seconds=period)


def percent(value: int, period: float = 60.0) -> Rate:
    return Rate(type=RateType.PERCENT, value=value, period_seconds=period)


def down(*rates: Rate, select: Select = Select.MAX, window: float = 0.0) -> Behavior:
    return Behavior(
        scale_down=Direction(
            policies=rates, select_policy=select, stabilization_window_seconds=window
        )
    )


def up(*rates: Rate, select: Select = Select.MAX, window: float = 0.0) -> Behavior:
    return Behavior(
        scale_up=Direction(
            policies=rates, select_policy=select, stabilization_window_seconds=window
        )
    )


def walked(behavior: Behavior, sizes: int, wanted: int, every: float = 60.0) -> list[int]:
    """Sizes of one period after another, while `wanted` is wanted."""
    past, size, found = Past(), sizes, []
    for period in range(20):
        now = 1000.0 + period * every
        after = limited(behavior, past, now, wanted=wanted, current=size)
        past = changed(behavior, past, now, after - size)
        size = after
        found.append(size)
    return found


def test_80_replicas_go_to_10_by_the_larger_of_4_pods_and_10_percent():
    # The documentation's own example: 8 in the first minute, then 7; once below 40, 4 a minute.
    sizes = walked(down(pods(4), percent(10)), 80, 10)
    assert sizes[:4] == [72, 64, 57, 51]
    below = [size for size in sizes if size <= 40]
    assert all(a - b == 4 for a, b in pairwise(below) if b > 10)
    assert sizes[-1] == 10


def test_the_least_of_several_rates_holds_where_the_policy_says_min():
    assert walked(down(pods(5), percent(10), select=Select.MIN), 80, 10)[0] == 75
    assert walked(down(pods(5), percent(10), select=Select.MIN), 30, 10)[0] == 27


def test_a_disabled_direction_never_changes():
    assert walked(down(select=Select.DISABLED), 7, 1)[-1] == 7
    assert walked(up(pods(3), select=Select.DISABLED), 7, 20)[-1] == 7


def test_the_default_of_kubernetes_upwards_is_doubling_or_four_pods_a_quarter_minute():
    sizes = walked(up(percent(100, 15.0), pods(4, 15.0)), 1, 100, every=15.0)
    assert sizes[:6] == [5, 10, 20, 40, 80, 100]


def test_percent_never_keeps_a_pool_at_zero():
    assert walked(up(percent(50)), 0, 3)[:3] == [1, 2, 3]


def test_a_change_counts_until_its_period_is_over():
    behavior = up(pods(2, 60.0))
    past = changed(behavior, Past(), 100.0, 2)
    assert limited(behavior, past, 159.0, wanted=9, current=4) == 4
    assert limited(behavior, past, 161.0, wanted=9, current=4) == 6


def test_what_went_away_in_the_period_may_come_back():
    behavior = up(pods(1, 60.0))
    past = changed(behavior, Past(), 100.0, -3)
    assert limited(behavior, past, 110.0, wanted=9, current=2) == 6


def test_down_the_greatest_size_of_the_window_holds():
    behavior = down(window=300.0)
    past, found = Past(), []
    for at, wanted in ((0, 5), (60, 3), (120, 4), (310, 2), (425, 2), (620, 2)):
        size, past = stabilized(behavior, past, float(at), wanted=wanted, current=5)
        found.append(size)
    assert found == [5, 5, 5, 4, 2, 2]


def test_up_the_least_size_of_the_window_holds():
    behavior = up(window=60.0)
    past, found = Past(), []
    for at, wanted in ((0, 2), (30, 6), (70, 6), (100, 8)):
        size, past = stabilized(behavior, past, float(at), wanted=wanted, current=2)
        found.append(size)
    assert found == [2, 2, 6, 6]


def test_tolerance_has_a_side_for_each_direction():
    behavior = Behavior(scale_up=Direction(tolerance=0.1), scale_down=Direction(tolerance=0.3))
    assert [tolerated(behavior, ratio) for ratio in (0.69, 0.7, 1.0, 1.1, 1.11)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_the_past_is_bounded():
    behavior = up(pods(1, 1800.0))
    past = Past()
    for second in range(3 * MOST_EVENTS):
        past = changed(behavior, past, second / 10, 1 if second % 3 else -1)
    assert len(past.events) <= MOST_EVENTS
    # Where no rate looks back there is no past at all.
    assert changed(Behavior(), past, 1e6, 1).events == ()


rates = st.lists(
    st.builds(
        Rate,
        type=st.sampled_from(RateType),
        value=st.integers(1, 120),
        period_seconds=st.sampled_from((10.0, 45.0, 300.0)),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@settings(deadline=None)
@given(rates, rates, st.sampled_from(Select), st.lists(st.integers(0, 60), max_size=40))
def test_rates_hold_over_any_sequence(ups, downs, select, wishes):
    behavior = Behavior(
        scale_up=Direction(policies=ups, select_policy=select),
        scale_down=Direction(policies=downs, select_policy=select),
    )
    past, size, now = Past(), 10, 0.0
    course = [(now, size)]
    for wanted in wishes:
        now += 7.0
        after = limited(behavior, past, now, wanted=wanted, current=size)
        assert min(size, wanted) <= after <= max(size, wanted)
        past = changed(behavior, past, now, after - size)
        if after != size:
            up = after > size
            allowed = []
            for rate in ups if up else downs:
                start = next(
                    then
                    for at, then in reversed(course)
                    if at <= now - rate.period_seconds or at == 0.0
                )
                if rate.type is RateType.PODS:
                    allowed.append(rate.value)
                elif up:
                    allowed.append(max(-(-start * rate.value // 100), 1 - start))
                else:
                    allowed.append(start - start * (100 - rate.value) // 100)
                allowed[-1] = (start + allowed[-1]) if up else (start - allowed[-1])
            if up:
                assert after <= (max(allowed) if select is Select.MAX else min(allowed))
            else:
                assert after >= (min(allowed) if select is Select.MAX else max(allowed))
            assert select is not Select.DISABLED
        size = after
        course.append((now, size))
