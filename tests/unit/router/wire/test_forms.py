"""Forms that callers want: what becomes of odd ones, and of many."""

import json

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import Violation
from services.router.wire.forms import KEPT_REFUSALS, all_known, guide_of, validators_of


def broken(terms: pb.Terms) -> dict[str, str]:
    wrong: list[Violation] = []
    validators_of(None, terms, wrong)
    return {one.name: one.rule for one in wrong}


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("json_schema", '{"maximum": ' + "9" * 5000 + "}", "is no JSON"),
        ("json_schema", '{"maximum": Infinity}', "is no JSON"),
        ("json_schema", '{"multipleOf": NaN}', "is no JSON"),
        ("json_schema", '{"pattern": "\\ud800"}', "half a character"),
        ("json_schema", '{"properties": {"\\ud800": {"pattern": "("}}}', "properties.\\ud800"),
        ("json_schema", '{"properties": {"\\ud800": {"type": "a"}}}', "is not one"),
        ("json_schema", '{"$ref": "#/\\ud800"}', "no such schema"),
        ("json_schema", '{"$ref": "#/nope"}', "no such schema"),
        ("json_schema", '{"not":' * 800 + "{}" + "}" * 800, "too deeply nested"),
        ("json_schema", '{"a":' * 12_000, "is no JSON"),
        ("regex", "a{" + "9" * 5000 + "}", "repeats at most"),
        ("regex", "\u00e9(" * 50, "RE2 does not take it"),
    ],
)
def test_a_form_that_cannot_be_used_is_the_callers_fault(kind: str, text: str, said: str) -> None:
    terms, prompt = pb.Terms(), pb.Prompt()
    terms.validators.add(**{kind: text})
    setattr(prompt.response_format, kind, text)
    (rule,) = broken(terms).values()
    assert said in rule
    guide_of(prompt, wrong := [])
    assert said in wrong[0].rule
    rule.encode()  # as a message has to


def test_refused_forms_are_remembered_and_push_out_no_others() -> None:
    def asked(text: str) -> pb.Prompt:
        return pb.Prompt(response_format=pb.ResponseFormat(regex=text))

    guide_of(asked("good"), wrong := [])
    assert not wrong
    bad = [f"(?=a){number}" for number in range(KEPT_REFUSALS + 1)]
    for text in bad:
        guide_of(asked(text), wrong)
    assert len(wrong) == len(bad)
    known = [all_known(asked(text), pb.Terms()) for text in ("good", *bad)]
    assert known == [True, False, *[True] * KEPT_REFUSALS]
    guide_of(asked(bad[-1]), again := [])
    assert again == wrong[-1:]


@pytest.mark.parametrize("answer", ['"\\ud800"', '{"\\ud800": 1}', "9" * 5000, "1e400", "[" * 9000])
def test_no_answer_breaks_a_check(answer: str) -> None:
    schema = {"uniqueItems": True, "pattern": "a", "propertyNames": {"pattern": "b"}, "maximum": 1}
    terms = pb.Terms()
    terms.validators.add(json_schema=json.dumps(schema))
    terms.validators.add(regex="a")
    checks = validators_of(None, terms, [])
    assert [check.holds(answer) for check in checks] == [False, False]


def test_the_forms_of_one_request_are_bounded_together() -> None:
    terms = pb.Terms()
    for number in range(8):
        terms.validators.add(regex=r"(?i:\pL{1,40})" + "b" * number)
    assert broken(terms) == {
        "terms.validators": "the forms of one request take too long to check, all together"
    }
    assert broken(terms)  # kept or not
    del terms.validators[2:]
    assert not broken(terms)


def test_a_form_has_the_steps_that_those_before_it_left() -> None:
    """Else each might take all that a request may."""
    large = "[0-9]{900}" * 27
    terms = pb.Terms()
    for number in range(5):
        terms.validators.add(regex=f"{number}{large}")
    assert list(broken(terms)) == ["terms.validators"]
    assert not all_known(pb.Prompt(), terms)  # nothing is held against the one that was too much
    del terms.validators[:-1]
    assert not broken(terms)


def test_what_is_misspelt_is_named_however_much_of_it_there_is() -> None:
    terms = pb.Terms()
    for number in range(8):
        terms.validators.add(regex=f"({number}")
    assert list(broken(terms)) == [f"terms.validators[{number}].regex" for number in range(8)]


def test_equal_forms_of_one_request_count_once() -> None:
    terms = pb.Terms()
    for _ in range(8):
        terms.validators.add(regex=r"(?i:\pL{1,40})")
    assert not broken(terms)
