"""Rules: fixed steps after a time, one after the other, never piled up."""

from services.scaler.policy.sizing.settings import Rule, Scale
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Reading
from tests.making.sizing import scale, traffic, view

UP = Rule(signal="kv", above=0.7, for_seconds=300.0, change=1)
DOWN = Rule(signal="kv", below=0.2, for_seconds=120.0, change=-1)
POLICY = Scale(max=6, work=None, rules=(UP, DOWN))


def walked(values, policy=POLICY, size=2, every=60.0, **changes):
    """Sizes, tick by tick; None: no value."""
    memory, now, sizes = SizeMemory(size), 0.0, []
    for value in values:
        now += every
        readings = {} if value is None else {"kv": Reading(value, now)}
        told = traffic(5.0, now, every)
        seen = view(now, 5.0, memory.size, readings=readings, traffic=told, **changes)
        decision, memory = decide(policy, memory, seen)
        sizes.append(decision.size)
    return sizes


def test_above_70_percent_for_5_minutes_one_more_and_again_after_5():
    assert walked([0.8] * 12) == [2] * 5 + [3] * 5 + [4] * 2


def test_a_break_begins_anew():
    assert walked([0.8] * 4 + [0.6] + [0.8] * 5) == [2] * 10
    assert walked([0.8] * 4 + [None] + [0.8] * 5) == [2] * 10
    assert walked([0.7] * 12) == [2] * 12  # not above


def test_below_for_a_time_one_fewer_down_to_the_least():
    assert walked([0.1] * 8, size=3) == [3, 3, 2, 2, 1, 1, 1, 1]


def test_while_replicas_start_no_rule_adds_more():
    assert walked([0.9] * 20, starting=1) == [2] * 20


def test_what_a_rule_added_stays_while_its_signal_is_beyond():
    policy = scale(rules=(UP,))
    sizes = walked([0.8] * 8 + [0.5] * 3, policy)
    # Demand alone would have one.
    assert sizes[5:8] == [sizes[4] + 1] * 3
    assert sizes[-1] == 1


def test_demand_that_asks_for_more_holds_against_a_downward_rule():
    policy = scale(rules=(DOWN,), min=2)
    assert walked([0.1] * 10, policy)[-1] == 2


def test_the_constraint_of_a_rule():
    memory, now = SizeMemory(2), 0.0
    for _ in range(6):
        now += 60
        seen = view(now, 5.0, memory.size, readings={"kv": Reading(0.93, now)})
        decision, memory = decide(POLICY, memory, seen)
    (constraint,) = [one for one in decision.constraints if one.bound is Bound.RULE][-1:]
    assert (constraint.detail, constraint.value, constraint.limit) == ("kv above 0.7", 0.93, 0.7)
    assert decision.why == "3 replicas: rule kv above 0.7: the signal is 0.93."
