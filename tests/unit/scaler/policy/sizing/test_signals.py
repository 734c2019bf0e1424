"""Signals with targets: sizes by ratio, what is not known, and pools with nothing to do."""

import math
from dataclasses import replace

import pytest

from services.scaler.policy.sizing.settings import (
    Behavior,
    Direction,
    Measure,
    Query,
    Scale,
    Signal,
)
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Decision, Reading
from tests.making.sizing import scale, view

NOW = 100.0
UTILISED = Scale(max=50, work=None, signals={Measure.RUNNING: Signal(target=0.5)})


def decided(policy: Scale, size: int, ready: int | None = None, **readings: float) -> Decision:
    seen = view(
        NOW,
        5.0,
        size if ready is None else ready,
        running=3.0,
        starting=size - (size if ready is None else ready),
        readings={name: Reading(value, NOW) for name, value in readings.items()},
    )
    return decide(policy, SizeMemory(size), seen)[0]


@pytest.mark.parametrize(
    ("value", "size"),
    # HPA's documentation: 200m against 100m doubles, 50m against 100m halves.
    [(1.0, 8), (0.25, 2), (0.5, 4), (0.51, 5), (0.37, 3), (0.01, 1)],
)
def test_the_size_is_the_ready_replicas_times_the_ratio(value, size):
    assert decided(UTILISED, 4, running=value).size == size


def test_starting_replicas_count_but_do_not_add_up():
    # Two of five are ready, with twice the load each: four are enough, five are on their way.
    assert decided(UTILISED, 5, ready=2, running=1.0).size == 4
    assert decided(UTILISED, 5, ready=2, running=1.25).size == 5


def test_while_none_is_ready_signals_take_nothing_away():
    decision = decided(UTILISED, 3, ready=0, running=0.0)
    assert decision.size == 3


def test_a_query_for_the_whole_pool_and_one_for_each_replica():
    queries = {"depth": Query(query="sum(depth)", target=10.0)}
    policy = Scale(max=50, work=None, queries=queries)
    assert decided(policy, 2, depth=45.0).size == 5
    assert decided(policy, 2, depth=20.0).size == 2
    queries = {"lag": Query(query="max(lag)", target=10.0, per_replica=False)}
    assert decided(Scale(max=50, work=None, queries=queries), 2, lag=45.0).size == 9


def test_within_the_tolerance_nothing_changes():
    behavior = Behavior(scale_up=Direction(tolerance=0.1), scale_down=Direction(tolerance=0.1))
    policy = Scale(max=50, work=None, signals=UTILISED.signals, behavior=behavior)
    assert decided(policy, 10, running=0.549).size == 10
    assert decided(policy, 10, running=0.451).size == 10
    assert decided(policy, 10, running=0.56).size == 12
    assert decided(policy, 10, running=0.44).size == 9


def test_of_several_the_largest_holds_and_is_named():
    signals = {Measure.RUNNING: Signal(target=0.5), Measure.WAITING: Signal(target=2.0)}
    decision = decided(Scale(max=50, work=None, signals=signals), 4, running=0.6, waiting=4.0)
    assert decision.size == 8
    assert decision.constraints[-1].detail == "waiting"
    assert decision.constraints[-1].value == 4.0
    assert decision.constraints[-1].limit == 2.0


def test_a_missing_signal_never_lets_a_pool_shrink_and_others_still_let_it_grow():
    signals = {Measure.RUNNING: Signal(target=0.5), Measure.KV: Signal(target=0.8)}
    policy = Scale(max=50, work=None, signals=signals)
    held = decided(policy, 4, running=0.1)
    assert held.size == 4
    assert held.constraints[-1].bound is Bound.STALE
    assert held.constraints[-1].detail == "kv"
    assert decided(policy, 4, running=1.0).size == 8


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_a_value_that_is_no_number_is_missing(value):
    assert decided(UTILISED, 4, running=value).size == 4


def test_an_old_reading_is_missing():
    seen = view(NOW, 5.0, 4, readings={Measure.RUNNING: Reading(0.1, NOW - 16)})
    assert decide(UTILISED, SizeMemory(4), seen)[0].size == 4
    seen = view(NOW, 5.0, 4, readings={Measure.RUNNING: Reading(0.1, NOW - 15)})
    assert decide(UTILISED, SizeMemory(4), seen)[0].size == 1


def idle(**changes):
    return view(NOW, 0.0, 4, running=0.0, **changes)


MEASURED = Scale(max=9, work=None, signals={Measure.TTFT_SECONDS: Signal(target=1.0)})
ASKED = Scale(max=9, work=None, queries={"rate": Query(query="a/b", target=1.0)})


def test_a_pool_that_has_no_values_since_it_is_idle_recovers():
    assert decide(MEASURED, SizeMemory(4), idle())[0].size == 1
    # The last value that was seen is no reason to stay either.
    old = {Measure.TTFT_SECONDS: Reading(9.0, NOW)}
    assert decide(MEASURED, SizeMemory(4), idle(readings=old))[0].size == 1


@pytest.mark.parametrize(
    "unknown",
    [{"traffic": None}, {"waiting": None}, {"running": None}, {"waiting": 1.0}, {"running": 2.0}],
)
def test_it_does_not_where_routers_do_not_say_that_it_is_idle(unknown):
    seen = replace(idle(), **unknown)
    assert decide(MEASURED, SizeMemory(4), seen)[0].size == 4


def test_a_query_of_an_idle_pool_that_answers_no_number_recovers_and_one_that_fails_does_not():
    nothing = idle(readings={"rate": Reading(math.nan, NOW)})
    assert decide(ASKED, SizeMemory(4), nothing)[0].size == 1
    assert decide(ASKED, SizeMemory(4), idle())[0].size == 4
    late = idle(readings={"rate": Reading(math.nan, NOW - 61)})
    assert decide(ASKED, SizeMemory(4), late)[0].size == 4
    busy = view(NOW, 5.0, 4, readings={"rate": Reading(math.nan, NOW)})
    assert decide(ASKED, SizeMemory(4), busy)[0].size == 4
    other = idle(readings={"rate": Reading(3.0, NOW)})
    assert decide(ASKED, SizeMemory(4), other)[0].size == 3


def test_signals_and_demand_together_the_largest_holds():
    policy = scale(signals={Measure.KV: Signal(target=0.5)})
    memory = SizeMemory(2)
    seen = view(NOW, 5.0, 2, readings={Measure.KV: Reading(0.9, NOW)})
    decision, _ = decide(policy, memory, seen)
    assert decision.size == 4
    assert decision.constraints[-1].detail == "kv"
