"""Who gives up its work, and when it has; with slots below, whether pools find their size."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy import replicas as slots
from services.scaler.policy.draining import (
    Drain,
    Loaded,
    Release,
    ReplicaState,
    decide,
    in_flight,
)

NOW = 1000.0
STARTING, READY, DRAINING = ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING


def replica(name: str, state: ReplicaState = READY, **changes) -> Loaded:
    return replace(Loaded(name, state, since=NOW - 5, in_flight=0), **changes)


def decided(*replicas: Loaded, size: int = 2):
    return decide(size, replicas, drain_seconds=30.0, now=NOW)


loads = st.builds(
    Loaded,
    id=st.sampled_from("abcdefgh"),
    state=st.sampled_from((STARTING, READY, DRAINING)),
    since=st.floats(0, NOW),
    in_flight=st.none() | st.integers(0, 5),
    outdated=st.booleans(),
    leaving=st.sampled_from(("", "it is taken away")),
)


@given(st.lists(loads, unique_by=lambda one: one.id, max_size=8), st.integers(0, 8))
def test_each_replica_gets_at_most_one_action_with_a_reason(replicas: Sequence[Loaded], size: int):
    actions = decided(*replicas, size=size)
    states = {one.id: one.state for one in replicas}
    assert len({action.replica for action in actions}) == len(actions)
    assert all(action.reason for action in actions)
    assert all(states[a.replica] is READY for a in actions if isinstance(a, Drain))
    assert all(states[a.replica] is not READY for a in actions if isinstance(a, Release))


@given(st.lists(loads, unique_by=lambda one: one.id, max_size=8), st.integers(0, 8))
def test_never_fewer_than_wanted_unless_the_target_takes_them(
    replicas: Sequence[Loaded], size: int
):
    gone = {action.replica for action in decided(*replicas, size=size)}
    counted = [
        one
        for one in replicas
        if one.state is not DRAINING and not one.outdated and not one.leaving
    ]
    left = [one for one in counted if one.id not in gone]
    assert len(left) == min(size, len(counted))


def test_the_least_loaded_is_drained_and_unknown_load_counts_as_most():
    actions = decided(
        replica("a", in_flight=None), replica("b", in_flight=3), replica("c", in_flight=1)
    )
    assert actions == (Drain("c", "the pool wants 2 and has 3"),)


def test_of_equally_loaded_ones_the_oldest_is_drained():
    actions = decided(
        replica("a", started_at=9.0), replica("b", started_at=3.0), replica("c", started_at=6.0)
    )
    assert actions == (Drain("b", "the pool wants 2 and has 3"),)


def test_a_starting_replica_goes_before_a_ready_one():
    actions = decided(replica("a"), replica("b"), replica("c", STARTING))
    assert actions == (Release("c", "the pool wants 2 and has 3"),)


def test_one_that_is_being_replaced_does_not_count_and_stays():
    assert decided(replica("a", outdated=True), replica("b", STARTING), replica("c")) == ()


@pytest.mark.parametrize(("state", "action"), [(STARTING, Release), (READY, Drain)])
def test_one_that_its_target_takes_away_lets_go_of_its_work(state, action):
    leaving = replica("a", state, leaving="spot notice")
    assert decided(leaving, replica("b"), replica("c")) == (action("a", "spot notice"),)


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
    draining = replica("c", DRAINING, since=NOW - held, in_flight=running)
    actions = decided(replica("a"), replica("b"), draining)
    assert actions == ((Release("c", expected),) if expected else ())


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


@st.composite
def on_slots(draw):
    """A pool's goal, what stands on its slots, and what failed there."""
    count = draw(st.integers(1, 6))
    goal = slots.Goal(draw(st.integers(0, count)), count, draw(st.floats(3, 100)))
    times = st.floats(0, 2000, allow_nan=False)
    taken = draw(st.lists(st.integers(0, count + 1), unique=True, max_size=count + 2))
    fleet = {
        f"r{slot}": slots.Observed(
            id=f"r{slot}",
            slot=slot,
            state=draw(st.sampled_from(slots.State)),
            since=draw(times),
            answered_at=draw(times),
            outdated=draw(st.booleans()),
            fault="it died",
        )
        for slot in taken
    }
    failures = {
        slot: slots.Failures(draw(st.integers(1, 100)), draw(times), "it died")
        for slot in range(count)
        if draw(st.booleans())
    }
    return goal, fleet, failures, 2000.0 + draw(times)


@settings(max_examples=25)
@given(on_slots(), st.integers(0, 6))
def test_a_pool_on_slots_finds_each_size_and_then_rests(situation, resized):
    """Both policies over one pool, as fleet and target run them."""
    goal, fleet, failures, now = situation
    for size in (goal.size, min(resized, goal.slots)):
        goal = replace(goal, size=size)
        quiet = 0
        for step in range(300):
            now += 1.0
            quiet += 1
            for action in decide(size, _seen(goal, fleet), drain_seconds=30.0, now=now):
                quiet = 0
                name = action.replica
                if isinstance(action, Drain):
                    drained = {"state": slots.State.DRAINING, "since": now}
                else:
                    drained = {"released": True}
                fleet[name] = replace(fleet[name], **drained)
            for action in slots.decide(goal, list(fleet.values()), failures, slots.Patience(), now):
                quiet = 0
                match action:
                    case slots.Start(slot):
                        name = f"n{now}-{step}-{slot}"
                        fleet[name] = slots.Observed(name, slot, slots.State.STARTING, now, now)
                    case slots.Retire(name):
                        fleet[name] = replace(fleet[name], state=slots.State.DRAINING, since=now)
                    case slots.Stop(name):
                        fleet[name] = replace(fleet[name], state=slots.State.ENDING, since=now)
            _live(fleet, now)
        assert quiet >= 10
        assert [one.state for one in fleet.values()] == [slots.State.READY] * size
        assert not any(one.outdated or one.slot >= goal.slots for one in fleet.values())


def _seen(goal: slots.Goal, fleet: dict[str, slots.Observed]) -> list[Loaded]:
    shown = {
        slots.State.STARTING: STARTING,
        slots.State.READY: READY,
        slots.State.DRAINING: DRAINING,
    }
    return [
        Loaded(
            one.id,
            shown[one.state],
            one.since,
            in_flight=0,
            outdated=one.outdated or one.slot >= goal.slots,
        )
        for one in fleet.values()
        if one.state in shown and not one.released
    ]


def _live(fleet: dict[str, slots.Observed], now: float) -> None:
    """What becomes of replicas in a second: they end, get ready, answer."""
    for name, one in list(fleet.items()):
        if one.state is slots.State.ENDING and now > one.since:
            del fleet[name]
        elif one.state is slots.State.STARTING and now - one.since >= 0.5:
            fleet[name] = replace(one, state=slots.State.READY, since=now, answered_at=now)
        elif one.state is slots.State.READY:
            fleet[name] = replace(one, answered_at=now)


def test_where_replicas_can_only_go_in_one_order_it_is_that_order():
    groups = [
        Loaded(id=f"g-{index}", state=state, since=0.0, in_flight=index, index=index)
        for index, state in enumerate([ReplicaState.STARTING, READY, READY])
    ]
    assert [action.replica for action in decide(2, groups, drain_seconds=9, now=0)] == ["g-2"]
    assert [action.replica for action in decide(1, groups, drain_seconds=9, now=0)] == [
        "g-2",
        "g-1",
    ]
