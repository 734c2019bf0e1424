"""Whether an answer has the form that was asked for.

Callers may add validators: JSON schema, regular expression, enumeration. What they say is not to be
trusted, so a check takes bounded time and memory: expressions run in RE2, which never backtracks,
schemas may refer to themselves only, and a check of one ends after so many steps.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2
from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry

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

MAX_REPETITIONS = 40_000
"""Sum of an expression's repetition counts. RE2 refuses such ones by their size, but only after it
has spent seconds and a gigabyte on them."""


class BadValidator(ValueError):
    """A validator that cannot be used; the message says which rule it breaks."""


@dataclass(frozen=True)
class Validator:
    """A compiled check of an answer's text; reused for every answer.

    Attributes:
        name: how it is called in reasons: `json_schema`, `regex`, `enum`.
        holds: whether a text passes.
        cost: what a check takes for each character of a text: 1 and more.
    """

    name: str
    holds: Callable[[str], bool]
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether an answer has the wanted form; `failed` names the first check it did not pass."""

    ok: bool
    failed: str = ""


def validate(text: str, checks: Iterable[Validator]) -> Validity:
    """Checks an answer against every validator, in order; without any it is fine."""
    for check in checks:
        if not check.holds(text):
            return Validity(ok=False, failed=check.name)
    return Validity(ok=True)


def one_of(values: Iterable[str]) -> Validator:
    """The answer, without white space around it, is one of these.

    Raises:
        BadValidator: there are none.
    """
    wanted = frozenset(value.strip() for value in values)
    if not wanted:
        raise BadValidator("enum: must name at least one value")
    return Validator("enum", lambda text: text.strip() in wanted)


def matching(expression: str) -> Validator:
    """The whole answer, without white space around it, matches the expression (RE2 syntax).

    Raises:
        BadValidator: it is too long, or RE2 does not know it: back-references and look-around
            cannot be checked in bounded time.
    """
    compiled = _compiled(expression, "regex")
    return Validator("regex", lambda text: compiled.fullmatch(text.strip()) is not None)


def json_schema(schema: str | Mapping[str, Any]) -> Validator:
    """The answer is JSON that the schema accepts (draft 2020-12).

    Raises:
        BadValidator: the schema is none, refers elsewhere, or needs what bounded time excludes.
    """
    told = _parsed(schema)
    wanted: dict[str, str] = {}
    for place, part in _parts(told, "json_schema"):
        _refuse_unbounded(place, part)
        if isinstance(pattern := part.get("pattern"), str):
            wanted[pattern] = f"{place}.pattern"
    if len(wanted) > MAX_PATTERNS:
        rule = f"json_schema: at most {MAX_PATTERNS} patterns, got {len(wanted)}"
        raise BadValidator(rule)
    share = min(MAX_EXPRESSION_BYTES, MAX_SCHEMA_BYTES // max(1, len(wanted)))
    patterns = {pattern: _compiled(pattern, place, share) for pattern, place in wanted.items()}
    try:
        Draft202012Validator.check_schema(told)
    except (SchemaError, RecursionError) as error:
        what = error.message if isinstance(error, SchemaError) else "too deeply nested"
        raise BadValidator(f"json_schema: is not one: {what}") from error
    cost = len(schema if isinstance(schema, str) else json.dumps(schema))
    return Validator("json_schema", lambda text: _accepts(told, patterns, text), cost)


class _Endless(Exception):
    """A check took more steps than it may."""


class _Check(threading.local):
    """The check that runs in this thread now."""

    steps = 0
    patterns: Mapping[str, Any] = {}


_now = _Check()

_Rule = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


def _counted(keyword: str, rule: _Rule) -> _Rule:
    steps = STEPS_OF_REFERENCE if keyword == "$ref" else 1

    def bounded(
        validator: Any, value: Any, instance: Any, part: Any
    ) -> Iterable[ValidationError] | None:
        _now.steps += steps
        if _now.steps > MAX_STEPS:
            raise _Endless
        return rule(validator, value, instance, part)

    return bounded


def _pattern(_: Any, wanted: Any, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and _now.patterns[wanted].search(instance) is None:
        yield ValidationError("does not match")


_RULES: Mapping[str, _Rule] = {**Draft202012Validator.VALIDATORS, "pattern": _pattern}
_extend: Callable[..., Any] = validators.extend
_Bounded = _extend(
    Draft202012Validator, {keyword: _counted(keyword, rule) for keyword, rule in _RULES.items()}
)


def _accepts(schema: Mapping[str, Any], patterns: Mapping[str, Any], text: str) -> bool:
    _now.steps, _now.patterns = 0, patterns
    try:
        told = json.loads(text, parse_constant=_no_json)
        # A registry of its own: the library's default one would fetch what a schema refers to.
        return bool(_Bounded(schema, registry=Registry()).is_valid(told))
    except (ValueError, ArithmeticError, RecursionError, LookupError, _Endless):
        return False


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _parsed(schema: str | Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if len(text) > MAX_RULE:
            raise BadValidator(f"json_schema: at most {MAX_RULE} characters, got {len(text)}")
        told = json.loads(text)
    except (TypeError, RecursionError, json.JSONDecodeError) as error:
        raise BadValidator(f"json_schema: is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise BadValidator("json_schema: must be a JSON object")
    return told


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
            waiting += [(f"{where}[{at}]", one, True) for at, one in enumerate(value)]
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


_REPETITION = re.compile(r"\{(\d+)(?:,(\d*))?\}")


def _compiled(expression: str, place: str, most_bytes: int = MAX_EXPRESSION_BYTES) -> Any:
    if len(expression) > MAX_RULE:
        raise BadValidator(f"{place}: at most {MAX_RULE} characters, got {len(expression)}")
    counts = [max(int(one) for one in pair if one) for pair in _REPETITION.findall(expression)]
    if sum(counts) > MAX_REPETITIONS:
        rule = f"repeats at most {MAX_REPETITIONS} times, all counts together"
        raise BadValidator(f"{place}: {rule}, got {sum(counts)}")
    options = re2.Options()
    options.max_mem = most_bytes
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        what = error.args[0] if error.args else "unknown"
        said = what.decode() if isinstance(what, bytes) else what
        raise BadValidator(f"{place}: RE2 does not take it: {said}") from error
