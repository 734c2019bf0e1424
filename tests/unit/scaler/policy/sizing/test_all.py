"""All pools at once: those that were never seen, cannot be seen, or have a fixed size."""

import math

import pytest

from services.scaler.policy.sizing.settings import Budget, BudgetShare, Money, Resource
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, decide, decide_all
from services.scaler.policy.sizing.views import Bound
from tests.making.sizing import scale, settled, view


def test_a_pool_by_itself_is_decided_as_alone():
    policy = scale()
    memory, now, _ = settled(policy, 60.0, size=3)
    seen = view(now + 10, 80.0, 3, usd_per_hour=2.0)
    alone, kept = decide(policy, memory, seen)
    decisions, after = decide_all(
        {"a": PoolPolicy(policy)}, {}, None, AllMemory(pools={"a": memory}), {"a": seen}
    )
    assert decisions == {"a": alone}
    assert after.pools == {"a": kept}


def test_a_pool_that_was_never_seen_has_no_decision_and_then_begins_with_what_is_there():
    policies = {"a": PoolPolicy(scale()), "b": PoolPolicy(None, 2)}
    decisions, memory = decide_all(policies, {}, None, AllMemory(), {})
    assert decisions.keys() == {"b"}
    views = {"a": view(10.0, 5.0, 3, starting=1)}
    decisions, memory = decide_all(policies, {}, None, memory, views)
    assert decisions["a"].before == decisions["a"].size == 4  # nothing shrinks at the beginning


def test_a_pool_that_cannot_be_seen_keeps_its_size_and_its_part_of_a_budget():
    shares = {"a": BudgetShare(), "b": BudgetShare()}
    gpus = {"gpus": Budget(of=Resource.GPUS, limit=8.0, pools=shares)}
    policies = {"a": PoolPolicy(scale()), "b": PoolPolicy(scale())}
    memory, now = AllMemory(), 0.0
    sizes = {"a": 5, "b": 1}
    for _ in range(20):
        now += 10
        views = {"a": view(now, 90.0, sizes["a"]), "b": view(now, 5.0, sizes["b"])}
        decisions, memory = decide_all(policies, gpus, None, memory, views)
        sizes = {name: one.size for name, one in decisions.items()}
    lost = sizes["a"]
    for _ in range(20):
        now += 10
        seen = {"b": view(now, 400.0, sizes["b"])}
        decisions, memory = decide_all(policies, gpus, None, memory, seen)
        sizes = {name: one.size for name, one in decisions.items()}
    assert sizes == {"a": lost, "b": 8 - lost}
    assert decisions["a"].constraints[-1].bound is Bound.STALE


def test_a_fixed_size_is_what_the_policy_says():
    for size in (2, 5):
        decisions, _ = decide_all(
            {"a": PoolPolicy(None, size)}, {}, None, AllMemory(), {"a": view(10.0, 90.0, 1)}
        )
        assert decisions["a"].size == size
        assert decisions["a"].why == f"{size} replicas: the policy names a fixed size of {size}."


def test_a_trouble_of_one_pool_changes_nothing_for_others():
    policies = {"a": PoolPolicy(scale()), "b": PoolPolicy(scale())}
    memory, now = AllMemory(), 0.0
    for _ in range(10):
        now += 10
        views = {"a": view(now, 60.0, 3), "b": view(now, None, 0, fits=0, start_seconds=-1.0)}
        decisions, memory = decide_all(policies, {}, None, memory, views)
    alone, _ = AllMemory(), None
    now = 0.0
    for _ in range(10):
        now += 10
        expected, alone = decide_all(
            {"a": policies["a"]}, {}, None, alone, {"a": view(now, 60.0, 3)}
        )
    assert decisions["a"] == expected["a"]


@pytest.mark.parametrize("price", [math.nan, math.inf, -5.0, 1e300])
def test_a_price_that_is_none_takes_no_money_from_others(price):
    policies = {"a": PoolPolicy(None, 4), "b": PoolPolicy(None, 4)}
    money = Money(usd_per_hour=6.0, usd_per_day=100.0)
    memory = AllMemory()
    for now in (10.0, 20.0):
        views = {
            "a": view(now, 1.0, usd_per_hour=price),
            "b": view(now, 1.0, usd_per_hour=2.0),
        }
        decisions, memory = decide_all(policies, {}, money, memory, views)
    assert {name: one.size for name, one in decisions.items()} == {"a": 4, "b": 3}
    assert [one.usd_per_hour for one in decisions.values()] == [0.0, 6.0]
    assert memory.spent.usd == pytest.approx(2 * 2.0 * 10 / 3600)
