"""Features of prompts and the model over them."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.certainty import Certainty
from services.router.policy.difficulty import (
    DENSE,
    FEATURES,
    FIRST_TASK,
    FIRST_WORD,
    DifficultyModel,
    Signals,
    assurance,
    features,
    with_certainty,
)

NOTHING = Signals()
finite = st.floats(-1e6, 1e6)


def model(**changes: object) -> DifficultyModel:
    fields: dict[str, object] = {
        "weights": {},
        "rarities": {},
        "bias": 0.0,
        "points": ((-1.0, -0.5), (1.0, 0.5)),
    }
    return DifficultyModel(**{**fields, **changes})  # type: ignore[arg-type]


@given(
    text=st.text(max_size=300),
    task_type=st.none() | st.text(max_size=10),
    confidence=st.none() | st.floats(),
    vector=st.none() | st.lists(st.floats(), max_size=20),
)
def test_features_are_finite_within_range_and_each_there_once(
    text: str, task_type: str | None, confidence: float | None, vector: list[float] | None
) -> None:
    found = features(text, Signals(task_type, confidence, vector))
    assert len({index for index, _ in found}) == len(found)
    assert all(0 <= index < FEATURES and math.isfinite(value) for index, value in found)
    assert found == features(text, Signals(task_type, confidence, vector))


def test_hashes_are_the_same_on_every_machine() -> None:
    words = [index for index, _ in features("Lost card 卡", NOTHING) if index >= FIRST_WORD]
    assert words == [28442, 44307, 53857, 104682, 160715]


def test_case_and_surplus_space_change_no_word() -> None:
    def words(text: str) -> set[int]:
        return {index for index, _ in features(text, NOTHING) if index >= FIRST_WORD}

    assert words("Where is  my CARD") == words("where is my card")
    assert words("my card is") != words("is card my")


def test_each_signal_has_a_place_of_its_own() -> None:
    bare = dict(features("hello", NOTHING))
    sparse = dict(features("hello", Signals("refund", 2.0, [3.0, 4.0])))
    new = {index: value for index, value in sparse.items() if index not in bare}
    assert new.pop(33) == 1.0  # a confidence above 1 counts as 1
    assert new.pop(DENSE) == pytest.approx(0.6)
    assert new.pop(DENSE + 1) == pytest.approx(0.8)
    assert new.pop(32) == new.pop(34) == 1.0
    ((task, value),) = new.items()
    assert FIRST_TASK <= task < FIRST_WORD
    assert value == 1.0


def test_a_vector_that_says_nothing_is_left_out() -> None:
    for vector in ([], [0.0, 0.0], [math.nan], [1.0] * 5000):
        assert features("hello", Signals(vector=vector)) == features("hello", NOTHING)


def test_a_long_prompt_costs_no_more_than_its_ends() -> None:
    long = "word and another, " * 200_000
    started = time.process_time()
    found = features(long, NOTHING)
    assert time.process_time() - started < 0.5
    assert dict(found)[0] == pytest.approx(math.log1p(len(long)) / 5)


def test_certainty_joins_the_features() -> None:
    sparse = features("hello", NOTHING)
    sure, unsure = Certainty(-0.01, -0.1, -0.01), Certainty(-1.0, -4.0, -2.0)
    assert with_certainty(sparse, sure)[: len(sparse)] == sparse
    assert with_certainty(sparse, sure) != with_certainty(sparse, unsure)
    assert dict(with_certainty(sparse, None))[48] == 1.0


@given(
    sparse=st.dictionaries(st.integers(0, FEATURES - 1), finite, max_size=20),
    weights=st.dictionaries(st.integers(0, FEATURES - 1), finite, max_size=20),
    rarities=st.dictionaries(st.integers(FIRST_WORD, FEATURES - 1), st.floats(0.1, 20)),
)
def test_a_gain_is_within_the_ends_of_the_map(
    sparse: dict[int, float], weights: dict[int, float], rarities: dict[int, float]
) -> None:
    made = model(weights=weights, rarities=rarities)
    assert -0.5 <= made.gain(tuple(sparse.items())) <= 0.5


def test_words_count_by_rarity_and_unknown_ones_do_not() -> None:
    known, other, unknown = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2
    made = model(weights={known: 1.0, other: -1.0}, rarities={known: 3.0, other: 4.0})
    assert made.gain(((unknown, 1.0),)) == 0.0
    assert made.gain(((known, 1.0), (unknown, 1.0))) == 0.5
    assert made.gain(((known, 1.0), (other, 1.0))) == pytest.approx(0.5 * (3.0 - 4.0) / 5.0)


def test_the_map_is_linear_between_its_points() -> None:
    made = model(weights={0: 1.0}, points=((0.0, 0.1), (1.0, 0.3), (2.0, 0.3)))
    gains = [made.gain(((0, score),)) for score in (-9.0, 0.0, 0.5, 1.5, 9.0)]
    assert gains == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.3])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": ()}, "at least one"),
        ({"points": ((1.0, 0.0), (0.0, 0.1))}, "ascend"),
        ({"points": ((0.0, 0.2), (1.0, 0.1))}, "ascend within"),
        ({"points": ((0.0, 0.2), (1.0, 1.1))}, "ascend within"),
        ({"bias": math.nan}, "finite"),
        ({"weights": {0: math.inf}}, "finite"),
        ({"weights": {FEATURES: 1.0}}, "weights must be of"),
        ({"rarities": {0: 1.0}}, "of words"),
        ({"rarities": {FIRST_WORD: 0.0}}, "positive"),
    ],
)
def test_numbers_that_make_no_model_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model(**changes)


@given(one=st.floats(-1, 1), other=st.floats(-1, 1))
def test_less_gain_is_more_assurance(one: float, other: float) -> None:
    assert assurance(one) <= 0.0
    if one < other:
        assert assurance(one) >= assurance(other)
