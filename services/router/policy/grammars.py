"""Regular expressions as grammars, for engines that are told what form an answer must have.

Engines determinise a regular expression in the loop that serves everybody: ``.*a.{12}`` takes
minutes there, and its size doubles with each repetition. The same language as a grammar, a rule for
each set of characters and for each part that repeats, stays as small as it is written. So
expressions are read here as RE2 reads them, by the standard library's parse tree, and written anew.

A grammar never allows what its expression does not. In three corners it allows less: the character
NUL, which engines cut texts at, is never written; folded letters of sets beyond ASCII are left out
(``(?i)[à-ü]``); and lines end nowhere but at the end of the answer.
"""

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

# Of sets that a later version of the library may read otherwise; RE2 will not.
warnings.filterwarnings("ignore", "Possible (nested )?set", FutureWarning)

MAX_RULES = 4000
"""Of one grammar: what an engine's compiler reads in a moment."""

MAX_DEPTH = 100
"""Groups within groups."""

KEPT = 64
"""Grammars that are kept: requests of one application mostly want the same few."""

_LAST = 0x10FFFF
_LAST_ASCII = 0x7F
_LAST_SHORT = 0xFFFF  # what four digits say
_SURROGATES = (0xD800, 0xDFFF)

Ranges = tuple[tuple[int, int], ...]
"""Characters: code points from, to; sorted, apart from each other, without NUL and surrogates."""

_CATEGORIES = {
    code.CATEGORY_DIGIT: "0-9",
    code.CATEGORY_SPACE: "\t-\n\f-\r - ",
    code.CATEGORY_WORD: "0-9A-Z_-_a-z",
}
_NOT = {
    code.CATEGORY_NOT_DIGIT: code.CATEGORY_DIGIT,
    code.CATEGORY_NOT_SPACE: code.CATEGORY_SPACE,
    code.CATEGORY_NOT_WORD: code.CATEGORY_WORD,
}
_BEGINS = (code.AT_BEGINNING, code.AT_BEGINNING_STRING)
_ENDS = (code.AT_END, code.AT_END_STRING)

# What RE2 and the standard library read as different things.
_OTHERWISE = (
    (re.compile(r"(?<!\\)(?:\\\\)*\{,"), "a repetition needs its lowest count, as in {0,3}"),
    (re.compile(r"\[:\^?\w*:\]"), "named sets such as [:alpha:] are not known: write them out"),
)


class NoGrammar(ValueError):
    """The expression has no grammar; the message says why."""


@dataclass(frozen=True)
class _Set:
    ranges: Ranges


@dataclass(frozen=True)
class _Row:
    """One after another. An empty one is the empty text."""

    parts: "tuple[_Part, ...]"


@dataclass(frozen=True)
class _Choice:
    parts: "tuple[_Part, ...]"


@dataclass(frozen=True)
class _Repeat:
    """`most` None: without end."""

    part: "_Part"
    least: int
    most: int | None


_Part = _Set | _Row | _Choice | _Repeat


@functools.lru_cache(maxsize=KEPT)
def grammar(expression: str) -> str:
    """The language of an expression, anchored at both ends, as rules from ``root`` on (EBNF).

    Raises:
        NoGrammar: it holds what no grammar says (a boundary, an anchor in the middle, a look
            around), or what RE2 would read otherwise, or it is too large.
    """
    for sign, what in _OTHERWISE:
        if sign.search(expression):
            raise NoGrammar(what)
    if "\0" in expression:
        raise NoGrammar("the character NUL cannot be in an answer")
    try:
        tree = parser.parse(expression, re.ASCII)
        part = _Reader().row(tree, tree.state.flags, first=True, last=True)
    except (re.error, OverflowError, RecursionError) as error:
        raise NoGrammar(str(error)[:200] or "too deep") from error
    return _Writer().write(part)


class _Reader:
    """Reads the standard library's parse tree. `first`, `last`: nothing but anchors is outside."""

    def __init__(self) -> None:
        self._depth = 0

    def row(self, tree: Iterable[Any], flags: int, *, first: bool, last: bool) -> _Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NoGrammar(f"at most {MAX_DEPTH} groups within each other")
        items = list(tree)
        consuming = [at for at, (kind, _) in enumerate(items) if kind is not code.AT]
        start = consuming[0] if consuming else len(items)
        end = consuming[-1] if consuming else -1
        parts: list[_Part] = []
        for at, (kind, value) in enumerate(items):
            part = self._part(
                kind, value, flags, first=first and at <= start, last=last and at >= end
            )
            parts += part.parts if isinstance(part, _Row) else (part,)
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _Row(tuple(parts))

    def _part(self, kind: Any, value: Any, flags: int, *, first: bool, last: bool) -> _Part:
        if kind in _SETS:
            return _Set(_SETS[kind](value, flags))
        if kind is code.SUBPATTERN:
            _, add, drop, inner = value
            return self.row(inner, (flags | add) & ~drop, first=first, last=last)
        if kind is code.BRANCH:
            return _Choice(tuple(self.row(one, flags, first=first, last=last) for one in value[1]))
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            least, most, inner = value
            once = most == 1
            part = self.row(inner, flags, first=first and once, last=last and once)
            return _Repeat(part, least, None if most is code.MAXREPEAT else most)
        if kind is code.AT:
            if (first and value in _BEGINS) or (last and value in _ENDS):
                return _Row(())
            raise NoGrammar("anchors and boundaries (^ $ \\b) cannot stand within an expression")
        raise NoGrammar(f"{str(kind).lower()} cannot be told to an engine")


def _folded(character: int, flags: int) -> Iterator[tuple[int, int]]:
    """A character with its other cases, where case does not count."""
    yield character, character
    if flags & re.IGNORECASE:
        text = chr(character)
        for other in {text.lower(), text.upper(), text.swapcase()} - {text}:
            if len(other) == 1:
                yield ord(other), ord(other)


def _set(items: Sequence[tuple[Any, Any]], flags: int) -> Ranges:
    negated = items[0][0] is code.NEGATE
    found: list[tuple[int, int]] = []
    for kind, value in items[1:] if negated else items:
        if kind is code.LITERAL:
            found += _folded(value, flags)
        elif kind is code.RANGE:
            found.append(value)
            if flags & re.IGNORECASE:
                found += _ascii_folded(*value)
                if negated and value[1] > _LAST_ASCII:
                    raise NoGrammar("(?i) with [^...] of a range beyond ASCII is not known")
        else:
            found += _category(value)
    return _without(found) if negated else _wanted(found)


_SETS: Mapping[Any, Callable[[Any, int], Ranges]] = {
    code.LITERAL: lambda value, flags: _wanted(_folded(value, flags)),
    code.NOT_LITERAL: lambda value, flags: _without(_folded(value, flags)),
    code.ANY: lambda _, flags: _without([] if flags & re.DOTALL else [(10, 10)]),
    code.IN: _set,
}


def _ascii_folded(start: int, end: int) -> Iterator[tuple[int, int]]:
    for low, high, shift in ((65, 90, 32), (97, 122, -32)):
        if (first := max(start, low)) <= (last := min(end, high)):
            yield first + shift, last + shift


def _category(category: Any) -> Iterable[tuple[int, int]]:
    if category in _NOT:
        return _without(_category(_NOT[category]))
    if category not in _CATEGORIES:
        raise NoGrammar(f"{str(category).lower()} is not known")
    spans = re.findall(r"(.)-(.)", _CATEGORIES[category], re.DOTALL)
    return [(ord(start), ord(end)) for start, end in spans]


def _wanted(found: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, put together, without what no answer can hold."""
    ranges = _without(_without(found))
    if not ranges:
        raise NoGrammar("a set of characters is empty: NUL and surrogates cannot be in an answer")
    return ranges


def _without(found: Iterable[tuple[int, int]]) -> Ranges:
    """Every character but these; NUL and surrogates never."""
    left = []
    begin = 1
    for start, end in sorted([*found, _SURROGATES]):
        if begin < start:
            left.append((begin, start - 1))
        begin = max(begin, end + 1)
    if begin <= _LAST:
        left.append((begin, _LAST))
    return tuple(left)


class _Writer:
    """Writes rules, equal ones once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def write(self, part: _Part) -> str:
        body = self._body(part)
        rules = [f"{name} ::= {text}" for text, name in self._names.items()]
        return "\n".join([f"root ::= {body}", *rules]) + "\n"

    def _body(self, part: _Part) -> str:
        match part:
            case _Row(parts):
                return " ".join(self._row(parts)) or '""'
            case _Choice(parts):
                return " | ".join(self._body(each) for each in parts)
            case _Repeat(each, least, most):
                return self._rule(each) + _times(least, most) if most != 0 else '""'
            case _Set(ranges):
                return _characters(ranges)

    def _row(self, parts: Sequence[_Part]) -> Iterator[str]:
        text = ""
        for part in parts:
            if isinstance(part, _Set) and len(part.ranges) == 1 and len(set(part.ranges[0])) == 1:
                text += _escaped(part.ranges[0][0])
                continue
            if text:
                yield f'"{text}"'
                text = ""
            yield self._body(part) if isinstance(part, _Repeat) else self._rule(part)
        if text:
            yield f'"{text}"'

    def _rule(self, part: _Part) -> str:
        """The name of a rule for it: what repeats, and each set, is never written in place."""
        body = self._body(part)
        if body not in self._names:
            if len(self._names) >= MAX_RULES:
                raise NoGrammar(f"at most {MAX_RULES} parts")
            self._names[body] = f"r{len(self._names)}"
        return self._names[body]


def _times(least: int, most: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    return known.get((least, most)) or f"{{{least},{'' if most is None else most}}}"


def _characters(ranges: Ranges) -> str:
    """A set as it is shortest; engines are quickest with what is told by its few exceptions."""
    negated = ranges[-1][1] == _LAST
    if negated:
        ranges = _missing(ranges)
    spans = (
        _escaped(start) if start == end else f"{_escaped(start)}-{_escaped(end)}"
        for start, end in ranges
    )
    return f"[{'^' if negated else ''}{''.join(spans)}]"


def _missing(ranges: Ranges) -> Ranges:
    """What is left out of a set, with NUL, which always is."""
    others = _without(ranges)
    if others and others[0][0] == 1:
        return ((0, others[0][1]), *others[1:])
    return ((0, 0), *others)


def _escaped(character: int) -> str:
    """In a text or in a set. Always so many digits: some readers take as many as they find."""
    if chr(character).isascii() and chr(character).isalnum():
        return chr(character)
    return f"\\u{character:04X}" if character <= _LAST_SHORT else f"\\U{character:08X}"
