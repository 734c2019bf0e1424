"""Tenants in one line: each has its turn, however many of another wait, and however urgent."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.line import Priority, Ticket, WaitingLine
from services.router.policy.shares import most_of

BACKGROUND, BATCH = Priority.BACKGROUND, Priority.BATCH
INTERACTIVE, CRITICAL = Priority.INTERACTIVE, Priority.CRITICAL


def served(line: WaitingLine[str], held: dict[str, int] | None = None) -> str:
    """Whose turn it is; the turn is had."""
    ticket = line.first(held)
    assert ticket is not None
    line.serve(ticket)
    return ticket.holder


def fill(line: WaitingLine[str], tenant: str, *priorities: Priority) -> list[Ticket[str]]:
    joined = [
        line.join(f"{tenant}{number}", priority, tenant)
        for number, priority in enumerate(priorities)
    ]
    assert all(evicted is None for _, evicted in joined)
    return [ticket for ticket, _ in joined if ticket is not None]


@pytest.mark.parametrize("places", [1, 2, 7])
@pytest.mark.parametrize("quiet", [BATCH, INTERACTIVE, CRITICAL])
def test_a_flood_of_urgent_requests_never_keeps_a_quiet_tenant_from_its_turn(
    places: int, quiet: Priority
) -> None:
    line: WaitingLine[str] = WaitingLine(16)
    running: list[str] = []
    answered = 0
    for _ in range(20):
        for number in range(24):  # more than leave, and more than the line takes
            line.join(f"loud{number}", CRITICAL, "loud")
        ticket, _ = line.join("quiet", quiet, "quiet")
        assert ticket is not None
        turns = 0
        while not ticket.left:
            held = Counter(holder[:4] for holder in running)
            if len(running) == places:
                running.pop(0)
            running.append(served(line, {"loud": held["loud"], "quiet": held["quie"]}))
            line.join("loud", CRITICAL, "loud")
            turns += 1
        assert running[-1] == "quiet"
        assert turns <= places + 1
        answered += 1
    assert answered == 20


@given(st.lists(st.tuples(*[st.sampled_from([BATCH, INTERACTIVE, CRITICAL])] * 3), min_size=2))
def test_of_tenants_that_all_wait_none_is_a_turn_ahead(asked: list[Sequence[Priority]]) -> None:
    line: WaitingLine[str] = WaitingLine(1000)
    for classes in asked:
        for tenant, priority in zip("abc", classes, strict=True):
            line.join(tenant, priority, tenant)
    turns: Counter[str] = Counter()
    for _ in range(3 * len(asked)):
        turns[served(line)] += 1
        assert max(turns[one] for one in "abc") - min(turns[one] for one in "abc") <= 1


def test_who_comes_again_and_again_is_no_turn_ahead_of_who_stays() -> None:
    line: WaitingLine[str] = WaitingLine(100)
    fill(line, "c", *[INTERACTIVE] * 30)
    turns: Counter[str] = Counter()
    for _ in range(30):
        for tenant in "ab":
            if not line.waiting(tenant):
                line.join(tenant, CRITICAL, tenant)
        turns[served(line)[0]] += 1
    assert max(turns.values()) - min(turns.values()) <= 1
    assert len(turns) == 3


def test_who_holds_least_goes_first() -> None:
    line: WaitingLine[str] = WaitingLine(10)
    fill(line, "a", CRITICAL, CRITICAL)
    fill(line, "b", BATCH, BATCH)
    held = {"a": 1, "b": 2}
    assert served(line, held) == "a0"
    assert served(line, {"a": 3, "b": 2}) == "b0"


def test_a_tenant_alone_has_everything_by_class_and_age() -> None:
    line: WaitingLine[str] = WaitingLine(5)
    fill(line, "a", BATCH, INTERACTIVE, CRITICAL, BATCH, CRITICAL)
    assert line.join("more", CRITICAL, "a")[1] is not None
    order = [served(line, {"a": 1000}) for _ in range(5)]
    assert order == ["a2", "a4", "more", "a1", "a0"]


def test_what_is_in_the_background_waits_until_nothing_else_does() -> None:
    line: WaitingLine[str] = WaitingLine(10)
    fill(line, "quiet", BACKGROUND)
    fill(line, "loud", BATCH, BATCH)
    fill(line, "third", BACKGROUND, BACKGROUND)
    order = [served(line, {"loud": 99}) for _ in range(5)]
    assert order == ["loud0", "loud1", "quiet0", "third0", "third1"]


def test_in_a_full_line_a_newcomer_takes_the_place_of_the_crowd_until_both_have_as_much() -> None:
    line: WaitingLine[str] = WaitingLine(5)
    fill(line, "loud", CRITICAL, INTERACTIVE, CRITICAL, INTERACTIVE, CRITICAL)
    evicted = [line.join("quiet", BATCH, "quiet")[1] for _ in range(3)]
    assert [one.holder if one else None for one in evicted] == ["loud3", "loud1", None]
    assert (line.waiting("loud"), line.waiting("quiet"), len(line)) == (3, 2, 5)
    assert line.join("loud", CRITICAL, "loud") == (None, None)  # it would take it from the quiet


def test_urgency_takes_no_place_from_another_tenant() -> None:
    line: WaitingLine[str] = WaitingLine(4)
    fill(line, "a", BATCH, BATCH)
    fill(line, "b", INTERACTIVE, CRITICAL)
    ticket, evicted = line.join("urgent", CRITICAL, "b")
    assert ticket is not None
    assert evicted is not None
    assert evicted.holder == "b0"


def test_the_background_gives_way_first_and_to_nobody_of_its_kind_that_has_more() -> None:
    line: WaitingLine[str] = WaitingLine(4)
    fill(line, "a", BACKGROUND, BACKGROUND, CRITICAL)
    fill(line, "b", BACKGROUND)
    assert line.join("more", BACKGROUND, "a") == (None, None)
    _, evicted = line.join("batch", BATCH, "c")
    assert evicted is not None
    assert evicted.holder == "a1"


def test_a_tenant_has_no_more_of_the_line_than_its_most() -> None:
    line: WaitingLine[str] = WaitingLine(10, most=2)
    fill(line, "a", BATCH, BACKGROUND)
    assert line.join("more", BACKGROUND, "a") == (None, None)
    for gone in ("a1", "a0"):  # its own, the least important first
        _, evicted = line.join("urgent", CRITICAL, "a")
        assert evicted is not None
        assert evicted.holder == gone
    assert line.join("urgent", CRITICAL, "a") == (None, None)
    fill(line, "b", BATCH)


def test_who_has_its_most_is_passed_over_while_others_are_served() -> None:
    line: WaitingLine[str] = WaitingLine(10)
    fill(line, "a", CRITICAL)
    fill(line, "b", BATCH)
    first = line.first({"a": 1, "b": 1}, most=2)
    assert first is not None
    assert first.holder == "a0"
    passed = line.first({"a": 2, "b": 1}, most=2)
    assert passed is not None
    assert passed.holder == "b0"
    assert line.first({"a": 2, "b": 2}, most=2) is None


@pytest.mark.parametrize(
    ("whole", "share", "most"),
    [(256, 1.0, 256), (256, 0.5, 128), (100, 0.29, 29), (4, 0.1, 1), (1, 0.5, 1), (0, 0.5, 0)],
)
def test_a_share_of_something_is_at_least_one_of_it(whole: int, share: float, most: int) -> None:
    assert most_of(whole, share) == most
