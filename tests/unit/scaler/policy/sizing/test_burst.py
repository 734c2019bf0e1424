"""Bursts: when they begin, how long they last, and that nothing goes meanwhile."""

import math
from dataclasses import replace

import pytest

from services.scaler.policy.sizing.burst import burst_until
from services.scaler.policy.sizing.settings import (
    Behavior,
    Burst,
    Direction,
    Measure,
    Scale,
    Signal,
    Work,
)
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Reading
from tests.making.sizing import BEST, H100, scale, settled, view

BURST = Burst(window_seconds=6.0, threshold=2.0, keep_seconds=60.0)


@pytest.mark.parametrize(
    ("before", "demand", "until"),
    [
        (None, 5.9, None),
        (None, 6.0, 160.0),
        (130.0, 1.0, 130.0),  # it goes on
        (130.0, 7.0, 160.0),  # and on
        (100.0, 1.0, None),  # and is over
    ],
)
def test_when_it_begins_and_ends(before, demand, until):
    assert burst_until(BURST, before, 100.0, demand=demand, doable=3.0) == until


def test_one_replica_at_least_is_assumed():
    assert burst_until(BURST, None, 100.0, demand=1.5, doable=0.0) is None


def test_in_a_burst_the_short_window_counts_and_nothing_goes():
    windows = Behavior(scale_up=Direction(stabilization_window_seconds=600.0))
    policy = scale(
        work=Work(capacity=H100, window_seconds=600.0, hold=0.0), burst=BURST, behavior=windows
    )
    memory, now, decision = settled(policy, 0.5 * BEST, size=1)
    assert decision.size == 1
    decision, memory = decide(policy, memory, view(now + 10, 6.0 * BEST, 1))
    size = decision.size
    assert size >= 5
    assert decision.constraints[-1].bound is Bound.BURST
    for tick in range(2, 7):
        decision, memory = decide(policy, memory, view(now + 10 * tick, 0.1 * BEST, size))
        assert decision.size == size
    decision, memory = decide(policy, memory, view(now + 75, 0.1 * BEST, size))
    assert decision.size < size


def test_without_demand_in_work_places_tell():
    policy = Scale(max=9, work=None, burst=BURST)
    crowded = view(10.0, 1.0, 2, places=10, running=20.0, waiting=25.0)
    decision, memory = decide(policy, SizeMemory(2), crowded)
    assert memory.burst == 70.0
    assert decision.size == 2


@pytest.mark.parametrize("broken", [-30.0, math.nan, -math.inf])
@pytest.mark.parametrize("count", ["running", "waiting"])
def test_a_count_that_is_none_takes_nothing_from_the_other(count, broken):
    policy = Scale(max=9, work=None, burst=BURST, signals={Measure.KV: Signal(target=0.8)})
    seen = view(10.0, 1.0, 4, places=10, running=85.0, waiting=85.0)
    calm = replace(seen, readings={Measure.KV: Reading(0.1, 10.0)})
    decision, _ = decide(policy, SizeMemory(4), replace(calm, **{count: broken}))
    assert decision.size == 4
    assert decision.constraints[-1].bound is Bound.BURST
    none = replace(calm, running=broken, waiting=broken)
    assert decide(policy, SizeMemory(4), none)[0].size == 1


def test_a_crowd_without_end_is_told_as_a_number():
    policy = Scale(max=9, work=None, burst=BURST, signals={Measure.KV: Signal(target=0.8)})
    seen = view(10.0, 1.0, 4, running=math.inf, readings={Measure.KV: Reading(0.1, 10.0)})
    decision, _ = decide(policy, SizeMemory(4), seen)
    assert decision.size == 4
    assert math.isfinite(decision.constraints[-1].value or math.inf)
