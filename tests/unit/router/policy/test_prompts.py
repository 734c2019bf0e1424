"""Passages, and what trimming leaves out."""

import math
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy import prompts
from services.router.policy.prompts import (
    MAX_COMPARED_CHARACTERS,
    Message,
    Passage,
    trimmed,
    with_passages,
)
from services.router.policy.routes import Trimming

ASK = Message("user", "How do I change my PIN?")
PASSAGES = (
    Passage("Opening hours are nine to five."),
    Passage("You can change the PIN at any cash machine."),
    Passage("The PIN has four digits."),
)


def test_passages_come_before_the_question() -> None:
    turns = with_passages([Message("system", "Be brief."), ASK], PASSAGES[:2])
    assert turns[0] == Message("system", "Be brief.")
    assert turns[1].content == "\n\n".join([*(one.text for one in PASSAGES[:2]), ASK.content])
    assert with_passages([ASK], ()) == (ASK,)


def test_the_passages_that_share_words_with_the_question_stay_in_their_order() -> None:
    (turn,) = trimmed([ASK], PASSAGES, Trimming(passages=2))
    assert turn.content.split("\n\n") == [PASSAGES[1].text, PASSAGES[2].text, ASK.content]


def test_the_callers_relevance_counts_where_every_passage_has_one() -> None:
    scored = [
        Passage(one.text, score) for one, score in zip(PASSAGES, (0.9, 0.1, 0.2), strict=True)
    ]
    (turn,) = trimmed([ASK], scored, Trimming(passages=1))
    assert turn.content.startswith("Opening hours")
    scored[0] = Passage(PASSAGES[0].text)
    (turn,) = trimmed([ASK], scored, Trimming(passages=1))
    assert turn.content.startswith("You can change")


def test_old_turns_go_and_instructions_stay() -> None:
    turns = [
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "1"),
        Message("user", "two"),
        Message("assistant", "2"),
        Message("user", "three"),
    ]
    kept = trimmed(turns, (), Trimming(history_turns=2))
    assert [turn.content for turn in kept] == ["Be brief.", "two", "2", "three"]
    assert trimmed(turns, (), Trimming(history_turns=9)) == tuple(turns)


def test_blanks_go_but_indents_and_code_stay() -> None:
    text = "a  b \t c\n\n\n\n  indented   text\n```\nx  =  1\n\n\n\n```\nend   "
    (turn,) = trimmed([Message("user", text)], (), Trimming(white_space=True))
    assert turn.content == "a b c\n\n  indented text\n```\nx  =  1\n\n\n\n```\nend"


word = st.text("ab \n\t`", max_size=40)


trimmings = st.builds(
    Trimming,
    white_space=st.booleans(),
    history_turns=st.integers(1, 4),
    passages=st.integers(0, 3),
)


@given(st.lists(word, min_size=1, max_size=6), trimmings)
def test_the_question_always_stays_and_nothing_grows(texts: list[str], trimming: Trimming) -> None:
    turns = [Message("user", f"q{text}q") for text in texts]
    some = [Passage(f"p{text}") for text in texts]
    kept = trimmed(turns, some, trimming)
    whole = with_passages(turns, some)
    assert len(kept) == min(trimming.history_turns or 0, len(turns))
    assert sum(len(one.content) for one in kept) <= sum(len(one.content) for one in whole)
    squeezed = "".join(turns[-1].content.split())
    assert "".join(kept[-1].content.split()).endswith(squeezed)


def test_trimming_is_off_until_something_is_asked_of_it() -> None:
    assert not Trimming().on
    assert Trimming(white_space=True).on
    assert Trimming(history_turns=3).on


def test_choosing_passages_takes_bounded_time() -> None:
    words = [f"w{at}" for at in range(40_000)]
    question = Message("user", " ".join(words))
    passages = [Passage(" ".join(words[at * 150 : at * 150 + 150])) for at in range(256)]
    started = time.process_time()
    trimmed([question], passages, Trimming(passages=3))
    assert time.process_time() - started < 0.5


def test_a_word_of_the_question_costs_nothing_where_no_passage_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2,000 words times 256 passages held up everybody for tenths of a second."""
    weighed: list[float] = []

    def log(share: float) -> float:
        weighed.append(share)
        return math.log(share)

    monkeypatch.setattr(prompts, "math", SimpleNamespace(log=log))
    words = " ".join(chr(0x4E00 + number) for number in range(2000))
    (turn,) = trimmed(
        [Message("user", f"PIN {words} card")],
        [Passage("nothing"), Passage("the pin"), *[Passage("x")] * 254, Passage("card PIN pin")],
        Trimming(passages=2),
    )
    assert turn.content.startswith("the pin\n\ncard PIN pin\n\n")
    assert len(weighed) == 2


def test_of_a_long_text_its_beginning_and_its_end_count() -> None:
    filler = "x " * MAX_COMPARED_CHARACTERS
    asks = Message("user", f"About the PIN: {filler} how do I change it?")
    some = [*PASSAGES[:1], Passage(f"change it {filler}"), Passage(f"{filler} the PIN")]
    (turn,) = trimmed([asks], some, Trimming(passages=2))
    assert turn.content.startswith("change it")
