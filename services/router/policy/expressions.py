"""Regular expressions, read as RE2 reads them, by the standard library's parse tree.

What comes out has no anchors: it is the language of the whole text. In three corners it is less
than the expression allows: the character NUL, which engines cut texts at, is never in it; ``(?i)``
allows no letter beyond ASCII for one of ASCII, as the sign of Kelvin for k; and lines end nowhere
but at the end of the text.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from services.router.policy.cases import cased, other_cases

# Of sets that a later version of the library may read otherwise; RE2 will not.
warnings.filterwarnings("ignore", "Possible (nested )?set", FutureWarning)

MAX_DEPTH = 100
"""Groups and repetitions within each other."""

MAX_CASES = 20_000
"""Letters in ranges of different sets, where case does not count: each is looked up."""

LAST = 0x10FFFF
_LAST_ASCII = 0x7F
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
_NAMED_SET = re.compile(r"\[:\^?\w*:\]")
_NO_LOWEST = re.compile(r"\{,\d*\}")
_LEADING_ZERO = re.compile(r"\{(?:0\d+(?:,\d*)?|\d+,0\d+)\}")
_PLAIN = re.compile(r"\\.?|\[\^?\]?+(?:\\.?|[^\]\\])*+(?:\]|\Z)", re.DOTALL)
"""In which nothing repeats: what is escaped, and sets. One without an end, as RE2 takes in a quote,
goes on to the end of the text, and nothing is ever tried twice: looking through any text is linear.
"""


class NoGrammar(ValueError):
    """The expression has no grammar; the message says why."""


@dataclass(frozen=True)
class Set:
    """One character of these."""

    ranges: Ranges


class _Whole:
    """What holds parts. Its hash is made once: else all that is in it is gone through each time."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((type(self), *vars(self).values()))


@dataclass(frozen=True)
class Row(_Whole):
    """One after another. An empty one is the empty text."""

    parts: "tuple[Part, ...]"

    __hash__ = _Whole.__hash__


@dataclass(frozen=True)
class Choice(_Whole):
    """One of these."""

    parts: "tuple[Part, ...]"

    __hash__ = _Whole.__hash__


@dataclass(frozen=True)
class Repeat(_Whole):
    """`most` None: without end."""

    part: "Part"
    least: int
    most: int | None

    __hash__ = _Whole.__hash__


Part = Set | Row | Choice | Repeat


def read(expression: str) -> "Part":
    """The language of an expression.

    Args:
        expression: one that RE2 takes.

    Raises:
        NoGrammar: it holds what no grammar says (a boundary, an anchor in the middle, a look
            around), or what RE2 would read otherwise, or it is too deep.
    """
    if _NAMED_SET.search(expression):
        raise NoGrammar("named sets such as [:alpha:] cannot be told: write them out")
    bare = _PLAIN.sub("x", expression)
    if _NO_LOWEST.search(bare):
        raise NoGrammar("a repetition needs its lowest count, as in {0,3}")
    if _LEADING_ZERO.search(bare):
        raise NoGrammar("a count has no zero in front, as in {2}: RE2 takes {02} for plain text")
    if "\0" in expression:
        raise NoGrammar("the character NUL cannot be in an answer")
    try:
        tree = parser.parse(expression, re.ASCII)
        return _Reader().row(tree, tree.state.flags, first=True, last=True)
    except re.error as error:
        rule = "RE2 knows it, but no grammar is made of it"
        raise NoGrammar(f"{rule} ({str(error)[:200]}): write it out") from error
    except (OverflowError, RecursionError) as error:
        raise NoGrammar("too deep") from error


class _Reader:
    """Reads the standard library's parse tree. `first`, `last`: nothing but anchors is outside."""

    def __init__(self) -> None:
        self._depth = 0
        self._cases = 0
        self._known: dict[Any, Set] = {}

    def row(self, tree: Iterable[Any], flags: int, *, first: bool, last: bool) -> Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NoGrammar(f"at most {MAX_DEPTH} groups and repetitions within each other")
        items = list(tree)
        consuming = [at for at, (kind, _) in enumerate(items) if kind is not code.AT]
        start = consuming[0] if consuming else len(items)
        end = consuming[-1] if consuming else -1
        parts: list[Part] = []
        for at, (kind, value) in enumerate(items):
            part = self._part(
                kind, value, flags, first=first and at <= start, last=last and at >= end
            )
            parts += part.parts if isinstance(part, Row) else (part,)
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _part(self, kind: Any, value: Any, flags: int, *, first: bool, last: bool) -> Part:
        if kind in _SETS:
            return self._set(kind, value, flags)
        if kind is code.SUBPATTERN:
            _, add, drop, inner = value
            return self.row(inner, (flags | add) & ~drop, first=first, last=last)
        if kind is code.BRANCH:
            return Choice(tuple(self.row(one, flags, first=first, last=last) for one in value[1]))
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            least, most, inner = value
            once = most == 1
            part = self.row(inner, flags, first=first and once, last=last and once)
            return Repeat(part, least, None if most is code.MAXREPEAT else most)
        if kind is code.AT:
            if (first and value in _BEGINS) or (last and value in _ENDS):
                return Row(())
            raise NoGrammar("anchors and boundaries (^ $ \\b) cannot stand within an expression")
        raise NoGrammar(f"{str(kind).lower()} cannot be told to an engine")

    def _set(self, kind: Any, value: Any, flags: int) -> Set:
        """A set of characters; equal ones are made once."""
        items = tuple(value) if kind is code.IN else value
        key = kind, items, flags
        if key not in self._known:
            if kind is code.IN and flags & re.IGNORECASE:
                self._cases += cased([one for what, one in items if what is code.RANGE])
                if self._cases > MAX_CASES:
                    raise NoGrammar(f"(?i) with sets of more than {MAX_CASES} letters")
            self._known[key] = Set(_SETS[kind](items, flags))
        return self._known[key]


def _folded(
    found: Iterable[tuple[int, int]], flags: int, *, wide: bool
) -> Iterator[tuple[int, int]]:
    """Ranges with the other cases of their letters, where case does not count.

    `wide`: with those beyond ASCII of letters of ASCII.
    """
    for start, end in found:
        yield start, end
        if not flags & re.IGNORECASE:
            continue
        parts = ((start, min(end, _LAST_ASCII)), (max(start, _LAST_ASCII + 1), end))
        for (first, last), every in zip(parts, (wide, True), strict=True):
            for other in other_cases(first, last):
                if every or other <= _LAST_ASCII:
                    yield other, other


def _set(items: Sequence[tuple[Any, Any]], flags: int) -> Ranges:
    negated = items[0][0] is code.NEGATE
    found: list[tuple[int, int]] = []
    closed: list[tuple[int, int]] = []
    for kind, value in items[1:] if negated else items:
        if kind is code.LITERAL:
            found.append((value, value))
        elif kind is code.RANGE:
            found.append(value)
        else:  # \W and the like hold all cases of their letters
            (closed if value in _NOT else found).extend(_category(value, flags))
    closed += _folded(found, flags, wide=negated)
    return without(closed) if negated else _wanted(closed)


_SETS: Mapping[Any, Callable[[Any, int], Ranges]] = {
    code.LITERAL: lambda value, flags: _set([(code.LITERAL, value)], flags),
    code.NOT_LITERAL: lambda value, flags: _set([(code.NEGATE, 0), (code.LITERAL, value)], flags),
    code.ANY: lambda _, flags: without([] if flags & re.DOTALL else [(10, 10)]),
    code.IN: _set,
}


def _category(category: Any, flags: int) -> Iterable[tuple[int, int]]:
    if category in _NOT:
        return without(_folded(_category(_NOT[category], flags), flags, wide=True))
    if category not in _CATEGORIES:
        raise NoGrammar(f"{str(category).lower()} is not known")
    spans = re.findall(r"(.)-(.)", _CATEGORIES[category], re.DOTALL)
    return [(ord(start), ord(end)) for start, end in spans]


def _wanted(found: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, put together, without what no answer can hold."""
    ranges = without(without(found))
    if not ranges:
        raise NoGrammar("a set of characters is empty: NUL and surrogates cannot be in an answer")
    return ranges


def without(found: Iterable[tuple[int, int]]) -> Ranges:
    """Every character but these; NUL and surrogates never."""
    left = []
    begin = 1
    for start, end in sorted([*found, _SURROGATES]):
        if begin < start:
            left.append((begin, start - 1))
        begin = max(begin, end + 1)
    if begin <= LAST:
        left.append((begin, LAST))
    return tuple(left)
