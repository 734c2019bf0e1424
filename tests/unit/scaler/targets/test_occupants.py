"""Replicas on slots: their names, and what others may know of them."""

import re

import pytest

from services.scaler.policy.replicas import State
from services.scaler.targets.occupants import EXIT_SECONDS, Occupant, adopted, new_id
from services.scaler.targets.slots import Adopted
from services.scaler.targets.tritonserver import shared_memory_prefix
from tests.making.replicas import Host, pool


def test_ids_fit_where_they_are_used():
    name = new_id("p" * 32, 1023)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", name)
    assert name.startswith("p" * 32 + "-1023-")
    assert shared_memory_prefix(name).count("_") == 2


def occupant(state: State, **changes) -> Occupant:
    replica = Host().replica("a-0-x", "a", pool(), 0)
    return Occupant("a-0-x", "a", 0, state, since=1.0, **({"replica": replica} | changes))


def test_only_what_has_an_address_and_is_whole_is_shown():
    shown = {state: occupant(state).status(pool()) for state in State}
    assert {state for state, status in shown.items() if status} == {
        State.STARTING,
        State.READY,
        State.DRAINING,
    }
    assert [shown[s].ready for s in (State.STARTING, State.READY, State.DRAINING)] == [
        False,
        True,
        True,
    ]
    assert occupant(State.STARTING, replica=None).status(pool()) is None


def test_exits_that_pass_are_none():
    one = occupant(State.READY, ready_at=1.0)
    assert not one.heed_exit(10.0, exits=True)
    assert not one.heed_exit(12.0, exits=False)
    assert not one.heed_exit(14.0, exits=True)
    assert not one.heed_exit(14.0 + EXIT_SECONDS - 0.1, exits=True)
    assert one.heed_exit(14.0 + EXIT_SECONDS, exits=True)


def test_one_that_was_never_ready_does_not_exit():
    one = occupant(State.STARTING)
    assert not one.heed_exit(10.0, exits=True)
    assert not one.heed_exit(10.0 + EXIT_SECONDS, exits=True)


def test_other_settings_or_no_slot_any_more_make_it_outdated():
    one = occupant(State.READY)
    assert not one.outdated(pool())
    assert one.outdated(pool(parameters={"x": "1"}))
    assert one.outdated(None)
    assert Occupant("a-2-x", "a", 2, State.READY, since=1.0).outdated(pool())


@pytest.mark.parametrize("draining", [False, True])
def test_one_that_was_never_ready_is_adopted_as_it_starts(draining):
    replica = Host().replica("a-0-x", "a", pool(), 0)
    one = adopted(Adopted(replica, ready=False, draining=draining), pool(), 5.0)
    assert (one.state, one.ready_at, one.since) == (State.STARTING, None, 5.0)
