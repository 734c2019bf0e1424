"""Which answers are the same, how alike others are, and what outcomes tell of them."""

import json
import math
import string
import sys
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.judging import (
    MAX_COMPARED_CHARACTERS,
    MAX_NORMALISED,
    at_worst,
    by_form,
    by_match,
    by_similarity,
    loss_at_worst,
    normalised,
    qualities_from_outcome,
    sensible,
    similarity,
)

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200)

# --- the same answer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Card arrival", "card_arrival"),
        ("Yes, it is!", "yes it is"),
        ("  two\n\tlines ", "two lines"),
        ("Don't", "don\N{RIGHT SINGLE QUOTATION MARK}t"),
        ("It's John's.", "its johns"),
        ("\uff26\uff35\uff2c\uff2c width", "full width"),
        ("Straße", "STRASSE"),
        ("e\u0301te\u0301", "été"),
        ("ﬁne", "fine"),
        ("left\u200bright", "leftright"),
        ("(A)", "a"),
        ("The answer is 42.", "the answer is 42"),
        ("\u22125 °C", "-5 °C"),
        ('{"b": 1.0, "a": [true, "x"]}', '{"a":[true,"x"],"b":1}'),
        ("[1, 2]\n", "[1,2]"),
    ],
)
def test_spelling_does_not_make_another_answer(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yes", "no"),
        ("3.5", "35"),
        ("10:30", "1030"),
        ("-2", "2"),
        (".5", "5"),
        ("5%", "5"),
        ("+", "-"),
        ("*", "/"),
        ("a < b", "a > b"),
        ("résumé", "resume"),
        ("two lines", "twolines"),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": "Paris"}', '{"a": "paris"}'),
        ('{"a": true}', '{"a": 1}'),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1e999]"),
    ],
)
def test_what_says_something_else_is_another_answer(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(TEXTS, st.sampled_from(string.whitespace))
def test_case_and_space_around_never_matter(text: str, space: str) -> None:
    if not text.strip().startswith(("{", "[")):
        assert normalised(f"{space}{text}{space}") == normalised(text)
    if text.isascii():
        assert normalised(text.upper().lower()) == normalised(text.lower())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_json_is_compared_by_value(value: dict[str, object]) -> None:
    other = dict(reversed(value.items()))
    assert normalised(json.dumps(value, indent=3)) == normalised(
        json.dumps(other, ensure_ascii=False)
    )
    assert json.loads(normalised(json.dumps(value))) == value


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "{}" * 50_000, "[9" + "9" * 5000])
def test_json_that_cannot_be_read_is_a_text_like_others(text: str) -> None:
    assert isinstance(normalised(text), str)


COMBINING = [
    mark
    for mark in map(chr, range(sys.maxunicode + 1))
    if unicodedata.combining(unicodedata.normalize("NFKD", mark)[0])
]


def test_a_heap_of_marks_on_one_letter_is_left_as_it_is() -> None:
    assert len(COMBINING) > 800
    for mark in COMBINING:
        heap = f"A{mark * 31}"
        assert normalised(heap) == heap
    mixed = "A" + "\N{COMBINING GRAVE ACCENT}" * 15 + "\N{COMBINING GRAVE ACCENT BELOW}" * 16
    assert normalised(mixed) == mixed
    assert normalised("e" + "\N{COMBINING ACUTE ACCENT}" + "E" * 99) == "\xe9" + "e" * 99


def test_texts_beyond_the_bound_are_the_same_to_the_letter_only() -> None:
    text = "a" * (MAX_NORMALISED + 1)
    assert by_match([text, text]) == (1.0, 1.0)
    assert by_match([text.upper(), text]) == (0.0, 1.0)


def test_match_is_with_the_top_tier() -> None:
    assert by_match(["card arrival", "Card delivery", "Card  arrival."]) == (1.0, 0.0, 1.0)


# --- similarity --------------------------------------------------------------------------------


def test_similar_texts_are_closer_than_others() -> None:
    text = "Your card usually arrives within five working days."
    near = "Your card usually arrives within 5 days."
    far = "Exchange rates are updated every hour."
    assert 0.5 < similarity(near, text) < 1.0
    assert similarity(far, text) < 0.2


def test_an_empty_answer_is_like_nothing_but_an_empty_one() -> None:
    assert similarity("", "") == 1.0
    assert similarity("", "hello") == similarity("hello", " ") == 0.0


def test_below_the_least_similarity_nothing_counts() -> None:
    answers = ["the card arrives on monday", "zebra", "the card arrives on tuesday"]
    near = similarity(answers[0], answers[2])
    assert by_similarity(answers, near) == (near, 0.0, 1.0)
    assert by_similarity(answers, near + 1e-9) == (0.0, 0.0, 1.0)


@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_bounded(one: str, other: str) -> None:
    found = similarity(one, other)
    assert 0.0 <= found <= 1.0
    assert math.isclose(found, similarity(other, one), abs_tol=1e-12)
    assert similarity(one, one) == 1.0


def test_of_long_texts_both_ends_count() -> None:
    middle = "word " * MAX_COMPARED_CHARACTERS
    assert similarity(f"begin {middle}", f"start {middle}") < 1.0
    assert similarity(f"{middle} end", f"{middle} stop") < 1.0


# --- form --------------------------------------------------------------------------------------


def test_each_answer_has_the_form_or_not_by_itself() -> None:
    assert by_form(["12", "twelve", "1"], "regex", "[0-9]+") == (1.0, 0.0, 1.0)
    schema = '{"type": "object", "required": ["a"]}'
    assert by_form(['{"a": 1}', "{}", "no JSON"], "json_schema", schema) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(("kind", "form"), [("regex", "("), ("json_schema", "{")])
def test_a_form_that_is_none_judges_nothing(kind: str, form: str) -> None:
    assert by_form(["1", "2"], kind, form) is None


# --- what a judge said -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ([0.0, 1.0], True),
        ([0.5], False),
        ([0.5, 0.5, 0.5], False),
        ([], False),
        ([math.nan, 1.0], False),
        ([math.inf, 1.0], False),
        ([-0.001, 1.0], False),
        ([0.5, 1.001], False),
    ],
)
def test_nonsense_is_not_taken(said: list[float], *, taken: bool) -> None:
    assert sensible(said, 2) == (tuple(said) if taken else None)


# --- outcomes ----------------------------------------------------------------------------------

A, B, C = "aa", "bb", "cc"


@pytest.mark.parametrize(
    ("answered", "digests", "said", "qualities"),
    [
        # A corrected answer is the one right answer, whatever else is said.
        (0, [A, B, B], (None, None, B), (0.0, 1.0, 1.0)),
        (0, [A, B, B], (True, 1.0, C), (0.0, 0.0, 0.0)),
        (2, [A, B, A], (False, -1.0, A), (1.0, 0.0, 1.0)),
        # Right: cheaper tiers that differ were wrong, safer ones that differ are unknown.
        (0, [A, B, A], (True, None, None), (1.0, None, 1.0)),
        (1, [A, B, C], (True, -1.0, None), (0.0, 1.0, None)),
        (2, [A, C, C], (True, None, None), (0.0, 1.0, 1.0)),
        # Wrong: whoever said the same was wrong too.
        (0, [A, A, B], (False, 1.0, None), (0.0, 0.0, None)),
        (2, [A, C, C], (False, None, None), (None, 0.0, 0.0)),
        # Rated.
        (0, [A, B, A], (None, 0.5, None), (0.75, None, 0.75)),
        (1, [A, B, C], (None, -1.0, None), (None, 0.0, None)),
        # Nothing.
        (0, [A, B], (None, None, None), None),
        (0, [A, B], (None, math.nan, None), None),
        (0, [A, B], (None, 1.5, None), None),
        (2, [A, B], (True, None, None), None),
        (-1, [A, B], (True, None, None), None),
    ],
)
def test_what_an_outcome_tells(
    answered: int,
    digests: list[str],
    said: tuple[bool | None, float | None, str | None],
    qualities: tuple[float | None, ...] | None,
) -> None:
    assert qualities_from_outcome(answered, digests, *said) == qualities


def test_what_is_unknown_counts_against_the_lever() -> None:
    assert loss_at_worst((0.0, None), safer=1, given=0) == 1.0
    assert loss_at_worst((1.0, None), safer=1, given=0) == 0.0
    assert loss_at_worst((0.75, None), safer=1, given=0) == 0.25
    assert loss_at_worst((None, 1.0), safer=1, given=0) == 1.0
    assert loss_at_worst((None, 0.0), safer=1, given=0) == 0.0
    assert loss_at_worst((0.25, 1.0), safer=1, given=0) == 0.75


def test_nothing_is_made_of_two_unknowns_but_the_same_answer_loses_nothing() -> None:
    assert loss_at_worst((None, 0.0, None), safer=2, given=0) is None
    assert loss_at_worst((None, 0.0, None), safer=2, given=2) == 0.0


KNOWN = st.sampled_from([0.0, 0.5, 1.0])


@given(st.lists(KNOWN, min_size=2, max_size=4), st.data())
def test_the_worst_is_never_better_than_the_truth(truth: list[float], data: st.DataObject) -> None:
    """Whatever of the truth is hidden, the loss that is assumed is no smaller than the true one."""
    hidden: Sequence[float | None] = [None if data.draw(st.booleans()) else one for one in truth]
    worst = at_worst(hidden)
    top = len(truth) - 1
    for given_at in range(top):
        true = truth[top] - truth[given_at]
        assert worst[top] - worst[given_at] >= true
        found = loss_at_worst(hidden, safer=top, given=given_at)
        assert found is None or found >= true


@given(
    st.lists(st.sampled_from([A, B, C]), min_size=2, max_size=4),
    st.sampled_from([A, B, C]),
    st.data(),
)
def test_resolved_or_not_never_hides_a_loss(
    digests: list[str], right: str, data: st.DataObject
) -> None:
    """With one right answer, what `resolved` tells is an upper bound on each tier's true loss."""
    answered = data.draw(st.integers(0, len(digests) - 1))
    truth = [float(one == right) for one in digests]
    resolved = digests[answered] == right
    found = qualities_from_outcome(answered, digests, resolved, None, None)
    assert found is not None
    worst = at_worst(found)
    for at in range(len(digests) - 1):
        assert worst[-1] - worst[at] >= truth[-1] - truth[at]
