"""Regular expressions as grammars, for engines that are told what form an answer must have.

Engines determinise a regular expression in the loop that serves everybody: ``.*a.{12}`` takes
minutes there, and its size doubles with each repetition. The same language as a grammar, a rule for
each set of characters and for each part that repeats, stays as small as it is written. A grammar
never allows what its expression does not.
"""

import functools
from collections.abc import Iterator, Sequence

from services.router.policy.expressions import (
    LAST,
    Choice,
    NoGrammar,
    Part,
    Ranges,
    Repeat,
    Row,
    Set,
    read,
    without,
)

MAX_RULES = 4000
"""Of one grammar: what an engine's compiler reads in a moment."""

KEPT = 64
"""Grammars that are kept: requests of one application mostly want the same few."""

_LAST_SHORT = 0xFFFF  # what four digits say


@functools.lru_cache(maxsize=KEPT)
def grammar(expression: str) -> str:
    """The language of an expression, as rules from ``root`` on (EBNF).

    Raises:
        NoGrammar: it has none, or a too large one.
    """
    return Writer().write(read(expression))


class Writer:
    """Writes rules, equal ones once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def rules(self) -> Iterator[tuple[str, str]]:
        """Names and what they stand for."""
        return ((name, text) for text, name in self._names.items())

    def write(self, part: Part) -> str:
        """The grammar of a text."""
        body = self._body(part)
        rules = [f"{name} ::= {text}" for name, text in self.rules()]
        return "\n".join([f"root ::= {body}", *rules]) + "\n"

    def _body(self, part: Part) -> str:
        match part:
            case Row(parts):
                return " ".join(self._row(parts)) or '""'
            case Choice(parts):
                return " | ".join(self._body(each) for each in parts)
            case Repeat(each, least, most):
                return self.rule(each) + _times(least, most) if most != 0 else '""'
            case Set(ranges):
                return _characters(ranges)

    def _row(self, parts: Sequence[Part]) -> Iterator[str]:
        text = ""
        for part in parts:
            if isinstance(part, Set) and len(part.ranges) == 1 and len(set(part.ranges[0])) == 1:
                text += escaped(part.ranges[0][0])
                continue
            if text:
                yield f'"{text}"'
                text = ""
            yield self._body(part) if isinstance(part, Repeat) else self.rule(part)
        if text:
            yield f'"{text}"'

    def rule(self, part: Part) -> str:
        """The name of a rule for it: what repeats, and each set, is never written in place."""
        return self.named(self._body(part))

    def named(self, body: str) -> str:
        """The name of a rule that says so."""
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
    negated = ranges[-1][1] == LAST
    if negated:
        ranges = _missing(ranges)
    spans = (
        escaped(start) if start == end else f"{escaped(start)}-{escaped(end)}"
        for start, end in ranges
    )
    return f"[{'^' if negated else ''}{''.join(spans)}]"


def _missing(ranges: Ranges) -> Ranges:
    """What is left out of a set, with NUL, which always is."""
    others = without(ranges)
    if others and others[0][0] == 1:
        return ((0, others[0][1]), *others[1:])
    return ((0, 0), *others)


def escaped(character: int) -> str:
    """In a text or in a set. Always so many digits: some readers take as many as they find."""
    if chr(character).isascii() and chr(character).isalnum():
        return chr(character)
    return f"\\u{character:04X}" if character <= _LAST_SHORT else f"\\U{character:08X}"
