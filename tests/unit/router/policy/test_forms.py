"""The form of answers."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.router.policy.effort import Effort
from services.router.policy.forms import (
    json_schema,
    matching,
    one_of,
    repetitions,
    validate,
)
from services.router.policy.schemas import BadValidator


def test_an_answer_without_checks_is_fine() -> None:
    assert validate("anything", [])


def test_an_answer_passes_every_check() -> None:
    checks = [one_of(["yes", "no", "YES"]), matching("[a-z]+")]
    assert validate(" yes ", checks)
    assert not validate("maybe", checks)
    assert not validate("YES", checks)
    assert not validate("yes!", [matching("[a-z]+")])


def test_an_expression_may_begin_or_end_with_white_space() -> None:
    assert validate(" yes\n", [matching(r"\s*yes\n")])
    assert validate(" yes\n", [matching("yes")])
    assert validate("\n", [matching(r"\n+")])
    assert not validate(" yes", [matching("  yes")])
    assert not validate("yes", [matching(" yes")])


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
    assert validate(text, [json_schema(SCHEMA)]) is ok


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
    assert validate('{"patternProperties": {"$ref": "http://x"}}', [json_schema(schema)])


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
    assert not validate("1", [bomb])
    assert not validate("a" * 100_000, [backtracking])
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("1" + "0" * 400, {"multipleOf": 0.5}),
        ("1e999", {"multipleOf": 0.5}),
        ("Infinity", {"type": "number"}),
        ("NaN", {}),
    ],
)
def test_numbers_that_are_no_json_or_too_large_do_not_pass(
    text: str, schema: dict[str, Any]
) -> None:
    assert not validate(text, [json_schema(schema)])


def test_a_check_ends_however_many_rules_meet_however_many_values() -> None:
    wide = json_schema({"items": {"anyOf": [{"const": at} for at in range(2000)]}})
    started = time.process_time()
    assert not validate(str([1999] * 500), [wide])
    assert time.process_time() - started < 2.0
    assert validate(str([1] * 500), [wide])
    assert validate(str([1] * 500), [wide])  # each check counts for itself


def test_the_checks_of_one_answer_have_a_common_budget() -> None:
    """One fits, twelve do not; each answer has the budget anew."""
    wide = json_schema({"items": {"anyOf": [{"type": "null"}] * 15 + [{}]}})
    answer = str([1] * 80)
    assert validate(answer, [wide])
    assert not validate(answer, [wide] * 12)
    assert validate(answer, [wide])


def test_reading_an_answer_is_counted_for_each_schema() -> None:
    answer = json.dumps(["a" * 90_000])
    assert validate(answer, [json_schema({})])
    assert not validate(answer, [json_schema({})] * 8)


def test_checks_of_one_schema_at_the_same_time_do_not_know_of_each_other() -> None:
    """Each counts its own steps and has its own answer, in whichever threads they run."""
    wide = json_schema(
        {"items": {"pattern": "^[a-z]$", "anyOf": [{"const": chr(97 + at)} for at in range(26)]}}
    )
    good, bad = json.dumps(["z"] * 300), json.dumps(["z"] * 299 + ["Z"])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(wide.holds, [good, bad] * 40))
    assert found == [True, False] * 40


def test_formats_are_not_checked() -> None:
    assert validate('"no date"', [json_schema({"format": "date"})])


@pytest.mark.parametrize(
    ("expression", "counts"),
    [
        ("a", []),
        ("a{3}b{2,7}c{4,}d{,5}", [3, 7, 4, 5]),
        ("a{}b{,}c{x}", []),
    ],
)
def test_repetitions_are_counted(expression: str, counts: list[int]) -> None:
    assert repetitions(expression) == counts


def test_expressions_that_repeat_too_much_are_refused_before_they_cost_anything() -> None:
    started = time.process_time()
    with pytest.raises(BadValidator, match=r"regex: repeats at most 40000 times"):
        matching("a{1,1000}" * 7000)
    with pytest.raises(BadValidator, match=r"json_schema: at most 64 patterns, got 65"):
        json_schema({"allOf": [{"pattern": f"a{{{at}}}"} for at in range(65)]})
    with pytest.raises(BadValidator, match=r"allOf\[63\].pattern: RE2 does not take it"):
        json_schema(
            {"allOf": [{"pattern": f"(a{at}b{{200}}){{5}}c{{900}}d{{900}}"} for at in range(64)]}
        )
    assert time.process_time() - started < 1.0
    assert matching("a{1,1000}").holds("aaa")
    assert json_schema({"allOf": [{"pattern": f"^[a-z]+({at})?$"} for at in range(64)]}).holds(
        '"a"'
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda effort: matching(r"\pL|" * 15_000, effort),
        lambda effort: matching(r"(?i:\pL{1,400})", effort),
        lambda effort: matching("a{1,1000}" * 40, effort),
        lambda effort: matching("a?" * 30_000, effort),
        lambda effort: matching("a" * 30_000, effort, told=True),
        lambda effort: json_schema({"anyOf": [{}] * 9000}, effort),
    ],
)
def test_what_takes_long_to_compile_is_refused_by_count(make: Callable[[Effort], object]) -> None:
    with pytest.raises(BadValidator):
        make(effort := Effort())
    assert effort.spent > 50_000


def test_a_long_answer_costs_more_with_a_large_expression() -> None:
    assert matching("[a-z]+").cost == 1
    assert matching("(?i:\\pL{1,20})").cost > 100
    assert json_schema({"$ref": "#"}).cost >= 1_000_000  # it takes any number of steps
