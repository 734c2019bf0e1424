"""The scaler's policy: invariants for all inputs, and timelines that read like incidents."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.replicas import (
    Drain,
    Failures,
    Goal,
    Hold,
    Observed,
    Patience,
    Start,
    State,
    Stop,
    Wait,
    after_failure,
    decide,
    in_flight,
    trouble,
)

PATIENCE = Patience()
GOAL = Goal(size=2, slots=3, start_seconds=60, drain_seconds=30)
NOW = 1000.0


def replica(slot: int, state: State = State.READY, **changes) -> Observed:
    one = Observed(id=f"r{slot}", slot=slot, state=state, since=NOW - 5, answered_at=NOW)
    return replace(one, **changes)


def decided(*replicas: Observed, goal=GOAL, failures=None, now=NOW):
    return decide(goal, replicas, failures or {}, PATIENCE, now)


times = st.floats(0, 2000, allow_nan=False)


@st.composite
def situations(draw):
    slots = draw(st.integers(1, 6))
    goal = Goal(draw(st.integers(0, slots)), slots, draw(st.floats(3, 100)), 30.0)
    taken = draw(st.lists(st.integers(0, slots + 1), unique=True, max_size=slots + 2))
    replicas = [
        Observed(
            id=f"r{slot}",
            slot=slot,
            state=draw(st.sampled_from(State)),
            since=draw(times),
            answered_at=draw(times),
            in_flight=draw(st.none() | st.integers(0, 5)),
            outdated=draw(st.booleans()),
            fault="it died",
        )
        for slot in taken
    ]
    failures = {
        slot: Failures(draw(st.integers(1, 100)), draw(times), "it died")
        for slot in range(slots)
        if draw(st.booleans())
    }
    return goal, replicas, failures, 2000.0 + draw(times)


@settings(deadline=None, max_examples=50)
@given(situations())
def test_never_two_on_a_slot_and_never_more_than_slots(situation):
    goal, replicas, failures, now = situation
    starts = [a.slot for a in decide(goal, replicas, failures, PATIENCE, now) if type(a) is Start]
    taken = {one.slot for one in replicas}
    assert len(starts) == len(set(starts))
    assert not taken & set(starts)
    assert all(0 <= slot < goal.slots for slot in starts)


@settings(deadline=None, max_examples=50)
@given(situations())
def test_each_replica_gets_at_most_one_action_and_each_action_a_reason(situation):
    goal, replicas, failures, now = situation
    actions = decide(goal, replicas, failures, PATIENCE, now)
    named = [action.replica for action in actions if isinstance(action, Drain | Stop)]
    assert len(named) == len(set(named))
    states = {one.id: one.state for one in replicas}
    assert all(action.reason for action in actions)
    assert all(states[a.replica] is State.READY for a in actions if type(a) is Drain)
    assert all(states[a.replica] is not State.ENDING for a in actions if type(a) is Stop)


@settings(deadline=None, max_examples=50)
@given(situations())
def test_never_starts_before_a_slot_is_due(situation):
    goal, replicas, failures, now = situation
    for action in decide(goal, replicas, failures, PATIENCE, now):
        if isinstance(action, Start) and action.slot in failures:
            assert failures[action.slot].due(PATIENCE) <= now
        if isinstance(action, Wait):
            assert action.until > now


@settings(deadline=None, max_examples=50)
@given(situations())
def test_holds_still_when_nothing_can_be_seen(situation):
    goal, _, failures, now = situation
    actions = decide(goal, None, failures, PATIENCE, now)
    assert actions == (Hold("the replicas cannot be observed"),)
    assert trouble(goal, None, failures, actions, now)


@settings(deadline=None, max_examples=25)
@given(situations())
def test_converges_to_its_size_and_then_rests(situation):
    goal, replicas, failures, now = situation
    failures = dict(failures)
    fleet = {one.id: one for one in replicas}
    quiet = 0
    for step in range(300):
        now += 1.0
        actions = decide(goal, list(fleet.values()), failures, PATIENCE, now)
        quiet = quiet + 1 if not actions else 0
        for action in actions:
            match action:
                case Start(slot):
                    fleet[f"n{step}-{slot}"] = Observed(
                        f"n{step}-{slot}", slot, State.STARTING, now, now
                    )
                case Drain(name):
                    fleet[name] = replace(fleet[name], state=State.DRAINING, since=now, in_flight=0)
                case Stop(name):
                    fleet[name] = replace(fleet[name], state=State.ENDING, since=now)
        for name, one in list(fleet.items()):
            if one.state is State.ENDING and now > one.since:
                del fleet[name]
            elif one.state is State.STARTING and now - one.since >= 0.5:
                fleet[name] = replace(one, state=State.READY, since=now, answered_at=now)
            elif one.state is State.READY:
                fleet[name] = replace(one, answered_at=now)
    assert quiet >= 10
    assert [one.state for one in fleet.values()] == [State.READY] * goal.size
    assert not any(one.outdated or one.slot >= goal.slots for one in fleet.values())


def test_an_empty_pool_is_filled():
    starts = decided()
    assert [start.slot for start in starts] == [0, 1]
    assert starts[0].reason == "the pool wants 2 and has 0"


def test_a_full_pool_is_left_alone():
    assert decided(replica(0), replica(1)) == ()


def test_the_least_loaded_is_drained_and_unknown_load_counts_as_most():
    actions = decided(replica(0, in_flight=None), replica(1, in_flight=3), replica(2, in_flight=1))
    assert actions == (Drain("r2", "the pool wants 2 and has 3"),)


def test_a_starting_replica_goes_before_a_ready_one():
    actions = decided(replica(0), replica(1), replica(2, State.STARTING))
    assert actions == (Stop("r2", "the pool wants 2 and has 3", failed=False),)


def test_a_replica_that_is_not_ready_in_time_is_a_failure():
    late = replica(0, State.STARTING, since=NOW - 60)
    stop, start = decided(late, replica(1))
    assert stop == Stop("r0", "not ready after 60 s", failed=True)
    assert start.slot == 2  # its own slot is not clear yet


@pytest.mark.parametrize(
    ("held", "running", "expected"),
    [
        (0.2, 0, None),
        (0.6, 0, "drained"),
        (29.0, 3, None),
        (29.0, None, None),
        (30.0, 3, "3 requests left after draining 30 s"),
        (30.0, None, "an unknown number of requests left after draining 30 s"),
    ],
)
def test_a_drain_ends_when_nothing_runs_or_time_is_up(held, running, expected):
    draining = replica(2, State.DRAINING, since=NOW - held, in_flight=running)
    stops = decided(replica(0), replica(1), draining)
    assert [stop.reason for stop in stops] == ([expected] if expected else [])


def test_silence_replaces_one_at_a_time():
    silent = [replica(slot, answered_at=NOW - 31 - slot) for slot in range(2)]
    stop, start = decided(*silent)
    assert stop == Stop("r1", "has not answered for 30 s", failed=True)
    assert start.slot == 2
    moving = replica(2, State.STARTING)
    assert decided(*silent, moving, goal=replace(GOAL, size=3)) == ()


def test_a_failing_slot_waits_twice_as_long_each_time():
    failures, waits = None, []
    for _ in range(9):
        failures = after_failure(failures, 0.0, PATIENCE, NOW, "its port is taken")
        waits.append(failures.due(PATIENCE) - NOW)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_long_service_clears_earlier_failures():
    before = Failures(7, 0.0, "it died")
    assert after_failure(before, 29.0, PATIENCE, NOW, "it died").count == 8
    assert after_failure(before, 30.0, PATIENCE, NOW, "it died").count == 1


def test_another_slot_is_tried_first():
    failures = {0: Failures(1, NOW - 5, "port 18101 is taken")}
    goal = replace(GOAL, size=1, slots=2)
    assert [start.slot for start in decided(goal=goal, failures=failures)] == [1]


def test_trouble_says_what_fails_and_when_it_is_tried_again():
    goal = replace(GOAL, size=1, slots=1)
    failures = {0: Failures(6, NOW - 1, "port 18101 is taken")}
    actions = decided(goal=goal, failures=failures)
    assert actions == (
        Wait(
            NOW + 15,
            "slot 0: failed 6 times in a row, last because port 18101 is taken; quarantined",
        ),
    )
    assert trouble(goal, [], failures, actions, NOW).endswith("; quarantined; next try in 15 s")
    again = [replica(0, State.STARTING)]
    assert trouble(goal, again, failures, (), NOW).endswith("is taken; trying again")
    assert trouble(goal, [replica(0)], failures, (), NOW) == ""


def test_outdated_replicas_are_replaced_without_losing_capacity():
    goal = replace(GOAL, size=1, slots=2)
    old = replica(0, outdated=True)
    assert [start.slot for start in decided(old, goal=goal)] == [1]
    assert decided(old, replica(1, State.STARTING), goal=goal) == ()
    assert [a.replica for a in decided(old, replica(1), goal=goal)] == ["r0"]


def test_an_outdated_replica_gives_up_its_slot_when_there_is_no_other():
    goal = replace(GOAL, size=1, slots=1)
    drain, hold = decided(replica(0, outdated=True), goal=goal)
    assert (type(drain), type(hold)) == (Drain, Hold)


@pytest.mark.parametrize(
    ("engine", "routers", "expected"),
    [
        (0, [], 0),
        (0, [0, 0], 0),
        (0, [0, None], None),
        (0, [2, None], 2),
        (None, [], None),
        (None, [0], 0),
        (None, [1, 2], 3),
        (5, [1], 5),
        (5, [None], 5),
    ],
)
def test_zero_in_flight_needs_everybodys_word(engine, routers, expected):
    assert in_flight(engine, routers) == expected
