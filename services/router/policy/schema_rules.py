"""JSON schemas as grammars: what engines keep of a schema, and nothing else.

What engines make of a schema themselves ignores keywords silently (bounds of numbers, `allOf`,
`required` of names that `properties` does not hold), allows what an enumeration does not hold, and
reads names as parts of a grammar. So each schema is written as a grammar here, from a table of the
keywords that are kept for each type (`kept`); a schema that asks for more is refused by name, as
one that can be asked for as a validator. A grammar never allows what its schema does not; it may
allow less: properties come in the order of the schema, other ones only where it says
`additionalProperties`, and numbers have at most 15 digits.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from services.router.policy.at_once import MOST_AT_ONCE, AtOnce
from services.router.policy.constants import any_text
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import NoGrammar
from services.router.policy.grammars import FEW_WAYS, Writer, quoted
from services.router.policy.json_texts import PLAIN_LETTER, in_json
from services.router.policy.kept import (
    ALONE,
    ASSERTIONS,
    KEPT_OF_TYPES,
    LARGEST,
    LETTERS_OF_WORK,
    MAX_DEPTH,
    MAX_OPTIONAL,
    MAX_WORK,
    Lengths,
    NotKept,
    apart,
    beside,
    counts,
    is_of,
    is_surrogate,
    refuse_name,
    together,
    types_of,
    whole_bound,
    why,
)
from services.router.policy.whole_numbers import WholeNumbers

_RULES = """\
ws ::= [ \\n\\t]*
d ::= [0-9]
letter ::= plain | "\\\\" escape
escape ::= ["\\\\/bfnrt]
text ::= "\\"" letter* "\\""
integer ::= "-"? natural
natural ::= "0" | [1-9] d{0,14}
number ::= "-"? natural fraction? exponent?
fraction ::= "." d{1,15}
exponent ::= [eE] [+\\-]? d{1,2}
boolean ::= "true" | "false"
null ::= "null"
any ::= text | number | boolean | null | list | map
list ::= "[" ws (any (ws "," ws any)*)? ws "]"
map ::= "{" ws (member (ws "," ws member)*)? ws "}"
member ::= text ws ":" ws any
"""

STEPS_OF_WORK = 1

_PLAIN = {"null": "null", "boolean": "boolean", "integer": "integer", "number": "number"}


def told(schema: str, effort: Effort | None = None) -> str:
    """The grammar that engines are told for a schema, from ``root`` on (EBNF).

    Args:
        schema: the schema.
        effort: what writing it takes is counted there.

    Raises:
        NotKept: it asks for more than a grammar keeps, for nothing that can be, or for too much.
    """
    parsed = json.loads(schema)
    return _Grammar(parsed, effort or Effort()).write()


class _Grammar:
    """Writes the rules of one schema."""

    def __init__(self, schema: Any, effort: Effort) -> None:
        self._schema = schema
        self._writer = Writer(effort)
        self._effort = effort
        self._work = 0
        self._at_once = AtOnce(effort)
        self._alternatives: dict[str, Sequence[str]] = {}
        self._lengths: dict[str, Lengths] = {}
        self._patterns: dict[str, tuple[str, int]] = {}
        self._whole = WholeNumbers(self._writer)

    def write(self) -> str:
        try:
            root = self._value(self._schema, "json_schema", 0)
            return self._writer.joined(root, _RULES + PLAIN_LETTER)
        except (NoGrammar, TooMuch, RecursionError) as error:
            what = "is too deep" if isinstance(error, RecursionError) else str(error)
            raise NotKept(f"json_schema: {what}") from error

    def _value(self, part: Any, place: str, depth: int) -> str:
        """The name of a rule for what a schema accepts."""
        self._count(place)
        if depth > MAX_DEPTH:
            rule = f"at most {MAX_DEPTH} schemas within each other; engines keep none that hold"
            raise NotKept(f"{place}: {rule} themselves")
        if part is True or part == {}:
            return "any"
        if not isinstance(part, dict):
            raise NotKept(f"{place}: nothing satisfies it, got {part!r:.40}")
        asked = {key for key in part if key in ASSERTIONS}
        for key in ALONE:
            if key in asked:
                self._refuse(asked - {key} - beside(key), place, f"beside {key}")
                return self._alone(key, part, place, depth)
        kinds = types_of(part, place, asked)
        if not kinds:
            self._refuse(asked, place, "without a type")
            return "any"
        mine = frozenset[str]().union(*(KEPT_OF_TYPES[kind] for kind in kinds))
        if "number" in kinds:  # whose bounds are not kept, and an integer is a number too
            mine -= KEPT_OF_TYPES["integer"]
        self._refuse(asked - mine - {"type"}, place, f"of {' or '.join(kinds)}")
        return self._any_of([self._typed(kind, part, place, depth) for kind in kinds], place)

    def _alone(self, key: str, part: Mapping[str, Any], place: str, depth: int) -> str:
        inner = part[key]
        if key == "$ref":
            return self._value(self._target(inner, place), f"{place}.$ref", depth + 1)
        if key in ("const", "enum"):
            return self._values(part, [inner] if key == "const" else inner, f"{place}.{key}")
        if not isinstance(inner, list) or not inner:
            raise NotKept(f"{place}.{key}: must name at least one schema")
        if key == "allOf" and len(inner) > 1:
            raise NotKept(f"{place}.allOf: {why('of several schemas')}")
        if key == "oneOf":
            for at, one in enumerate(inner):
                if any(not apart(one, other) for other in inner[:at]):
                    rule = "of schemas that are not of different types; say anyOf"
                    raise NotKept(f"{place}.oneOf: {why(rule)}")
        named = enumerate(inner)
        rules = [self._value(one, f"{place}.{key}[{at}]", depth + 1) for at, one in named]
        return self._any_of(rules, f"{place}.{key}")

    def _any_of(self, rules: list[str], place: str) -> str:
        """A rule for any of some; those of texts that differ in their lengths alone are one."""
        if len(rules) == 1:
            return rules[0]
        flat = list(dict.fromkeys(self._flat(rules)))
        lengths = [self._lengths[one] for one in flat if one in self._lengths]
        if len(lengths) > 1:
            others = [one for one in flat if one not in self._lengths]
            flat = [*others, *(self._text(*one) for one in together(lengths))]
        chosen = self._writer.choice(flat)
        if len(flat) > 1:
            self._alternatives[chosen] = flat
            if self._at_once.choice(chosen, flat) > MOST_AT_ONCE:
                rule = f"more than {MOST_AT_ONCE} texts can go on at once"
                raise NotKept(
                    f"{place}: {rule}; begin the alternatives with a required member that is "
                    "another constant in each, or say them as one pattern"
                )
        return chosen

    def _flat(self, rules: list[str]) -> Iterator[str]:
        for rule in dict.fromkeys(rules):
            alternatives = self._alternatives.get(rule, (rule,))
            self._effort.spend(STEPS_OF_WORK * len(alternatives))
            yield from alternatives

    def _values(self, part: Mapping[str, Any], values: Any, place: str) -> str:
        if not isinstance(values, list) or not values:
            raise NotKept(f"{place}: must name at least one value")
        if "type" in part:
            kinds = types_of(part, place, {"type"})
            if not all(any(is_of(kind, value) for kind in kinds) for value in values):
                raise NotKept(f"{place}: holds a value that is not of its type")
        try:
            texts = {json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values}
        except (ValueError, RecursionError) as error:
            raise NotKept(f"{place}: holds what is no JSON") from error
        self._count(place, len(values) + sum(map(len, texts)) // LETTERS_OF_WORK)
        if any(map(is_surrogate, "".join(texts))):
            raise NotKept(f"{place}: holds half of a character")
        rule = any_text(self._writer, sorted(texts))
        self._at_once.constants(rule, texts)
        return rule

    def _typed(self, kind: str, part: Mapping[str, Any], place: str, depth: int) -> str:
        if kind == "integer":
            return self._integer(part, place)
        if kind == "string":
            return self._string(part, place)
        if kind == "array":
            return self._array(part, place, depth)
        return self._object(part, place, depth) if kind == "object" else _PLAIN[kind]

    def _integer(self, part: Mapping[str, Any], place: str) -> str:
        bounds = (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("exclusiveMaximum", -1))
        given = [whole_bound(part, key, place, beyond) for key, beyond in bounds]
        low, high = max(given[:2]), min(given[2:])
        if low > high:
            raise NotKept(f"{place}: no integer is between its bounds")
        if (low, high) == (-LARGEST, LARGEST):
            return "integer"
        return self._whole.between(low, high)

    def _string(self, part: Mapping[str, Any], place: str) -> str:
        least, most = counts(part, "minLength", "maxLength", place)
        if isinstance(pattern := part.get("pattern"), str):
            if "minLength" in part or "maxLength" in part:
                raise NotKept(f"{place}.pattern: {why('beside minLength and maxLength')}")
            self._count(place, len(pattern) // LETTERS_OF_WORK)
            body, weight = self._matching(pattern)
            rule = self._rule(f'"\\"" {body} "\\""')
            self._at_once.text(rule, weight)
            return rule
        return self._text(least, most)

    def _text(self, least: int, most: int | None) -> str:
        rule = "text"
        if (least, most) != (0, None):
            letters = self._writer.times("letter", least, most)
            rule = self._rule(f'"\\"" {letters} "\\""' if most != 0 else '"\\"\\""')
            self._at_once.text(rule)
        self._lengths[rule] = least, most
        return rule

    def _matching(self, pattern: str) -> tuple[str, int]:
        """A rule for an expression, read once, however often it is referred to; and its weight."""
        if pattern not in self._patterns:
            meant = self._writer.read(pattern)
            body, steps = self._writer.language(in_json(meant, {}), meant)
            self._patterns[pattern] = self._writer.named(body), max(1, steps // FEW_WAYS)
        return self._patterns[pattern]

    def _array(self, part: Mapping[str, Any], place: str, depth: int) -> str:
        least, most = counts(part, "minItems", "maxItems", place)
        items = part.get("items", True)
        if items is False:
            most = 0
        if most == 0:
            if least:
                raise NotKept(f"{place}: no list has at least {least} and no items")
            return self._rule('"[" ws "]"')
        item = self._value(items, f"{place}.items", depth + 1)
        more = self._rule(f'ws "," ws {item}')
        last = None if most is None else most - 1
        others = self._writer.times(more, max(0, least - 1), last)
        several = self._rule(f"{item} {others}" if last != 0 else item)
        inner = several if least else self._rule(f'{several} | ""')
        rule = self._rule(f'"[" ws {inner} ws "]"')
        self._at_once.array(rule, item)
        return rule

    def _object(self, part: Mapping[str, Any], place: str, depth: int) -> str:
        properties, required = part.get("properties", {}), part.get("required", [])
        for name in required:
            if name not in properties:
                rule = why("of names that properties does not hold")
                raise NotKept(f"{place}.required: {rule}, got {name!r:.40}")
        if len(properties) - len(required) > MAX_OPTIONAL:
            raise NotKept(f"{place}: at most {MAX_OPTIONAL} properties may be left out")
        members: list[tuple[str, bool]] = []
        values: list[tuple[str, str, bool]] = []
        for name, inner in properties.items():
            refuse_name(name, f"{place}.properties")
            self._count(place, len(name) // LETTERS_OF_WORK)
            value = self._value(inner, f"{place}.properties.{name:.40}", depth + 1)
            key = json.dumps(name, ensure_ascii=False)
            members.append((self._rule(f'{quoted(key)} ws ":" ws {value}'), name in required))
            values.append((name, value, name in required))
        others = part.get("additionalProperties", not properties)
        if isinstance(others, dict) and others and properties:
            raise NotKept(f"{place}.additionalProperties: {why('beside properties')}")
        if others is not False and not properties:
            if others in (True, {}):
                return "map"
            value = self._value(others, f"{place}.additionalProperties", depth + 1)
            one = self._rule(f'text ws ":" ws {value}')
            more = self._rule(f'ws "," ws {one}')
            inner = self._rule(f'{one} {more}* | ""')
            rule = self._rule(f'"{{" ws {inner} ws "}}"')
            self._at_once.mapping(rule, value)
            return rule
        rule = self._rule(f'"{{" ws {self._members(members)} ws "}}"')
        self._at_once.object(rule, values)
        return rule

    def _members(self, members: list[tuple[str, bool]]) -> str:
        """A rule for some members in their order; from the last one on, so that tails are shared.

        `rest` is what may follow a member, `first` what may begin.
        """
        rest = first = '""'
        for member, needed in reversed(members):
            taken, begun = f'ws "," ws {member} {rest}', f"{member} {rest}"
            rest, first = (
                (self._rule(taken), self._rule(begun))
                if needed
                else (self._rule(f"{taken} | {rest}"), self._rule(f"{begun} | {first}"))
            )
        return first

    def _target(self, to: Any, place: str) -> Any:
        """What a reference names."""
        if to == "#":
            return self._schema
        _, _, path = str(to).partition("#/")
        found: Any = self._schema
        for step in path.split("/"):
            if "~" in step or "%" in step or not isinstance(found, dict) or step not in found:
                raise NotKept(f"{place}.$ref: names no schema of this one, got {to!r:.80}")
            found = found[step]
        return found

    def _rule(self, body: str) -> str:
        return self._writer.named(body)

    def _count(self, place: str, more: int = 1) -> None:
        self._work += more
        self._effort.spend(STEPS_OF_WORK * more)
        if self._work > MAX_WORK:
            raise NotKept(f"{place}: is too large once references are followed")

    def _refuse(self, asked: Iterable[str], place: str, where: str) -> None:
        for key in sorted(asked):
            raise NotKept(f"{place}.{key}: {why(where)}")
