"""To zero when idle for long enough, and back at the first request."""

import pytest

from services.scaler.policy.sizing.settings import (
    Behavior,
    Direction,
    Measure,
    Query,
    Signal,
    Work,
    Zero,
)
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Reading
from tests.making.sizing import H100, scale, settled, view

POLICY = scale(min=0, zero=Zero(idle_seconds=120.0))


def course(policy, *, idle=0.0, ticks=40, rate=0.0, size=1, **changes):
    memory, now, sizes = SizeMemory(size), 1000.0, []
    for _ in range(ticks):
        now += 10
        idle = idle + 10 if rate == 0 else 0.0
        found = {"idle_seconds": idle, **changes}
        decision, memory = decide(policy, memory, view(now, rate, memory.size, **found))
        sizes.append(decision.size)
    return sizes, decision


def test_a_pool_goes_to_zero_after_its_idle_time_and_not_before():
    sizes, decision = course(POLICY)
    assert sizes.index(0) == 11
    assert sizes[11:] == [0] * 29
    assert decision.why == "0 replicas: it is at zero, and nothing asks for it."
    _, decision = course(POLICY, ticks=12)
    assert decision.why == "0 replicas: it has been idle for 120 s, and goes to zero after 120 s."


@pytest.mark.parametrize(
    "changes",
    [{"traffic": None}, {"waiting": None}, {"running": 1.0}, {"idle_seconds": None}],
)
def test_it_does_not_where_it_is_not_known_to_be_idle(changes):
    assert course(POLICY, idle=500.0, **changes)[0][-1] == 1


def test_without_the_key_one_stays_whatever_min_says():
    assert course(scale(min=0), idle=5000.0)[0][-1] == 1


def test_it_goes_to_zero_in_order_from_many():
    memory, now, decision = settled(POLICY, 100.0, size=5)
    assert decision.size >= 5
    sizes = []
    for tick in range(60):
        now += 10
        seen = view(now, 0.0, memory.size, idle_seconds=10.0 * tick)
        decision, memory = decide(POLICY, memory, seen)
        sizes.append(decision.size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


@pytest.mark.parametrize("idle", [0.0, 38.0, 500.0, None])
def test_a_pool_at_zero_does_not_say_that_its_idle_time_brought_it_there(idle):
    decision, _ = decide(POLICY, SizeMemory(0), view(10.0, 0.0, 0, idle_seconds=idle))
    assert decision.why == "0 replicas: it is at zero, and nothing asks for it."
    assert decision.why_not_more == "Not 1: nothing asks for more than 0."


@pytest.mark.parametrize("changes", [{"woken": True}, {"waiting": 1.0}])
def test_the_first_request_wakes_it(changes):
    memory = SizeMemory(0)
    asleep, memory = decide(POLICY, memory, view(10.0, 0.0, 0, idle_seconds=900.0))
    assert asleep.size == 0
    awake, _ = decide(POLICY, memory, view(20.0, 0.0, 0, **changes))
    assert awake.size == 1
    assert Bound.WOKEN in [one.bound for one in awake.constraints] or changes.get("waiting")


def test_rates_and_windows_upwards_never_keep_it_asleep():
    slow = Behavior(
        scale_up=Direction(stabilization_window_seconds=3600.0, select_policy="Disabled")
    )
    policy = scale(min=0, zero=Zero(), behavior=slow)
    assert decide(policy, SizeMemory(0), view(10.0, 0.0, 0, woken=True))[0].size == 1


def test_a_queue_elsewhere_keeps_it_awake_and_its_own_gauges_do_not():
    queries = {"jobs": Query(query="jobs", target=10.0)}
    policy = scale(min=0, zero=Zero(idle_seconds=60.0), queries=queries)
    memory, now = SizeMemory(1), 0.0
    for _ in range(30):
        now += 10
        jobs = {"jobs": Reading(3.0, now)}
        decision, memory = decide(
            policy, memory, view(now, 0.0, 1, idle_seconds=900.0, readings=jobs)
        )
    assert decision.size == 1
    gauge = scale(
        min=0, zero=Zero(idle_seconds=60.0), signals={Measure.KV: Signal(target=0.5)}, work=None
    )
    shown = view(10.0, 0.0, 1, idle_seconds=900.0, readings={Measure.KV: Reading(0.4, 10.0)})
    assert decide(gauge, SizeMemory(1), shown)[0].size == 0


def test_one_request_in_a_while_needs_no_more_than_one():
    policy = scale(min=0, zero=Zero(idle_seconds=60.0), work=Work(capacity=H100))
    sizes, _ = course(policy, rate=0.01, idle_seconds=5.0)
    assert set(sizes) == {1}
