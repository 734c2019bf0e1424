"""What of a JSON schema engines keep: a table of keywords for each type, and bounds.

`schema_rules` writes what is kept as a grammar; whatever else binds an answer is refused by name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_NAME = 256
"""Characters of a property's name."""

MAX_DEPTH = 32
"""Schemas within each other, references followed."""

MAX_WORK = 20_000
"""Schemas, names and values that one grammar is made of, each counted where it is used."""

LETTERS_OF_WORK = 10
"""Letters of names, values and patterns that count as one."""

MAX_LENGTH = 1000
"""Of a text or a list, where the schema bounds it: engines count no further."""

MAX_OPTIONAL = 64
"""Properties of one object that may be left out."""

MAX_DIGITS = 15
"""Of an integer: more are not exact everywhere."""

KEPT_OF_TYPES: Mapping[str, frozenset[str]] = {
    "null": frozenset(),
    "boolean": frozenset(),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "number": frozenset(),
    "string": frozenset(("minLength", "maxLength", "pattern")),
    "array": frozenset(("items", "minItems", "maxItems")),
    "object": frozenset(("properties", "required", "additionalProperties")),
}
"""Keywords that are kept beside each type."""

ALONE = ("$ref", "anyOf", "oneOf", "allOf", "const", "enum")
"""Keywords that are kept where nothing else is asked; `const` and `enum` beside a type too."""


class NotKept(ValueError):
    """A schema asks for what engines do not keep; the message says where and what."""


LARGEST: int = 10**MAX_DIGITS - 1

ASSERTIONS = frozenset(
    (*ALONE, "type", "not", "if", "then", "else", "format", "prefixItems", "additionalItems")
).union(
    *KEPT_OF_TYPES.values(),
    ("$dynamicRef", "$anchor", "$dynamicAnchor", "$id", "multipleOf"),
    ("contentEncoding", "contentMediaType", "contentSchema"),
    ("contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems"),
    ("patternProperties", "propertyNames", "minProperties", "maxProperties"),
    ("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
)
"""Keywords that say something about answers."""


def why(where: str) -> str:
    """Why a keyword is refused."""
    return f"engines do not keep it {where}; ask for it as a validator"


def beside(key: str) -> frozenset[str]:
    """What a keyword of `ALONE` is kept beside."""
    return frozenset(("type",)) if key in ("const", "enum") else frozenset()


def types_of(part: Mapping[str, Any], place: str, asked: Iterable[str]) -> list[str]:
    """The types a schema names, or means by its keywords."""
    kind = part.get("type")
    if kind is None:
        asked = set(asked)
        return [
            name
            for name, key in (("object", "properties"), ("array", "items"))
            if key in asked and asked <= KEPT_OF_TYPES[name]
        ]
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if not kinds:
        raise NotKept(f"{place}.type: must name at least one type")
    return kinds


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}


def is_of(kind: str, value: Any) -> bool:
    """Whether a value is of a type."""
    return _CHECKS[kind](value)


def apart(one: Any, other: Any) -> bool:
    """Whether nothing satisfies two schemas, as far as their types say."""
    kinds = [_kinds(each) for each in (one, other)]
    return bool(kinds[0] and kinds[1]) and not kinds[0] & kinds[1]


def _kinds(part: Any) -> frozenset[str]:
    """The types of a schema; an integer is a number. None: they are not said."""
    if not isinstance(part, dict):
        return frozenset()
    kind = part.get("type", [])
    kinds = frozenset([kind] if isinstance(kind, str) else kind)
    return kinds | {"number"} if "integer" in kinds else kinds


def whole_bound(part: Mapping[str, Any], key: str, place: str, beyond: int) -> int:
    """An integer's bound, `beyond` further where it is exclusive; the largest without one."""
    upper = key.endswith("aximum")
    bound: int | float | None = part.get(key)
    if bound is None:
        return LARGEST if upper else -LARGEST
    if not abs(bound) <= LARGEST:
        raise NotKept(f"{place}.{key}: at most {MAX_DIGITS} digits are kept")
    whole = int(bound)
    if bound != whole:
        raise NotKept(f"{place}.{key}: must be a whole number, got {bound!r:.40}")
    return whole + beyond


def counts(
    part: Mapping[str, Any], least_key: str, most_key: str, place: str
) -> tuple[int, int | None]:
    """The least and the most of a pair of bounds; None without an upper one."""
    least, most = int(part.get(least_key, 0)), part.get(most_key)
    for key in (least_key, most_key):
        if part.get(key, 0) > MAX_LENGTH:
            raise NotKept(f"{place}.{key}: engines count to {MAX_LENGTH}, got {part[key]}")
    if most is not None and least > most:
        raise NotKept(f"{place}: {least_key} {least} is more than {most_key} {most}")
    return least, None if most is None else int(most)


Lengths = tuple[int, int | None]
"""The least and the most; None without an upper bound."""


def together(lengths: Iterable[Lengths]) -> list[Lengths]:
    """The same lengths, in as few ranges as can be."""
    found: list[Lengths] = []
    for least, most in sorted(lengths, key=lambda one: one[0]):
        before = found[-1] if found else None
        if before is None or (before[1] is not None and before[1] + 1 < least):
            found.append((least, most))
        elif before[1] is not None:
            found[-1] = before[0], None if most is None else max(most, before[1])
    return found


def refuse_name(name: str, place: str) -> None:
    """Names are read as parts of grammars by engines that are told schemas."""
    if len(name) > MAX_NAME:
        raise NotKept(f"{place}: a name has at most {MAX_NAME} characters, got {len(name)}")
    if any(letter in '"\\' or letter < " " or is_surrogate(letter) for letter in name):
        rule = 'a name holds no ", no \\ and no control character'
        raise NotKept(f"{place}: {rule}, got {name!r:.40}")


def is_surrogate(letter: str) -> bool:
    """Whether it is half of a character."""
    return "\ud800" <= letter <= "\udfff"
