"""Requests over which replicas were lost: when they are marked, for how long, and for whom."""

import pytest

from services.router.policy.poison import (
    MARK_SECONDS,
    MOST_OF_A_TENANT,
    MOST_TENANTS,
    PoisonMarks,
)


def left(marks: PoisonMarks, name: bytes = b"x", tenant: str = "acme", now: float = 0.0) -> float:
    return marks.seconds_left(tenant, lambda: name, now)


def noted(*replicas: str, tenant: str = "acme", name: bytes = b"x") -> PoisonMarks:
    marks = PoisonMarks()
    for replica in replicas:
        marks.note(tenant, name, replica, 0.0)
    return marks


def test_the_second_replica_marks_a_request() -> None:
    marks = PoisonMarks()
    assert marks.note("acme", b"x", "a", 0.0) is False
    assert left(marks) == 0.0
    assert marks.note("acme", b"x", "b", 10.0) is True
    assert left(marks, now=20.0) == MARK_SECONDS - 10.0
    assert marks.note("acme", b"x", "c", 20.0) is True


def test_one_replica_lost_twice_proves_nothing_about_the_request() -> None:
    assert left(noted("a", "a", "a")) == 0.0


@pytest.mark.parametrize(("tenant", "name"), [("umbrella", b"x"), ("acme", b"y")])
def test_a_mark_is_of_one_tenant_and_one_request(tenant: str, name: bytes) -> None:
    assert left(noted("a", "b"), name, tenant) == 0.0


def test_a_loss_and_a_mark_are_forgotten_in_time() -> None:
    marks = noted("a")
    assert marks.note("acme", b"x", "b", MARK_SECONDS) is False
    marks = noted("a", "b")
    assert left(marks, now=MARK_SECONDS) == 0.0
    assert len(marks) == 0


def test_who_has_nothing_noted_is_not_looked_at() -> None:
    def digest() -> bytes:
        raise AssertionError("work on the hot path")

    assert noted("a", "b").seconds_left("umbrella", digest, 0.0) == 0.0


def test_a_tenant_pushes_out_its_own_oldest_alone() -> None:
    marks = noted("a", "b", tenant="umbrella")
    for number in range(MOST_OF_A_TENANT + 1):
        for replica in ("a", "b"):
            marks.note("acme", number.to_bytes(2, "big"), replica, 0.0)
    assert left(marks, tenant="umbrella") > 0.0
    assert left(marks, (0).to_bytes(2, "big")) == 0.0
    assert left(marks, (1).to_bytes(2, "big")) > 0.0
    assert len(marks) == MOST_OF_A_TENANT + 1


def test_there_are_never_more_tenants_than_that() -> None:
    marks = PoisonMarks()
    for number in range(MOST_TENANTS + 5):
        marks.note(str(number), b"x", "a", 0.0)
    assert len(marks) == MOST_TENANTS


@pytest.mark.parametrize(
    ("beside", "marked"),
    [
        (["", "b"], True),
        (["b", ""], True),
        (["b", "c"], False),
        (["b", "c", "d"], True),
        (["bcd", "efg", "hij", "klm"], False),
    ],
)
def test_losses_count_by_how_few_can_be_to_blame(beside: list[str], *, marked: bool) -> None:
    marks = PoisonMarks()
    told = [
        marks.note("acme", b"x", str(at), 0.0, frozenset(others))
        for at, others in enumerate(beside)
    ]
    assert told[-1] is marked
    assert (left(marks) > 0.0) is marked


@pytest.mark.parametrize("beside", [["b"], ["b", "bc"], ["bc", "bd"]])
def test_where_one_other_was_there_each_time_nothing_is_marked_however_often(
    beside: list[str],
) -> None:
    marks = PoisonMarks()
    for at in range(60):
        assert not marks.note("acme", b"x", str(at), 0.0, frozenset(beside[at % len(beside)]))
