"""JSON schemas of callers: which may be used, and checks of answers by them, in counted steps.

A check ends after so many steps, however a schema multiplies itself: a step is one keyword looked
at, or one schema within it entered, or so many characters of what they compare and describe.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2
from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators
from jsonschema_specifications import (  # type: ignore[import-untyped]
    REGISTRY as SPECIFICATIONS,
)
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from services.router.policy.effort import Effort, TooMuch

MAX_RULE = 65_536
"""Characters of a schema or an expression."""

MAX_PLACE = 200
"""Characters of where a part of a schema stands: deeper ones are told by their beginning."""

MAX_STEPS_OF_SCHEMA = 50_000
"""Of finding out whether a text is a schema."""

EFFORT_OF_STEP = 2
"""Of finding out whether a text is a schema."""

STEPS_OF_REFERENCE = 10
CHARACTERS_OF_STEP = 256
VALUES_OF_STEP = 8
READ_CHARACTERS_OF_STEP = 32
"""Of an answer, which each schema reads anew."""

MOVES_OF_STEP = 2000
"""Of an expression, at worst one for each of its parts and each character of a text."""

UNIQUE_CHARACTERS_OF_STEP = 32
"""Of values that are told apart: each is written out once more."""


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
            return self._first_error(answer, _Check(patterns, {}, effort)) is None
        except (ValueError, ArithmeticError, RecursionError, LookupError, Unresolvable):
            return False

    def _first_error(self, answer: Any, check: "_Check") -> ValidationError | None:
        check.sizes = {**self._sizes, **sizes(answer)}
        # A registry of its own: the library's default one would fetch what a schema refers to.
        bounded = _Bounded(
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


def sizes(value: Any) -> dict[int, int]:
    """About how many characters each list and object within a value has, by its identity."""
    found: dict[int, int] = {}

    def size(inner: Any) -> int:
        if isinstance(inner, dict):
            total = sum(size(each) + len(key) + 2 for key, each in inner.items())
        elif isinstance(inner, list):
            total = sum(size(each) + 2 for each in inner)
        else:
            return _plain_size(inner)
        found[id(inner)] = total
        return total

    size(value)
    return found


def _plain_size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return value.bit_length() // 3 if isinstance(value, int) else 5


class _Check(FormatChecker):
    """One check of a text: what it may take, and the schema's expressions.

    A validator hands its format checker, and nothing else of ours, on to those that it makes for
    the parts of its schema. Formats themselves are not checked.
    """

    def __init__(
        self, patterns: Mapping[str, Any], sizes: Mapping[int, int], effort: Effort
    ) -> None:
        super().__init__(formats=())
        self.spend = effort.spend
        self.patterns = patterns
        self.sizes = sizes

    def size(self, value: Any) -> int:
        """Characters of a value of the schema or of the answer."""
        if isinstance(value, dict | list):
            return self.sizes.get(id(value), 0)
        return _plain_size(value)


_Rule = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]

_APPLIED = frozenset(
    (
        *("allOf", "anyOf", "if", "then", "else", "items", "prefixItems", "contains", "properties"),
        *("additionalProperties", "propertyNames", "dependentSchemas"),
    )
)
"""Keywords that hold schemas, whose steps are counted where they are entered."""


def _counted(keyword: str, rule: _Rule) -> _Rule:
    def bounded(
        validator: Any, value: Any, instance: Any, part: Any
    ) -> Iterable[ValidationError] | None:
        check = validator.format_checker
        # What does not fit is described, with all of the value and often of the rule.
        characters = check.size(instance)
        if keyword == "$ref":
            check.spend(STEPS_OF_REFERENCE + value.count("/"))
        elif keyword in _APPLIED:
            characters += len(value) if isinstance(value, dict | list) else 0
        else:
            characters += check.size(value)
            check.spend(len(value) // VALUES_OF_STEP if isinstance(value, list) else 0)
        check.spend(1 + characters // CHARACTERS_OF_STEP)
        return rule(validator, value, instance, part)

    return bounded


def _pattern(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    check = validator.format_checker
    compiled = check.patterns[wanted]
    check.spend(len(instance) * compiled.programsize // MOVES_OF_STEP)
    if compiled.search(instance) is None:
        yield ValidationError("does not match")


def _unique(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    """The library compares each item with each."""
    if not wanted or not isinstance(instance, list):
        return
    check = validator.format_checker
    check.spend(check.size(instance) // UNIQUE_CHARACTERS_OF_STEP)
    seen = {json.dumps(_alike(item), sort_keys=True) for item in instance}
    if len(seen) < len(instance):
        yield ValidationError("has items that are not unique")


def _alike(value: Any) -> Any:
    """The same for all values that JSON schema calls equal: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _alike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_alike(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_RULES: Mapping[str, _Rule] = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _pattern,
    "uniqueItems": _unique,
}
_extend: Callable[..., Any] = validators.extend
_Bounded = _extend(
    Draft202012Validator, {keyword: _counted(keyword, rule) for keyword, rule in _RULES.items()}
)
_evolve, _descend = _Bounded.evolve, _Bounded.descend


def _evolve_counted(self: Any, **changes: Any) -> Any:
    """Each schema that is entered is a step, also one without keywords."""
    self.format_checker.spend(1)
    return _evolve(self, **changes)


def _descend_counted(self: Any, instance: Any, schema: Any, *rest: Any, **more: Any) -> Any:
    """True and False are entered without a validator of their own."""
    if isinstance(schema, bool):
        self.format_checker.spend(1)
    return _descend(self, instance, schema, *rest, **more)


_Bounded.evolve, _Bounded.descend = _evolve_counted, _descend_counted


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
    check = _Check(_THEIR_PATTERNS, {}, steps)
    try:
        error = _SCHEMAS._first_error(value, check)  # noqa: SLF001 -- of this module
    except TooMuch:
        raise BadValidator("json_schema: takes too long to check") from None
    finally:
        effort.spend(EFFORT_OF_STEP * steps.spent)
    if error is not None:
        raise BadValidator(f"json_schema: is not one: {error.message:.200}")
