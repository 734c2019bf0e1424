"""JSON schemas of callers: which may be used, and checks of answers by them, in counted steps.

A check ends after so many steps, however a schema multiplies itself; `counted` says what is one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2
from jsonschema import Draft202012Validator, ValidationError
from jsonschema_specifications import (  # type: ignore[import-untyped]
    REGISTRY as SPECIFICATIONS,
)
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from services.router.policy.counted import STEPS_OF_REFERENCE, Bounded, Check, sizes
from services.router.policy.effort import Effort, TooMuch

MAX_RULE = 65_536
"""Characters of a schema or an expression."""

MAX_PLACE = 200
"""Characters of where a part of a schema stands: deeper ones are told by their beginning."""

MAX_STEPS_OF_SCHEMA = 50_000
"""Of finding out whether a text is a schema."""

EFFORT_OF_STEP = 2
"""Of finding out whether a text is a schema."""

READ_CHARACTERS_OF_STEP = 32
"""Of an answer, which each schema reads anew."""


class BadValidator(ValueError):
    """A validator that cannot be used; the message says which rule it breaks."""


@dataclass(frozen=True)
class Schema:
    """A schema that may be used.

    Attributes:
        root: the schema itself.
        parts: every schema within it, and itself, with where it stands.
    """

    root: Mapping[str, Any]
    parts: tuple[tuple[str, Mapping[str, Any]], ...]
    _resolver: Any = field(repr=False)
    _sizes: Mapping[int, int] = field(repr=False)

    @property
    def refers(self) -> bool:
        """Whether a part is told as another one's name, so that it may multiply itself."""
        return any("$ref" in part for _, part in self.parts)

    def accepts(self, text: str, patterns: Mapping[str, Any], effort: Effort) -> bool:
        """Whether a text is JSON that it accepts.

        Args:
            text: an answer.
            patterns: its expressions, compiled.
            effort: what the check takes is counted there.

        Raises:
            TooMuch: that was not left of it.
        """
        effort.spend(len(text) // READ_CHARACTERS_OF_STEP)
        try:
            answer = json.loads(text, parse_constant=_no_json)
            return self._first_error(answer, Check(patterns, {}, effort)) is None
        except (ValueError, ArithmeticError, RecursionError, LookupError, Unresolvable):
            return False

    def _first_error(self, answer: Any, check: Check) -> ValidationError | None:
        check.sizes = {**self._sizes, **sizes(answer)}
        # A registry of its own: the library's default one would fetch what a schema refers to.
        bounded = Bounded(
            self.root, registry=Registry(), _resolver=self._resolver, format_checker=check
        )
        return next(bounded.iter_errors(answer), None)


def schema_of(text: str, effort: Effort) -> Schema:
    """Reads a schema (draft 2020-12).

    Raises:
        TooMuch: it takes more than is left of `effort`.
        BadValidator: it is none, refers elsewhere, or needs what bounded time excludes.
    """
    parsed = _parsed(text)
    parts = tuple(_parts(parsed, "json_schema"))
    for place, part in parts:
        _refuse_unbounded(place, part)
        # One that names its dialect would be handed to the library's own, unbounded, validator.
        part.pop("$schema", None)
    try:
        _refuse_no_schema(parsed, effort)
        found = _found(parsed, parts)
    except RecursionError:
        raise BadValidator("json_schema: is not one: too deeply nested") from None
    _refuse_lost(found, effort)
    return found


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MAX_RULE:
        raise BadValidator(f"json_schema: at most {MAX_RULE} characters, got {len(text)}")
    try:
        parsed = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise BadValidator(f"json_schema: is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadValidator("json_schema: must be a JSON object")
    return parsed


NAMES_INSIDE = frozenset(("properties", "$defs", "definitions", "dependentSchemas"))
"""Keywords whose keys are names, not keywords."""

PLAIN_VALUES = frozenset(("enum", "const", "default", "examples"))
"""Keywords whose values are no schemas."""


def _parts(schema: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with where it stands."""
    waiting = [(place, schema, True)]
    while waiting:
        where, value, is_schema = waiting.pop()
        if isinstance(value, list):
            waiting += [(_at(where, f"[{at}]"), part, True) for at, part in enumerate(value)]
        elif isinstance(value, dict):
            if is_schema:
                yield where, value
            waiting += [
                (_at(where, f".{key}"), inner, not (is_schema and key in NAMES_INSIDE))
                for key, inner in value.items()
                if not (is_schema and key in PLAIN_VALUES)
            ]


def _at(where: str, further: str) -> str:
    return f"{where}{further}" if len(where) + len(further) <= MAX_PLACE else where


_UNBOUNDED = ("patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef")
"""The library walks what these need without a rule of ours, or by expressions of its own."""


def _refuse_unbounded(place: str, part: Mapping[str, Any]) -> None:
    for keyword in (*_UNBOUNDED, "$id", "$schema"):
        value = part.get(keyword)
        if keyword == "$schema" and str(value).rstrip("#").endswith("draft/2020-12/schema"):
            continue
        if value is not None:
            raise BadValidator(f"{place}.{keyword}: is not supported, got {value!r:.80}")
    to = part.get("$ref")
    if to is not None and not (isinstance(to, str) and to.startswith("#")):
        raise BadValidator(f"{place}.$ref: must stay within the schema, got {to!r:.80}")


def _found(root: Mapping[str, Any], parts: tuple[tuple[str, Mapping[str, Any]], ...]) -> Schema:
    resource: Resource[Any] = DRAFT202012.create_resource(root)
    resolver = Registry().with_resource("", resource).crawl().resolver()
    return Schema(root, parts, resolver, sizes(root))


def _refuse_lost(schema: Schema, effort: Effort) -> None:
    """Refuses references to what is no schema of those that were looked at."""
    known = {id(part) for _, part in schema.parts}
    seen: set[str] = set()
    for place, part in schema.parts:
        to = part.get("$ref")
        if to is None or to in seen:
            continue
        seen.add(to)
        effort.spend(EFFORT_OF_STEP * (STEPS_OF_REFERENCE + to.count("/")))
        try:
            target = schema._resolver.lookup(to).contents  # noqa: SLF001 -- of this module
        except (Unresolvable, ValueError, LookupError, TypeError):
            target = None
        if not isinstance(target, bool) and id(target) not in known:
            raise BadValidator(f"{place}.$ref: there is no such schema inside, got {to!r:.80}")


def _flat(value: Any) -> Any:
    """A part of the metaschema, with references to the one that is put together."""
    if isinstance(value, dict):
        if isinstance(value.get("$dynamicRef"), str):
            return {"$ref": "#"}
        return {key: _flat(each) for key, each in value.items()}
    if isinstance(value, str) and value.startswith("meta/"):
        return value[value.index("#") :]
    return [_flat(each) for each in value] if isinstance(value, list) else value


def _schema_of_schemas() -> Schema:
    """The draft's own metaschema in one piece: as it is published it takes four times as long."""
    published: Mapping[str, Any] = Draft202012Validator.META_SCHEMA
    pieces = [SPECIFICATIONS.contents(f"{_DRAFT}/{one['$ref']}") for one in published["allOf"]]
    root: dict[str, Any] = {"type": published["type"], "properties": {}, "$defs": {}}
    for piece in (*pieces, published):
        for names in ("properties", "$defs"):
            root[names] |= _flat(piece.get(names, {}))
    return _found(root, ())


_DRAFT = "https://json-schema.org/draft/2020-12"
_SCHEMAS = _schema_of_schemas()
_THEIR_PATTERNS = {
    part["pattern"]: re2.compile(part["pattern"])
    for _, part in _parts(_SCHEMAS.root, "")
    if "pattern" in part and isinstance(part["pattern"], str)
}


def _refuse_no_schema(value: Mapping[str, Any], effort: Effort) -> None:
    steps = Effort(MAX_STEPS_OF_SCHEMA)
    check = Check(_THEIR_PATTERNS, {}, steps)
    try:
        error = _SCHEMAS._first_error(value, check)  # noqa: SLF001 -- of this module
    except TooMuch:
        raise BadValidator("json_schema: takes too long to check") from None
    finally:
        effort.spend(EFFORT_OF_STEP * steps.spent)
    if error is not None:
        raise BadValidator(f"json_schema: is not one: {error.message:.200}")
