"""Which schemas may be used, and that checks by them are counted."""

import json
import re
from typing import Any

import pytest
import re2
from jsonschema import Draft202012Validator, SchemaError

from services.router.policy.effort import MAX_STEPS, Effort, TooMuch
from services.router.policy.schemas import BadValidator, Schema, schema_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def accepts_text(schema: Schema, text: str, patterns: dict[str, Any]) -> bool:
    try:
        return schema.accepts(text, patterns, Effort(MAX_STEPS))
    except TooMuch:
        return False


def accepts(schema: dict[str, Any], answer: Any) -> bool:
    return accepts_text(schema_of(json.dumps(schema), Effort()), json.dumps(answer), {})


@pytest.mark.parametrize(
    "to",
    ["#/nope", "#/%ff", "#/~2", "#name", "#/default", "#/enum/0", "#/properties", "#/allOf/x"],
)
def test_a_reference_to_what_is_no_schema_inside_is_refused(to: str) -> None:
    hidden = {"patternProperties": {"(a+)+$": {}}}
    schema = {
        "default": hidden,
        "enum": [hidden],
        "properties": {"patternProperties": {}},
        "allOf": [{"$ref": to}],
    }
    with pytest.raises(BadValidator, match=r"allOf\[0\].\$ref: there is no such schema inside"):
        schema_of(json.dumps(schema), Effort())


@pytest.mark.parametrize("to", ["#", "#/properties/a", "#/$defs/a~1b", "#name", "#/$defs/any"])
def test_a_reference_to_one_inside_is_followed(to: str) -> None:
    schema = {
        "properties": {"a": {"type": ["object", "number"]}, "b": {"$ref": to}},
        "$defs": {"a/b": {"minimum": 1}, "any": True, "named": {"$anchor": "name"}},
    }
    assert accepts(schema, {"a": 1, "b": 1})
    assert accepts(schema, {"b": "x"}) is (to != "#/properties/a")


def test_a_part_that_names_its_dialect_is_checked_by_the_same_rules() -> None:
    """The library's own validator would run its pattern by the standard library."""
    schema = schema_of(
        json.dumps({"$schema": DIALECT, "allOf": [{"$schema": DIALECT, "pattern": "x"}]}), Effort()
    )

    class Anything:
        programsize = 1

        def search(self, _: str) -> bool:
            return True

    assert accepts_text(schema, '"y"', {"x": Anything()})


@pytest.mark.parametrize(
    "keyword", ["unevaluatedItems", "unevaluatedProperties", "patternProperties", "$dynamicRef"]
)
def test_keywords_that_cannot_be_counted_are_refused(keyword: str) -> None:
    with pytest.raises(BadValidator, match=re.escape(f"not.{keyword}: is not supported")):
        schema_of(json.dumps({"not": {keyword: False}}), Effort())


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([], True),
        ([1, True, "1", None, [1], {"1": 1}], True),
        ([0, False, ""], True),
        ([1, 1.0], False),
        ([{"a": [1], "b": 2}, {"b": 2.0, "a": [1.0]}], False),
        ([[True], [1]], True),
        ([1e300, 1e300], False),
        ([0.1, 0.1], False),
        ([-0.0, 0], False),
    ],
)
def test_items_are_unique_as_the_library_says(items: list[Any], *, unique: bool) -> None:
    schema = {"uniqueItems": True}
    assert Draft202012Validator(schema).is_valid(items) is unique
    assert accepts(schema, items) is unique
    assert accepts({"uniqueItems": False}, items)


def test_matches_count_by_the_size_of_their_expression() -> None:
    schema = schema_of(json.dumps({"allOf": [{"pattern": "x"}] * 20}), Effort())
    answer = json.dumps("x" * 4000)
    assert accepts_text(schema, answer, {"x": re2.compile("x")})
    assert not accepts_text(schema, answer, {"x": re2.compile("x|[ab]*a[ab]{900}")})


def test_items_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("jsonschema._keywords.uniq")
    assert accepts({"uniqueItems": True}, [{"a": at} for at in range(5000)])


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"allOf": [{"items": {}}] * 300}, [0] * 5000),
        ({"allOf": [{"items": True}] * 300}, [0] * 5000),
        ({"allOf": [{"contains": {"const": 1}}] * 300}, [0] * 5000 + [1]),
        ({"allOf": [{"propertyNames": True}] * 300}, {str(at): 1 for at in range(5000)}),
        ({"anyOf": [{"type": "integer"}] * 300 + [{}]}, "x" * 25_000),
        ({"anyOf": [{"type": "integer"}] * 300 + [{}]}, ["x" * 25_000]),
        ({"items": {"not": {"enum": list(range(5000))}}}, [1.5] * 1000),
        (
            {
                "$defs": {"a": {"required": [str(at) for at in range(1000)]}},
                "items": {"$ref": "#/$defs/a"},
            },
            [{str(at): 1 for at in range(1000)}] * 150,
        ),
        ({"allOf": [{"uniqueItems": True}] * 25}, list(range(5000))),
        ({"items": {"not": {"const": "x" * 20_000}}}, [1] * 1000),
        (
            {"$defs": {"a": {"const": [0] * 5000}}, "allOf": [{"$ref": "#/$defs/a"}] * 150},
            [0] * 5000,
        ),
    ],
)
def test_a_check_ends_by_all_that_it_looks_at(schema: dict[str, Any], answer: Any) -> None:
    """Each of these would accept its answer, after a long time."""
    assert not accepts(schema, answer)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"$ref": {"type": "string"}, "format": {"enum": []}}},
        {"type": ["string", "null"], "$comment": "a", "title": "b", "examples": [1]},
        {"type": ["string", "string"]},
        {"type": "text"},
        {"required": ["a", "a"]},
        {"required": [{"a": 1}, {"a": 2}]},
        {"minLength": -1},
        {"$anchor": "no anchor"},
        {"$recursiveRef": "#"},
        {"$recursiveRef": 1},
        {"$vocabulary": {"x": 1}},
        {"definitions": {"a": 1}},
        {"dependencies": {"a": ["b"]}},
        {"allOf": []},
        {"properties": {"a": {"not": {"maximum": "1"}}}},
        {"$comment": 1},
        {"format": 1},
        {"additionalProperties": False, "items": True},
        {"contentSchema": 1},
    ],
)
def test_what_is_a_schema_is_as_the_draft_says(schema: dict[str, Any]) -> None:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        with pytest.raises(BadValidator, match="is not one"):
            schema_of(json.dumps(schema), Effort())
    else:
        schema_of(json.dumps(schema), Effort())


def test_where_a_part_stands_is_told_in_few_characters() -> None:
    schema = schema_of(json.dumps({"k" * 30_000: [{}] * 900}), Effort())
    assert max(len(place) for place, _ in schema.parts) <= 200
