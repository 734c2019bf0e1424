"""Made-up customers: enough of them, of every kind, and the same again."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.local.answers import OUT_OF_SCOPE, load_answers
from services.local.customers import SLIPS, asked


def test_every_intent_is_asked_about_once_before_any_again() -> None:
    intents = load_answers().keys() - {OUT_OF_SCOPE}
    for seed in (1, 2):
        counts = Counter(one.intent for one in islice(asked(seed), 2 * len(intents)))
        assert counts == dict.fromkeys(intents, 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thousands_of_questions_are_distinct(seed: int) -> None:
    assert len({one.text for one in islice(asked(seed), 6_000)}) >= 5_000


def test_a_seed_gives_the_same_questions_again_and_another_gives_others() -> None:
    first, again, other = (list(islice(asked(seed), 500)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_question_is_one_line_without_traces_of_the_grammar() -> None:
    for one in islice(asked(5), 20_000):
        assert re.fullmatch(r"[^(){}|\n]{8,250}", one.text), one
        assert one.text == one.text.strip(), one
        assert "  " not in one.text, one


def test_some_are_written_in_a_hurry_and_most_are_not() -> None:
    texts = [one.text for one in islice(asked(5), 2_000)]
    tidy = sum(text[0].isupper() and text[-1] in "?.!" and text[-2] not in "?.!" for text in texts)
    assert 0.6 < tidy / len(texts) < 0.95


@given(st.text(min_size=1, max_size=80), st.integers(0, 2**32))
def test_a_slip_never_fails_and_leaves_most_of_the_text(text: str, seed: int) -> None:
    for slip in SLIPS:
        changed = slip(text, Random(seed))
        assert len(changed.rstrip("?.!")) >= len(text.rstrip("?.!")) - 5
