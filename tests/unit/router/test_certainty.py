"""How sure a model was, and the form of its answers."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.certainty import (
    BadValidator,
    Certainty,
    Measure,
    Validity,
    certainty_of,
    json_schema,
    matching,
    one_of,
    score,
    validate,
)

log_probs = st.lists(st.floats(-50, 0), min_size=1, max_size=40)


@given(told=log_probs, first_k=st.integers(1, 50))
def test_every_number_is_a_log_prob_and_the_minimum_the_least(
    told: list[float], first_k: int
) -> None:
    found = certainty_of(told, first_k)
    if found is None:
        assert min(told) == 0.0
        return
    assert found.minimum == min(told)
    for value in (found.mean, found.first_k):
        assert found.minimum - 1e-9 <= value <= 0.0


def test_the_numbers_are_what_they_say() -> None:
    found = certainty_of([-0.1, -0.3, -2.0, 0.0], first_k=2)
    assert found is not None
    assert found == Certainty(pytest.approx(-0.6), -2.0, pytest.approx(-0.2))
    assert score(found, Measure.MEAN) == found.mean
    assert score(found, Measure.MINIMUM) == found.minimum
    assert score(found, Measure.FIRST_K) == found.first_k
    with pytest.raises(ValueError, match="needs a model"):
        score(found, Measure.LEARNED)


@pytest.mark.parametrize(
    "told",
    [[], [0.0], [0.0, 0.0, 0.0], [-1.0, math.nan], [math.nan], [-1.0, 0.5], [-math.inf, -1.0]],
)
def test_what_cannot_be_a_log_prob_is_unknown_never_certain(told: list[float]) -> None:
    assert certainty_of(told, 4) is None


def test_rounding_above_zero_is_zero() -> None:
    found = certainty_of([1e-6, -0.5], 1)
    assert found is not None
    assert found.first_k == 0.0
    assert certainty_of([-0.5], 1) is not None
    with pytest.raises(ValueError, match="first_k"):
        certainty_of([-0.5], 0)


def test_an_answer_without_checks_is_fine() -> None:
    assert validate("anything", []) == Validity(ok=True)


def test_the_first_check_that_fails_is_named() -> None:
    checks = [one_of(["yes", "no"]), matching("[a-z]+")]
    assert validate(" yes ", checks).ok
    assert validate("maybe", checks) == Validity(ok=False, failed="enum")
    assert validate("YES", [matching("[a-z]+")]) == Validity(ok=False, failed="regex")
    assert not validate("yes!", [matching("[a-z]+")]).ok


SCHEMA = """{"type": "object", "required": ["intent"], "additionalProperties": false,
"properties": {"intent": {"type": "string", "pattern": "^[a-z_]+$"}, "$ref": {"type": "number"}}}"""


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ('{"intent": "card_arrival"}', True),
        (' {"intent": "a", "$ref": 3}\n', True),
        ('{"intent": "Card"}', False),
        ('{"other": 1}', False),
        ('{"intent": "a"', False),
        ("", False),
        ("[" * 5000, False),
    ],
)
def test_a_schema_accepts_what_it_describes(text: str, *, ok: bool) -> None:
    assert validate(text, [json_schema(SCHEMA)]).ok is ok


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ('{"type": 3}', "is not one"),
        ('{"$ref": "http://example.com/schema"}', "must stay within"),
        ('{"anyOf": [{"$ref": "file:///etc/passwd"}]}', "anyOf\\[0\\].\\$ref"),
        ('{"patternProperties": {"a": {}}}', "patternProperties"),
        ('{"properties": {"a": {"pattern": "(a+)+\\\\1"}}}', "properties.a.pattern"),
        ('{"title": "' + "x" * 70_000 + '"}', "characters"),
    ],
)
def test_a_schema_that_cannot_be_checked_safely_is_refused(schema: str, said: str) -> None:
    with pytest.raises(BadValidator, match=said):
        json_schema(schema)


def test_names_and_values_in_a_schema_are_no_keywords() -> None:
    schema = {"properties": {"patternProperties": {"enum": [{"$ref": "http://x"}]}}}
    assert validate('{"patternProperties": {"$ref": "http://x"}}', [json_schema(schema)]).ok


@pytest.mark.parametrize("expression", ["(", "(?=a)b", "(a)\\1", "a" * 70_000])
def test_an_expression_that_cannot_be_checked_safely_is_refused(expression: str) -> None:
    with pytest.raises(BadValidator, match="regex"):
        matching(expression)
    with pytest.raises(BadValidator, match="enum"):
        one_of([])


def test_checks_of_hostile_rules_end() -> None:
    doubling = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    bomb = json_schema({"$defs": {**doubling, "a40": {}}, "$ref": "#/$defs/a0"})
    backtracking = matching("(a+)+b")
    started = time.process_time()
    assert not validate("1", [bomb]).ok
    assert not validate("a" * 100_000, [backtracking]).ok
    assert time.process_time() - started < 5.0
