"""What is known of a pool, with time passed in."""

from structlog.testing import capture_logs

from services.scaler.policy.replicas import NEXT_TRY, Patience, State
from services.scaler.targets.kept_pool import KEPT_STARTS, KeptPool, Wanted
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
    assert kept.status([]).typical_start_seconds is None
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
    assert status.typical_start_seconds == (KEPT_STARTS - 1) / 2
