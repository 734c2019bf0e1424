"""What engines are told of schemas: only what a grammar keeps; the rest is refused by name."""

import json
from typing import Any

import pytest

from services.router.policy.effort import Effort
from services.router.policy.kept import NotKept
from services.router.policy.schema_rules import told

B = {"type": "boolean"}
MANY = range(100)


def refused(schema: Any) -> str:
    with pytest.raises(NotKept) as caught:
        told(json.dumps(schema))
    return str(caught.value)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "number", "minimum": 0}, "minimum"),
        ({"type": ["integer", "number"], "minimum": 5}, "minimum"),
        ({"type": ["number", "integer"], "exclusiveMaximum": 5}, "exclusiveMaximum"),
        ({"type": "number", "multipleOf": 7}, "multipleOf"),
        ({"type": "integer", "multipleOf": 7}, "multipleOf"),
        ({"type": "integer", "not": {"const": 1}}, "not"),
        ({"minimum": 5}, "minimum"),
        ({"required": ["a"]}, "required"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"type": "object", "properties": {"a": B}, "required": ["b"]}, "required"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"type": "object", "maxProperties": 1}, "maxProperties"),
        ({"type": "object", "propertyNames": {"enum": ["x"]}}, "propertyNames"),
        ({"type": "object", "patternProperties": {"^a": B}}, "patternProperties"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "dependentSchemas": {"a": B}}, "dependentSchemas"),
        (
            {"type": "object", "properties": {"a": B}, "additionalProperties": B},
            "additionalProperties",
        ),
        ({"type": "string", "format": "date"}, "format"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "pattern"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": B}, "contains"),
        ({"type": "array", "prefixItems": [B]}, "prefixItems"),
        ({"type": "string", "enum": ["a", "bb"], "minLength": 2}, "minLength"),
        ({"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": B}}, "minimum"),
        ({"anyOf": [B], "type": "boolean"}, "type"),
        ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, "allOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"oneOf": [{"type": "integer"}, {}]}, "oneOf"),
        ({"if": B, "then": B, "else": B}, "else"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_what_engines_do_not_keep_is_refused_by_name(
    schema: dict[str, Any], keyword: str, *, inside: bool
) -> None:
    asked = {"type": "array", "items": schema} if inside else schema
    if inside:
        asked |= {"$defs": schema.get("$defs", {})}
    place = "json_schema.items." if inside else "json_schema."
    told_why = refused(asked)
    assert told_why.startswith(f"{place}{keyword}: engines do not keep it ")
    assert "ask for it as a validator" in told_why


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ({"enum": []}, "enum: must name at least one value"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "no integer is between its bounds"),
        ({"type": "integer", "exclusiveMinimum": 4, "maximum": 4}, "no integer is between"),
        (
            {"type": "string", "minLength": 5, "maxLength": 3},
            "minLength 5 is more than",
        ),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems 3 is more than maxItems 2"),
        ({"type": "array", "items": False, "minItems": 1}, "no list has at least 1 and no items"),
        ({"type": "integer", "const": "a"}, "holds a value that is not of its type"),
        ({"type": "string", "maxLength": 10**9}, "engines count to 1000"),
        ({"type": "integer", "minimum": 1.5}, "must be a whole number"),
        ({"type": "integer", "maximum": 1e300}, "at most 15 digits"),
        ({"type": "integer", "minimum": float("inf")}, "at most 15 digits"),
        ({"type": "integer", "minimum": float("nan")}, "at most 15 digits"),
        ({"type": "integer", "enum": [float("inf")]}, "not of its type"),
        ({"enum": [float("nan")]}, "no JSON"),
        ({"const": "\ud800"}, "half of a character"),
        (False, "nothing satisfies it"),
        ({"$ref": "#"}, "engines keep none that hold themselves"),
        ({"$ref": "#/$defs/none"}, "names no schema"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "hold themselves"),
        (
            {"$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(20)}}
            | {"$ref": "#/$defs/a0"},
            "too large|hold themselves",
        ),
    ],
)
def test_what_cannot_be_is_said_clearly(schema: Any, rule: str) -> None:
    with pytest.raises(NotKept, match=rule):
        told(json.dumps(schema))


@pytest.mark.parametrize(
    "name",
    ['a" [0-9]{3,3} "b', "a\\b", "a\nb", "a\tb", "x" * 257, "\ud800", 'a" ' + "(" * 99],
)
def test_names_that_engines_would_read_as_grammar_are_refused(name: str) -> None:
    schema = {"type": "object", "properties": {name: B}, "required": [name]}
    assert "json_schema.properties: a name " in refused(schema)
    assert refused({"type": "object", "required": [name]})


def test_values_with_such_characters_are_texts_and_nothing_else() -> None:
    rules = told(json.dumps({"const": {'a" [0-9] "b': "\\"}}))
    first = rules.partition("\nws ::= ")[0]
    assert "[0-9]" not in first
    assert "\\u005B0\\u002D9\\u005D" in first


@pytest.mark.parametrize(
    ("schema", "rules"),
    [
        ({"type": "integer"}, "root ::= integer"),
        ({"type": "integer", "minimum": 0, "maximum": 9}, "root ::= r0\nr0 ::= d"),
        ({"type": "boolean", "title": "x", "default": True}, "root ::= boolean"),
        ({}, "root ::= any"),
        ({"type": "object"}, "root ::= map"),
        ({"allOf": [{"type": "null"}]}, "root ::= null"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "number"}}}, "root ::= number"),
        ({"type": "string", "maxLength": 3}, 'root ::= r0\nr0 ::= "\\"" letter{0,3} "\\""'),
    ],
)
def test_what_is_kept_becomes_rules(schema: Any, rules: str) -> None:
    assert told(json.dumps(schema)).startswith(f"{rules}\n")


def test_alternatives_branch_where_they_differ() -> None:
    rules = told('{"enum": ["bare", "bars", "bar"]}').partition("\nws ::= ")[0]
    assert rules.count("bar") == 1


def _patterns(*patterns: str) -> dict[str, Any]:
    strings = {str(at): {"type": "string", "pattern": each} for at, each in enumerate(patterns)}
    return {
        "type": "object",
        "properties": strings,
        "required": [*strings],
        "additionalProperties": False,
    }


def test_a_pattern_that_is_read_in_many_ways_is_told_as_its_automaton_or_refused() -> None:
    assert "s0 ::=" in told(json.dumps(_patterns("(.*b?){0,10}a")))
    assert "too many ways" in refused(_patterns(r"(\w+ ?){1,200}"))


def test_all_patterns_of_a_schema_together_are_bounded_and_equal_ones_count_once() -> None:
    costly = [f".*a.{{{12 + at}}}" for at in range(60)]
    assert "takes too long" in refused(_patterns(*costly))
    assert told(json.dumps(_patterns(*costly[:1] * 20)))


MUCH = {
    "integers": {"anyOf": [{"type": "integer", "minimum": 1 - at, "maximum": 777} for at in MANY]},
    "texts": {"anyOf": [{"type": "string", "minLength": at, "maxLength": 999} for at in MANY]},
    "lists": {"anyOf": [{"type": "array", "minItems": at, "maxItems": 999} for at in MANY]},
    "names": {
        "type": "object",
        "properties": {str(at): B for at in MANY},
        "required": list(map(str, MANY)),
    },
    "values": {"enum": [f"{at}" for at in range(1000)]},
    "parts": {"$defs": {"a": {"anyOf": [B] * 50}}, "anyOf": [{"$ref": "#/$defs/a"}] * 50},
    "patterns": _patterns(*(f"^[{chr(97 + at)}!]{{{at}}}[^x]$" for at in range(26))),
}


@pytest.mark.parametrize("much", MUCH)
def test_whatever_writing_the_rules_takes_is_counted(much: str) -> None:
    """It holds the interpreter, and so everybody: 4 KB of bounded integers took a second."""
    told(json.dumps(MUCH[much]), effort := Effort())
    assert effort.spent > 1000
    with pytest.raises(NotKept, match="takes too long"):
        told(json.dumps(MUCH[much]), Effort(effort.spent - 1))


def test_integers_of_the_same_bounds_are_written_once() -> None:
    bounded = {"type": "integer", "minimum": -123456789012345, "maximum": 987654321098765}
    told(json.dumps({"anyOf": [bounded]}), once := Effort())
    told(json.dumps({"anyOf": [bounded] * 400}), often := Effort())
    assert often.spent < once.spent + 500
