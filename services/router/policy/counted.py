"""JSON schema's own validator with every step counted, and none that takes more than it says.

Built on the library's validator by wrapping each keyword's rule; those whose time the library does
not bound have rules of ours. A step is one keyword looked at, or one schema entered, or so many
characters of what they compare and describe.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators

from services.router.policy.effort import Effort

STEPS_OF_REFERENCE = 10
CHARACTERS_OF_STEP = 256
VALUES_OF_STEP = 8

MOVES_OF_STEP = 2000
"""Of an expression, at worst one for each of its parts and each character of a text."""

UNIQUE_CHARACTERS_OF_STEP = 32
"""Of values that are told apart: each is written out once more."""


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


class Check(FormatChecker):
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
Bounded = _extend(
    Draft202012Validator, {keyword: _counted(keyword, rule) for keyword, rule in _RULES.items()}
)
_evolve, _descend = Bounded.evolve, Bounded.descend


def _evolve_counted(self: Any, **changes: Any) -> Any:
    """Each schema that is entered is a step, also one without keywords."""
    self.format_checker.spend(1)
    return _evolve(self, **changes)


def _descend_counted(self: Any, instance: Any, schema: Any, *rest: Any, **more: Any) -> Any:
    """True and False are entered without a validator of their own."""
    if isinstance(schema, bool):
        self.format_checker.spend(1)
    return _descend(self, instance, schema, *rest, **more)


Bounded.evolve, Bounded.descend = _evolve_counted, _descend_counted
