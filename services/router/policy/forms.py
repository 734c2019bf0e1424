"""Whether an answer has the form that was asked for.

Callers may add validators: JSON schema, regular expression, enumeration. What they say is not to be
trusted, so a check takes bounded time and memory: expressions run in RE2, which never backtracks,
schemas may refer to themselves only, and a check of one ends after so many steps.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2
from jsonschema import Draft202012Validator, FormatChecker, SchemaError, ValidationError, validators
from referencing import Registry

from services.router.policy.automata import TooLarge, refuse_large
from services.router.policy.expressions import NoGrammar

MAX_RULE = 65_536
"""Characters of a schema or an expression."""

MAX_STEPS = 20_000
"""Keywords of a schema that one check may look at, so that one that multiplies itself ends."""

STEPS_OF_REFERENCE = 10

MAX_EXPRESSION_BYTES = 1 << 20
"""Memory of a compiled expression."""

MAX_SCHEMA_BYTES = 2 << 20
MAX_PATTERNS = 64
"""Expressions of one schema, and the memory of all of them together."""

MAX_PARTS = 1000
"""Schemas within a schema that engines are told."""

MAX_REPETITIONS = 40_000
"""Of an expression, all counts together. RE2 refuses such ones by their size, but only after it has
spent seconds and a gigabyte on them."""


class BadValidator(ValueError):
    """A validator that cannot be used; the message says which rule it breaks."""


@dataclass(frozen=True)
class Validator:
    """A compiled check of an answer's text; reused for every answer.

    Attributes:
        holds: whether a text passes.
        cost: what a check takes for each character of a text: 1 and more.
    """

    holds: Callable[[str], bool]
    cost: int = 1


def validate(text: str, checks: Iterable[Validator]) -> bool:
    """Whether an answer passes every validator; without any it does."""
    return all(check.holds(text) for check in checks)


def one_of(values: Iterable[str]) -> Validator:
    """The answer, without white space around it, is one of these.

    Raises:
        BadValidator: there are none.
    """
    wanted = frozenset(value.strip() for value in values)
    if not wanted:
        raise BadValidator("enum: must name at least one value")
    return Validator(lambda text: text.strip() in wanted)


def matching(expression: str) -> Validator:
    """The whole answer, without white space around it, matches the expression (RE2 syntax).

    Raises:
        BadValidator: it is too long, or RE2 does not know it: back-references and look-around
            cannot be checked in bounded time.
    """
    compiled = _compiled(expression, "regex")
    return Validator(lambda text: compiled.fullmatch(text.strip()) is not None)


def json_schema(schema: str | Mapping[str, Any]) -> Validator:
    """The answer is JSON that the schema accepts (draft 2020-12).

    Raises:
        BadValidator: the schema is none, refers elsewhere, or needs what bounded time excludes.
    """
    parsed = _parsed(schema)
    wanted: dict[str, str] = {}
    for place, part in _parts(parsed, "json_schema"):
        _refuse_unbounded(place, part)
        if isinstance(pattern := part.get("pattern"), str):
            wanted[pattern] = f"{place}.pattern"
    if len(wanted) > MAX_PATTERNS:
        rule = f"json_schema: at most {MAX_PATTERNS} patterns, got {len(wanted)}"
        raise BadValidator(rule)
    share = min(MAX_EXPRESSION_BYTES, MAX_SCHEMA_BYTES // max(1, len(wanted)))
    patterns = {pattern: _compiled(pattern, place, share) for pattern, place in wanted.items()}
    try:
        Draft202012Validator.check_schema(parsed)
    except (SchemaError, RecursionError) as error:
        what = error.message if isinstance(error, SchemaError) else "too deeply nested"
        raise BadValidator(f"json_schema: is not one: {what}") from error
    cost = len(schema if isinstance(schema, str) else json.dumps(schema))
    return Validator(lambda text: _accepts(parsed, patterns, text), cost)


def refuse_untold(schema: str) -> None:
    """Refuses a schema that holds what engines read otherwise, or cannot take.

    They cut names at the character NUL, make an automaton of each pattern, and rules of each part.

    Raises:
        BadValidator: it does.
    """
    parts = list(_parts(_parsed(schema), "json_schema"))
    if len(parts) > MAX_PARTS:
        raise BadValidator(f"json_schema: at most {MAX_PARTS} schemas inside, got {len(parts)}")
    for place, part in parts:
        for key in NAMES_INSIDE:
            if isinstance(part.get(key), dict) and "\0" in "".join(part[key]):
                raise BadValidator(f"{place}.{key}: the character NUL cannot be told")
        if isinstance(pattern := part.get("pattern"), str):
            try:
                refuse_large(pattern)
            except (NoGrammar, TooLarge) as error:
                raise BadValidator(f"{place}.pattern: {error}") from error


class _Endless(Exception):
    """A check took more steps than it may."""


class _Check(FormatChecker):
    """One check of a text: the steps that it has left, and the schema's expressions.

    A validator hands its format checker, and nothing else of ours, on to those that it makes for
    the parts of its schema. Formats themselves are not checked.
    """

    def __init__(self, patterns: Mapping[str, Any]) -> None:
        super().__init__(formats=())
        self.left = MAX_STEPS
        self.patterns = patterns


_Rule = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def _counted(keyword: str, rule: _Rule) -> _Rule:
    steps = STEPS_OF_REFERENCE if keyword == "$ref" else 1

    def bounded(
        validator: Any, value: Any, instance: Any, part: Any
    ) -> Iterable[ValidationError] | None:
        check = validator.format_checker
        check.left -= steps
        if check.left < 0:
            raise _Endless
        return rule(validator, value, instance, part)

    return bounded


def _pattern(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    patterns = validator.format_checker.patterns
    if isinstance(instance, str) and patterns[wanted].search(instance) is None:
        yield ValidationError("does not match")


_RULES: Mapping[str, _Rule] = {**Draft202012Validator.VALIDATORS, "pattern": _pattern}
_extend: Callable[..., Any] = validators.extend
_Bounded = _extend(
    Draft202012Validator, {keyword: _counted(keyword, rule) for keyword, rule in _RULES.items()}
)


def _accepts(schema: Mapping[str, Any], patterns: Mapping[str, Any], text: str) -> bool:
    try:
        answer = json.loads(text, parse_constant=_no_json)
        # A registry of its own: the library's default one would fetch what a schema refers to.
        check = _Bounded(schema, registry=Registry(), format_checker=_Check(patterns))
        return bool(check.is_valid(answer))
    except (ValueError, ArithmeticError, RecursionError, LookupError, _Endless):
        return False


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _parsed(schema: str | Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if len(text) > MAX_RULE:
            raise BadValidator(f"json_schema: at most {MAX_RULE} characters, got {len(text)}")
        parsed = json.loads(text)
    except (TypeError, RecursionError, json.JSONDecodeError) as error:
        raise BadValidator(f"json_schema: is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadValidator("json_schema: must be a JSON object")
    return parsed


NAMES_INSIDE = frozenset(("properties", "$defs", "definitions", "dependentSchemas"))
"""Keywords whose keys are names, not keywords."""

PLAIN_VALUES = frozenset(("enum", "const", "default", "examples"))
"""Keywords whose values are no schemas."""


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema within a schema, with where it stands."""
    waiting = [(place, schema, True)]
    while waiting:
        where, value, is_schema = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{where}[{at}]", part, True) for at, part in enumerate(value)]
        elif isinstance(value, dict):
            if is_schema:
                yield where, value
            waiting += [
                (f"{where}.{key}", inner, not (is_schema and key in NAMES_INSIDE))
                for key, inner in value.items()
                if not (is_schema and key in PLAIN_VALUES)
            ]


def _refuse_unbounded(place: str, part: Mapping[str, Any]) -> None:
    for keyword in ("patternProperties", "$dynamicRef", "$id", "$schema"):
        value = part.get(keyword)
        if keyword == "$schema" and str(value).rstrip("#").endswith("draft/2020-12/schema"):
            continue
        if value is not None:
            raise BadValidator(f"{place}.{keyword}: is not supported, got {value!r:.80}")
    to = part.get("$ref")
    if to is not None and not (isinstance(to, str) and to.startswith("#")):
        raise BadValidator(f"{place}.$ref: must stay within the schema, got {to!r:.80}")


_REPETITION = re.compile(r"\{(\d*)(?:,(\d*))?\}")


def repetitions(expression: str) -> list[int]:
    """The count of each ``{n}``, ``{n,}``, ``{n,m}`` and ``{,m}`` of an expression, the larger."""
    counts = (pair for pair in _REPETITION.findall(expression) if any(pair))
    return [max(int(count) for count in pair if count) for pair in counts]


def _compiled(expression: str, place: str, most_bytes: int = MAX_EXPRESSION_BYTES) -> Any:
    if len(expression) > MAX_RULE:
        raise BadValidator(f"{place}: at most {MAX_RULE} characters, got {len(expression)}")
    repeated = sum(repetitions(expression))
    if repeated > MAX_REPETITIONS:
        rule = f"repeats at most {MAX_REPETITIONS} times, all counts together"
        raise BadValidator(f"{place}: {rule}, got {repeated}")
    options = re2.Options()
    options.max_mem = most_bytes
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        what = error.args[0] if error.args else "unknown"
        said = what.decode() if isinstance(what, bytes) else what
        raise BadValidator(f"{place}: RE2 does not take it: {said}") from error
