"""A size split between spot and on demand: SpotHedge's mix, and both pools' decisions."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.override import Override, OverrideKind
from services.scaler.policy.sizing.settings import Measure, Spot
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, decide_all
from services.scaler.policy.sizing.spot import Mix, MixMemory, mixed, together
from services.scaler.policy.sizing.views import Bound, Reading
from tests.making.sizing import scale, view

SPOT = Spot(pool="spot")


def walked(spot: Spot, targets, ready, *, start: float = 60.0, every: float = 10.0) -> list[Mix]:
    """`ready`: what of the wished spot replicas serve, tick by tick."""
    memory, mixes = MixMemory(), []
    for tick, (target, serving) in enumerate(zip(targets, ready, strict=True)):
        mix, memory = mixed(
            spot, memory, target=target, ready=serving, now=tick * every, start_seconds=start
        )
        mixes.append(mix)
    return mixes


def test_while_spot_serves_all_runs_there_and_one_more():
    mixes = walked(SPOT, [4] * 30, [5] * 30)
    assert (mixes[-1].spot, mixes[-1].on_demand) == (5, 0)


def test_at_the_start_all_runs_on_demand_too_until_spot_has_served_for_a_start():
    mixes = walked(SPOT, [4] * 40, [0] * 6 + [5] * 34)
    assert mixes[0].spot == 5
    assert [mix.on_demand for mix in mixes[:6]] == [4] * 6
    # Ready from 60 s on, counted from 120 s on, and kept for one more start after that.
    assert [mix.on_demand for mix in mixes[12:18]] == [4] * 6
    assert mixes[20].on_demand <= 1


def test_what_spot_loses_comes_on_demand_at_once():
    mixes = walked(SPOT, [4] * 40, [5] * 30 + [2] * 10)
    assert mixes[29].on_demand == 0
    assert mixes[30].on_demand == 3  # 5 wished for, 2 serve
    assert mixes[-1].spot == 5  # and spot is still asked for


def test_after_spot_is_full_again_the_last_count_is_kept_for_a_start():
    mixes = walked(SPOT, [4] * 60, [5] * 20 + [3] * 5 + [5] * 35)
    counts = [mix.on_demand for mix in mixes]
    assert counts[20:25] == [2] * 5
    assert counts[25:37] == [2] * 12  # a start until it counts, a start more
    assert counts[38] == 1  # the safety net: spot had its part for less than 99 %
    assert counts[-1] == 1


def test_the_safety_net_goes_once_spot_was_there_for_long_enough():
    mixes = walked(SPOT, [4] * 3000, [5] * 20 + [3] * 5 + [5] * 2975)
    assert mixes[40].on_demand == 1
    assert mixes[-1].on_demand == 0
    assert (mixes[-1].availability or 0) > 0.99


@pytest.mark.parametrize("jump", [-1000.0, 1000.0])
def test_after_a_jump_of_the_clock_spot_is_full_from_then_on(jump):
    memory = MixMemory()

    def tick(now: float, ready: int) -> int:
        nonlocal memory
        mix, memory = mixed(SPOT, memory, target=4, ready=ready, now=now, start_seconds=60.0)
        return mix.on_demand

    for count, ready in enumerate([5] * 20 + [3] * 5 + [5] * 10):
        tick(10.0 * count, ready)
    assert (memory.on_demand, memory.full_since) == (2, 310.0)
    counts = [tick(340.0 + jump + 10.0 * count, 5) for count in range(9)]
    assert counts == [2] * 6 + [1] * 3  # a whole start, then the safety net


def test_after_a_jump_back_nothing_from_before_counts():
    memory = MixMemory()
    for now, target, ready in ((5000.0, 1, 0), (5010.0, 1, 0), (1000.0, 4, 3), (1010.0, 4, 3)):
        mix, memory = mixed(SPOT, memory, target=target, ready=ready, now=now, start_seconds=60.0)
    assert (mix.serving, mix.availability) == (3, 0.0)


def test_a_share_and_what_stays_on_demand_whatever_spot_has():
    half = Spot(pool="spot", share=0.5)
    mix = walked(half, [5] * 30, [4] * 30)[-1]
    assert (mix.spot, mix.on_demand) == (4, 2)  # 3 and one over, the rest
    kept = Spot(pool="spot", min_on_demand=2)
    mix = walked(kept, [5] * 30, [4] * 30)[-1]
    assert (mix.spot, mix.on_demand) == (4, 2)
    mix = walked(kept, [1] * 30, [0] * 30)[-1]
    assert (mix.spot, mix.on_demand) == (0, 1)


def test_nothing_runs_anywhere_where_nothing_is_wanted():
    mix = walked(SPOT, [0] * 5, [0] * 5)[-1]
    assert (mix.spot, mix.on_demand) == (0, 0)


@settings(deadline=None)
@given(
    st.builds(
        Spot,
        pool=st.just("spot"),
        share=st.floats(0, 1),
        over_provision=st.integers(0, 3),
        min_on_demand=st.integers(0, 4),
    ),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=40),
    st.sampled_from((0.0, 5.0, 120.0)),
)
def test_what_serves_on_spot_and_what_is_wanted_on_demand_is_never_too_little(spot, course, start):
    memory = MixMemory()
    for tick, (target, ready) in enumerate(course):
        mix, memory = mixed(
            spot, memory, target=target, ready=ready, now=10.0 * tick, start_seconds=start
        )
        assert mix.on_demand + min(mix.serving, mix.spot) >= target
        assert min(spot.min_on_demand, target) <= mix.on_demand <= target
        assert 0 <= mix.spot <= target + spot.over_provision


def pools(ticks: int, lost_at: int = 10**9, **changes):
    policies = {
        "on-demand": PoolPolicy(scale(max=12, spot=Spot(pool="spot"))),
        "spot": PoolPolicy(None, 0),
    }
    policies = {name: replace(one, **changes.get(name, {})) for name, one in policies.items()}
    memory, now, sizes = AllMemory(), 0.0, {"on-demand": 5, "spot": 0}
    found = []
    for tick in range(ticks):
        now += 10
        serving = 0 if tick >= lost_at else sizes["spot"]
        views = {}
        for name, ready, price in (("on-demand", sizes["on-demand"], 3.0), ("spot", serving, 1.0)):
            share = ready / max(sizes["on-demand"] + serving, 1)
            views[name] = view(now, 90.0 * share, ready, usd_per_hour=price)
        decisions, memory = decide_all(policies, {}, None, memory, views)
        sizes = {name: one.size for name, one in decisions.items()}
        found.append(decisions)
    return found


def test_both_pools_of_a_tier_are_sized_as_one():
    last = pools(60)[-1]
    assert (last["spot"].size, last["on-demand"].size) == (6, 0)
    assert last["spot"].usd_per_hour == 6.0
    assert last["on-demand"].constraints[-1].bound is Bound.SPOT
    assert "of 5 replicas 0 are to be on demand, since 6 of 6 on spot serve" in (
        last["on-demand"].why
    )


def test_all_of_it_comes_back_on_demand_when_spot_is_lost():
    found = pools(80, lost_at=60)
    assert found[61]["on-demand"].size >= 5


def test_an_override_of_the_pool_on_spot_is_its_own():
    pinned = Override(OverrideKind.PIN, 4e9, size=0, author="ada")
    last = pools(60, spot={"override": pinned})[-1]
    assert (last["spot"].size, last["on-demand"].size) == (0, 5)
    assert "by ada" in last["spot"].why


def test_while_one_of_both_cannot_be_seen_both_keep_what_they_have():
    policies = {
        "on-demand": PoolPolicy(scale(max=12, spot=Spot(pool="spot"))),
        "spot": PoolPolicy(None, 0),
    }
    memory, now = AllMemory(), 0.0
    for _ in range(20):
        now += 10
        views = {"on-demand": view(now, 40.0, 2), "spot": view(now, 50.0, 3)}
        decisions, memory = decide_all(policies, {}, None, memory, views)
    before = {name: one.size for name, one in decisions.items()}
    for _ in range(20):
        now += 10
        decisions, memory = decide_all(
            policies, {}, None, memory, {"on-demand": view(now, 400.0, 2)}
        )
        assert {name: one.size for name, one in decisions.items()} == before


def test_two_pools_as_one():
    first = view(10.0, 30.0, 3, readings={Measure.KV: Reading(0.4, 9.0)}, fits=4, idle_seconds=5.0)
    second = view(10.0, 10.0, 1, readings={Measure.KV: Reading(0.8, 8.0)}, fits=2, idle_seconds=3.0)
    both = together(first, second)
    assert (both.ready, both.fits, both.idle_seconds) == (4, 6, 3.0)
    assert both.readings[Measure.KV] == Reading(0.5, 8.0)
    assert both.traffic is not None
    assert both.traffic.arrivals == 400.0
    assert together(first, replace(second, traffic=None)).traffic is None
