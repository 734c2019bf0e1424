"""Overrides: above the policy, below the hardware, and gone when their time is over."""

import pytest

from services.scaler.policy.sizing.override import (
    Override,
    OverrideKind,
    in_force,
    named,
    unsigned,
)
from services.scaler.policy.sizing.settings import Budget, BudgetShare, Resource
from services.scaler.policy.sizing.size import (
    AllMemory,
    PoolPolicy,
    SizeMemory,
    decide,
    decide_all,
)
from services.scaler.policy.sizing.views import Bound
from tests.making.sizing import scale, settled, view

POLICY = scale(min=2, max=8)
LATER = 4e9


def decided(override: Override, rate: float, size: int = 5, **changes):
    memory, now, _ = settled(POLICY, rate, size=size)
    memory = SizeMemory(size, memory.now, memory.work, memory.past)
    return decide(POLICY, memory, view(now + 10, rate, size, **changes), override)[0]


@pytest.mark.parametrize(
    ("kind", "size", "rate", "result"),
    [
        (OverrideKind.PAUSE, 0, 10.0, 5),
        (OverrideKind.PAUSE, 0, 160.0, 5),
        (OverrideKind.PIN, 3, 160.0, 3),
        (OverrideKind.PIN, 1, 160.0, 1),  # below `min` too
        (OverrideKind.PIN, 0, 160.0, 0),
        (OverrideKind.PIN, 99, 10.0, 8),  # not above `max`
        (OverrideKind.NO_SCALE_DOWN, 0, 10.0, 5),
        (OverrideKind.NO_SCALE_DOWN, 0, 160.0, 8),
    ],
)
def test_what_each_kind_does(kind, size, rate, result):
    decision = decided(Override(kind, LATER, size, "ada", "a launch"), rate)
    assert decision.size == result
    said = [one for one in decision.constraints if one.bound is Bound.OVERRIDE]
    assert [one.detail for one in said] == [f"{named(kind, size)} by ada"]


def test_it_ends_by_itself():
    override = Override(OverrideKind.PIN, 100.0, 3)
    assert in_force(override, 99.9) is override
    assert in_force(override, 100.0) is None
    assert decided(Override(OverrideKind.PIN, 1.0, 7), 10.0).size == 2


def test_nobody_can_pin_more_than_there_is_room_for():
    decision = decided(Override(OverrideKind.PIN, 1_900_000_000.0, 7, "ada"), 10.0, fits=4)
    assert decision.size == 4
    assert decision.why == (
        "4 replicas: pin at 7 by ada until 2030-03-17 17:46 UTC, but there is room for 4."
    )
    assert decision.why_not_more == "Not 5: there is room for 4, and 7 are asked for."


def test_a_pin_that_max_cuts_is_still_named():
    decision = decided(Override(OverrideKind.PIN, 1_900_000_000.0, 9, "ada"), 160.0)
    assert decision.why == (
        "8 replicas: pin at 9 by ada until 2030-03-17 17:46 UTC, but the most is 8."
    )
    assert decision.why_not_more == "Not 9: the most is 8, and 9 are asked for."


def test_each_kind_has_one_name():
    kinds = {kind: named(kind, 2) for kind in OverrideKind}
    assert list(kinds.values()) == ["pause", "pin at 2", "no scale down"]


def test_it_is_said_until_when_it_holds():
    decision = decided(Override(OverrideKind.PIN, 1_900_000_000.0, 3, "ada"), 160.0)
    assert decision.why == "3 replicas: pin at 3 by ada until 2030-03-17 17:46 UTC."
    assert decision.why_not_fewer == "Not 2: pin at 3 by ada until 2030-03-17 17:46 UTC."
    assert decision.why_not_more == "Not 4: pin at 3 by ada until 2030-03-17 17:46 UTC."


@pytest.mark.parametrize("kind", OverrideKind)
def test_unsigned_it_says_all_but_who_set_it(kind):
    decision = decided(Override(kind, 1_900_000_000.0, 3, "ada by hand"), 10.0)
    nobodys = decided(Override(kind, 1_900_000_000.0, 3), 10.0)
    assert unsigned(decision) == nobodys != decision
    assert unsigned(nobodys) is nobodys


def test_a_pin_goes_before_the_wishes_of_others_but_not_over_a_budget():
    shares = {"a": BudgetShare(priority=0), "b": BudgetShare(priority=5)}
    gpus = {"gpus": Budget(of=Resource.GPUS, limit=6.0, pools=shares)}
    policies = {
        "a": PoolPolicy(scale(max=8), override=Override(OverrideKind.PIN, LATER, 4)),
        "b": PoolPolicy(scale(max=8)),
        "fixed": PoolPolicy(None, 2, override=Override(OverrideKind.PIN, LATER, 3)),
    }
    memory, now = AllMemory(), 0.0
    for _ in range(20):
        now += 10
        views = {name: view(now, 160.0, 3) for name in policies}
        decisions, memory = decide_all(policies, gpus, None, memory, views)
    assert {name: one.size for name, one in decisions.items()} == {"a": 4, "b": 2, "fixed": 3}
    policies["a"] = PoolPolicy(scale(max=8), override=Override(OverrideKind.PIN, LATER, 8))
    views = {name: view(now + 10, 160.0, 3) for name in policies}
    decisions, _ = decide_all(policies, gpus, None, memory, views)
    assert decisions["a"].size == 5  # `b` keeps its least
    assert decisions["b"].size == 1
