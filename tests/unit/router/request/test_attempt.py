"""One attempt: how long its replica may stay silent, and what is noted of its text."""

import pytest

from services.router.fleet.place import Place
from services.router.fleet.replica import Replica, State
from services.router.policy.cascade import Step
from services.router.policy.line import Priority
from services.router.ports import Piece, Prompt
from services.router.request.attempt import Attempt
from services.router.request.plan import Cause, HoldBack, Plan
from tests.making.policies import tier
from tests.making.walking import Run

SMALL = tier("small", first_token_seconds=20.0, idle_seconds=10.0)


def attempt(*, streams: bool = True, most: int = 64, hold: HoldBack | None = None) -> Attempt:
    plan = Plan(
        step=Step(SMALL, 0, checked=hold is not None, needs_certainty=False),
        prompt=Prompt((), [1, 2]),
        max_output_tokens=most,
        began=0.0,
        until=30.0,
        deadline=30.0,
        cause=Cause.FIRST,
        priority=Priority.INTERACTIVE,
        hold=hold,
        streams=streams,
    )
    replica = Replica("a", "small", "small", "int8", "a:1", State.READY, 8)
    place = Place(replica, SMALL, lambda _: None, lambda work: work.close())
    return Attempt(plan, Cause.FIRST, place, 0.0, hold)


@pytest.mark.parametrize(
    ("streams", "most", "seconds"),
    [(True, 256, 20.0), (False, 63, 20.0), (False, 64, 30.0), (False, 256, 60.0)],
)
def test_a_whole_answer_is_waited_for_longer_the_longer_it_may_be(
    *, streams: bool, most: int, seconds: float
) -> None:
    assert attempt(streams=streams, most=most).patience() == seconds


def test_after_the_first_tokens_a_replica_may_pause_as_its_tier_says() -> None:
    begun = attempt()
    begun.take(Piece("", 1, ended=False), 1.0)  # a token without text is a sign of life too
    assert begun.patience() == 10.0


def test_the_first_text_is_the_first_that_came_and_the_last_the_last() -> None:
    begun = attempt()
    for now, text in ((1.0, ""), (2.0, "one"), (3.0, "two"), (4.0, "")):
        begun.take(Piece(text, 1, ended=False), now)
    answer = begun.answer
    assert (answer.first_text_at, answer.last_text_at) == (2.0, 3.0)
    assert (answer.output_tokens, answer.pieces) == (4, [("one", 1), ("two", 1)])


def test_text_that_was_held_back_comes_when_it_is_let_go() -> None:
    held = attempt(hold=HoldBack(None))
    for text in ("one ", "", "two"):
        held.take(Piece(text, 2, ended=False), 1.0)
    assert (held.text, held.answer.text) == ("one two", "")
    assert held.release(5.0) == Piece("one two", 6, ended=False)
    assert (held.answer.first_text_at, held.answer.pieces) == (5.0, [("one ", 2), ("two", 2)])


def test_text_that_is_taken_late_came_when_it_did() -> None:
    slow, call = attempt(), Run([])
    slow.call = call
    for arrived, now in ((1.0, 1.0), (2.0, 9.0)):
        call.heard_at = arrived
        slow.take(Piece("text", 1, ended=False), now)
    assert (slow.answer.first_text_at, slow.answer.last_text_at, slow.heard_at) == (1.0, 2.0, 2.0)


def test_text_that_came_while_the_rest_was_judged_makes_no_time_negative() -> None:
    held, call = attempt(hold=HoldBack(None)), Run([])
    held.call = call
    call.heard_at = 1.0
    held.take(Piece("one ", 1, ended=False), 1.0)
    held.release(5.0)
    call.heard_at = 3.0
    held.take(Piece("two", 1, ended=False), 6.0)
    assert (held.answer.first_text_at, held.answer.last_text_at) == (5.0, 5.0)
