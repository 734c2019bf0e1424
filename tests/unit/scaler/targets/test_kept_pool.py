"""What is known of a pool, with time passed in."""

import dataclasses

from structlog.testing import capture_logs

from services.scaler.policy.replicas import NEXT_TRY, Patience, State
from services.scaler.policy.start_times import KEPT_STARTS
from services.scaler.targets.kept_pool import KeptPool, Wanted
from services.scaler.targets.occupants import Occupant
from tests.making.replicas import Host, pool

PATIENCE = Patience(stable_seconds=30.0)


def occupant(state: State, **changes) -> Occupant:
    return Occupant("a-0-x", "a", 0, state, since=1.0, **changes)


def test_nothing_is_to_be_started_in_a_pool_that_is_no_longer_configured_or_never_asked_for():
    gone = KeptPool("a", None)
    gone.wanted = Wanted(size=3)
    for kept in (gone, KeptPool("a", pool())):
        assert (kept.goal().size, kept.goal().slots) == (0, 0)
    assert (gone.labels, KeptPool("a", pool()).labels) == (("a", ""), ("a", pool().tier))


def test_its_size_and_slots_are_the_goal():
    kept = KeptPool("a", pool())
    kept.wanted = Wanted(size=1)
    assert (kept.goal().size, kept.goal().slots) == (1, len(pool().slots))


def test_failures_are_counted_by_slot_until_a_replica_has_served_long():
    kept = KeptPool("a", pool())
    for served in (0.0, 1.0):
        kept.failed(0, "it died", served_seconds=served, patience=PATIENCE, now=10.0)
    kept.failed(1, "it fell silent", served_seconds=0.0, patience=PATIENCE, now=11.0)
    assert {slot: failures.count for slot, failures in kept.failures.items()} == {0: 2, 1: 1}
    kept.failed(0, "it died", served_seconds=31.0, patience=PATIENCE, now=12.0)
    assert kept.failures[0].count == 1


def test_a_trouble_is_logged_once_while_only_its_time_passes():
    kept = KeptPool("a", pool())
    with capture_logs() as logs:
        for trouble in (f"slot 0 failed{NEXT_TRY}2 s", f"slot 0 failed{NEXT_TRY}1 s", "", ""):
            kept.note(trouble)
    assert [line["event"] for line in logs] == ["pool in trouble", "pool out of trouble"]


def test_what_others_see_of_it():
    kept = KeptPool("a", pool())
    assert kept.status([]).starts.typical_seconds is None
    for seconds in (100.0, *range(KEPT_STARTS)):
        kept.started(seconds)
    kept.note("no port is free")
    status = kept.status(
        [
            occupant(State.STARTING),
            occupant(State.READY, replica=Host().replica("a-0-x", "a", pool(), 0)),
            occupant(State.BROKEN),
            occupant(State.ENDING),
        ]
    )
    assert (len(status.replicas), status.pending, status.ending) == (1, 1, 2)
    assert (status.capacity, status.trouble) == (len(pool().slots), "no port is free")
    assert status.starts.typical_seconds == (KEPT_STARTS - 1) / 2
    assert status.starts.spread > 1.0


def test_new_settings_are_good_once_the_whole_pool_was_ready_with_them_for_a_while():
    first = pool()
    kept = KeptPool("a", first)
    kept.wanted = Wanted(size=1)

    def ready(settings, since):
        made = Host().replica("a-0-x", "a", settings, 0)
        return occupant(State.READY, replica=made, ready_at=since)

    assert kept.whole([ready(first, 5.0)], PATIENCE, now=5.0) == first  # nothing to go back to
    second = dataclasses.replace(first, max_in_flight=first.max_in_flight + 1, start_seconds=9.0)
    second = dataclasses.replace(second, parameters={"num_threads": "2"})
    kept.configure(second)
    assert kept.whole([ready(second, 10.0)], PATIENCE, now=39.0) is None
    assert kept.judge("it died", 20.0, serving=False)
    assert kept.settings == first
    kept.configure(second, again=True)
    assert kept.whole([ready(second, 10.0)], PATIENCE, now=40.0) == second
    assert not kept.judge("it died", 50.0, serving=False)
