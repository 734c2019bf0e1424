"""Replicas on slots: invariants for all inputs, and timelines that read like incidents."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.replicas import (
    Failures,
    Goal,
    Hold,
    Observed,
    Patience,
    Retire,
    Start,
    State,
    Stop,
    Wait,
    after_failure,
    decide,
    trouble,
)

PATIENCE = Patience()
GOAL = Goal(size=2, slots=3, start_seconds=60)
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
    goal = Goal(draw(st.integers(0, slots)), slots, draw(st.floats(3, 100)))
    taken = draw(st.lists(st.integers(0, slots + 1), unique=True, max_size=slots + 2))
    replicas = [
        Observed(
            id=f"r{slot}",
            slot=slot,
            state=draw(st.sampled_from(State)),
            since=draw(times),
            answered_at=draw(times),
            outdated=draw(st.booleans()),
            released=draw(st.booleans()),
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


@settings(max_examples=50)
@given(situations())
def test_never_two_on_a_slot_and_never_more_than_slots(situation):
    goal, replicas, failures, now = situation
    starts = [a.slot for a in decide(goal, replicas, failures, PATIENCE, now) if type(a) is Start]
    taken = {one.slot for one in replicas}
    assert len(starts) == len(set(starts))
    assert not taken & set(starts)
    assert all(0 <= slot < goal.slots for slot in starts)


@settings(max_examples=50)
@given(situations())
def test_each_replica_gets_at_most_one_action_and_each_action_a_reason(situation):
    goal, replicas, failures, now = situation
    actions = decide(goal, replicas, failures, PATIENCE, now)
    named = [action.replica for action in actions if isinstance(action, Retire | Stop)]
    assert len(named) == len(set(named))
    states = {one.id: one.state for one in replicas}
    assert all(action.reason for action in actions)
    assert all(states[a.replica] is State.READY for a in actions if type(a) is Retire)
    assert all(states[a.replica] is not State.ENDING for a in actions if type(a) is Stop)


@settings(max_examples=50)
@given(situations())
def test_never_starts_before_a_slot_is_due(situation):
    goal, replicas, failures, now = situation
    for action in decide(goal, replicas, failures, PATIENCE, now):
        if isinstance(action, Start) and action.slot in failures:
            assert failures[action.slot].due(PATIENCE) <= now
        if isinstance(action, Wait):
            assert action.until > now


def test_of_outdated_replicas_one_that_still_starts_goes_first():
    actions = decided(
        replica(0, outdated=True), replica(1), replica(2, State.STARTING, outdated=True)
    )
    gone = [one for one in actions if isinstance(one, (Retire, Stop))]
    assert gone == [Stop("r2", "its settings are not the pool's any more", failed=False)]


def test_a_released_replica_is_ended_and_not_for_a_failure():
    released = replica(2, State.DRAINING, released=True)
    assert decided(replica(0), replica(1), released) == (Stop("r2", "released", failed=False),)
    starting = replica(2, State.STARTING, released=True, since=NOW - 100)
    assert decided(replica(0), replica(1), starting) == (Stop("r2", "released", failed=False),)


def test_an_empty_pool_is_filled():
    starts = decided()
    assert [start.slot for start in starts] == [0, 1]
    assert starts[0].reason == "the pool wants 2 and has 0"


def test_a_full_pool_is_left_alone():
    assert decided(replica(0), replica(1)) == ()


def test_a_replica_that_is_not_ready_in_time_is_a_failure():
    late = replica(0, State.STARTING, since=NOW - 60)
    stop, start = decided(late, replica(1))
    assert stop == Stop("r0", "it was not ready after 60 s", failed=True)
    assert start.slot == 2  # its own slot is not clear yet


def test_silence_replaces_one_at_a_time():
    silent = [replica(slot, answered_at=NOW - 31 - slot) for slot in range(2)]
    stop, start = decided(*silent)
    assert stop == Stop("r1", "it has not answered for 30 s", failed=True)
    assert start.slot == 2
    moving = replica(2, State.STARTING)
    assert decided(*silent, moving, goal=replace(GOAL, size=3)) == ()


def test_a_failing_slot_waits_twice_as_long_each_time():
    failures, waits = None, []
    for _ in range(9):
        failures = after_failure(failures, 0.0, PATIENCE, NOW, "its port is taken")
        waits.append(failures.due(PATIENCE) - NOW)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert replace(failures, count=10_000).due(PATIENCE) - NOW == 60


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
    retire, hold = decided(replica(0, outdated=True), goal=goal)
    assert (type(retire), type(hold)) == (Retire, Hold)


def test_an_outdated_replica_serves_on_while_another_starts_on_the_last_slot():
    goal = replace(GOAL, size=3, slots=3)
    old = [replica(slot, outdated=True) for slot in (0, 1)]
    assert decided(*old, replica(2, State.STARTING), goal=goal) == ()
    retire, hold = decided(*old, replica(2), goal=goal)
    assert (type(retire), type(hold)) == (Retire, Hold)
