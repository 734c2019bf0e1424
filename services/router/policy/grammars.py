"""Regular expressions as grammars, for engines that are told what form an answer must have.

Engines determinise a regular expression in the loop that serves everybody: ``.*a.{12}`` takes
minutes there, and its size doubles with each repetition. The same language as a grammar, a rule for
each set of characters and for each part that repeats, stays as small as it is written. Where that
could be read in many ways at once, the grammar is that of the automaton instead, if it is small: a
rule for each state. A grammar never allows what its expression does not.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from services.router.policy.ambiguity import ways
from services.router.policy.automata import State, deterministic
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import (
    Choice,
    NoGrammar,
    Part,
    Ranges,
    Repeat,
    Row,
    Set,
    read,
)
from services.router.policy.overlaps import overlaps
from services.router.policy.simplified import simplified

MAX_RULES = 4000
"""Of one grammar: what an engine's compiler reads in a moment."""

MAX_CHARACTERS = 250_000
"""Of one grammar: it goes along with each request."""

STEPS_OF_READ = 4
"""What each character takes of an expression that is read in full."""

STEPS_OF_RULE = 2
STEPS_OF_RANGE = 1
CHARACTERS_OF_STEP = 32
"""Of what is written."""

FEW_WAYS = 16
"""Steps for a character at most (see `ambiguity`) of what is told as it is written."""

MOST_WAYS = 150
"""The same of what has no small automaton, so that one part may begin at each character of another.
Beyond that tokens take seconds."""

MAX_STATES = 400
"""Of an automaton that is told as a grammar."""

CHUNK = 16
"""Repetitions that are counted one by one."""

_LAST_OF_BYTES = (0x7F, 0x7FF, 0xFFFF)
"""The last characters that are one, two and three bytes of UTF-8."""

_CARET = 0x5E
_SWALLOWING = re.compile(r"[\x01-\x1F\x7F-\xFF](?=[0-9A-Fa-f])")
_LAST_SHORT = 0xFFFF  # what four digits say


def grammar(expression: str, effort: Effort | None = None) -> str:
    """The language of an expression, as rules from ``root`` on (EBNF).

    Args:
        expression: the expression.
        effort: what writing it takes is counted there.

    Raises:
        NoGrammar: it has none, or a too large one, or none that can be followed quickly, or it is
            not found within `effort`.
    """
    writer = Writer(effort or Effort())
    try:
        return writer.joined(writer.language(writer.read(expression))[0])
    except TooMuch as error:
        raise NoGrammar(str(error)) from error


class Writer:
    """Writes rules, equal ones once.

    Raises:
        TooMuch: from any method, where what it takes is not left of the effort.
    """

    def __init__(self, effort: Effort) -> None:
        """What writing takes is counted in `effort`."""
        self._effort = effort
        self._names: dict[str, str] = {}
        self._states: dict[str, str] = {}

    def joined(self, body: str, more: str = "") -> str:
        """The rules from ``root`` on, which is `body`, with more of them at the end."""
        named = [(name, text) for text, name in self._names.items()]
        rules = "".join(f"{name} ::= {text}\n" for name, text in (*named, *self._states.items()))
        whole = f"root ::= {body}\n{rules}{more}"
        self._effort.spend(len(whole) // CHARACTERS_OF_STEP)
        if len(whole) > MAX_CHARACTERS:
            raise NoGrammar(f"at most {MAX_CHARACTERS} characters as a grammar, got {len(whole)}")
        return whole

    def read(self, expression: str) -> Part:
        """The language of an expression.

        Raises:
            NoGrammar: see `expressions.read`.
        """
        self._effort.spend(STEPS_OF_READ * len(expression))
        return read(expression)

    def language(self, part: Part, meant: Part | None = None) -> tuple[str, int]:
        """The body of a rule for a language, said so that engines follow it quickly.

        Args:
            part: the language.
            meant: what it is another spelling of, character by character.

        Returns:
            The body, and the steps that a character takes of it at most (see `ambiguity`).

        Raises:
            NoGrammar: it cannot be said so.
        """
        effort = self._effort
        part = simplified(part, effort)
        meant = simplified(meant, effort) if meant else part
        found = overlaps(meant, MOST_WAYS, effort)
        if found <= MOST_WAYS:
            found = max(found, ways(part, MOST_WAYS, effort))
        if found <= FEW_WAYS:
            return self._body(part), found
        with suppress(TooMuch):
            if (states := deterministic(part, MAX_STATES, effort)) is not None:
                return self._automaton(states), 1
        if found > MOST_WAYS:
            raise NoGrammar(
                "a text can be read in too many ways at once: put a mark that they do not take "
                "themselves between the parts that repeat, or let them repeat fewer times"
            )
        return self._body(part), found

    def _automaton(self, states: Sequence[State]) -> str:
        self._refuse_more(len(states))
        names = [f"s{len(self._states) + number}" for number in range(len(states))]
        for name, state in zip(names, states, strict=True):
            moves = [f"{self.rule(Set(ranges))} {names[to]}" for ranges, to in state.moves]
            if not moves and not state.ends:
                raise NoGrammar("no text is of this form")
            self._states[name] = " | ".join([*moves, *(['""'] if state.ends else [])])
        return names[0]

    def _body(self, part: Part) -> str:
        match part:
            case Row(parts):
                return " ".join(self._row(parts)) or '""'
            case Choice(parts):
                return " | ".join(self._body(each) for each in parts)
            case Repeat(each, least, most):
                return self.times(self.rule(each), least, most)
            case Set(ranges):
                self._effort.spend(STEPS_OF_RANGE * len(ranges))
                return characters(ranges)

    def _row(self, parts: Sequence[Part]) -> Iterator[str]:
        text = ""
        for part in parts:
            if isinstance(part, Set) and len(part.ranges) == 1 and len(set(part.ranges[0])) == 1:
                text += chr(part.ranges[0][0])
                continue
            if text:
                yield quoted(text)
                text = ""
            yield self._body(part) if isinstance(part, Repeat) else self.rule(part)
        if text:
            yield quoted(text)

    def times(self, name: str, least: int, most: int | None) -> str:
        """A rule so many times, in place: what an engine keeps in mind does not grow with them.

        A large count is one of chunks, and of what is left; else a token of ``.{0,1000}`` takes
        hundredfold. No text can be cut into chunks in two ways that the counts tell apart.
        """
        if most == 0:
            return '""'
        if most is None and least <= 1:
            return f"{name}{_times(least, None)}"
        if most == least:
            return " ".join(self._exactly(name, least))
        return " ".join([*self._exactly(name, least), self._up_to(name, most, least)])

    def _exactly(self, name: str, count: int) -> Iterator[str]:
        chunks, left = divmod(count, CHUNK)
        if chunks:
            chunk = self.named(f"{name}{_times(CHUNK, CHUNK)}")
            yield from self._exactly(chunk, chunks)
        if left:
            yield f"{name}{_times(left, left)}"

    def _up_to(self, name: str, most: int | None, least: int) -> str:
        if most is None:
            return f"{name}*"
        count = most - least
        chunks, left = divmod(count, CHUNK)
        if chunks == 0 or count == CHUNK:
            return f"{name}{_times(0, count)}"
        chunk = self.named(f"{name}{_times(CHUNK, CHUNK)}")
        begun = self._up_to(chunk, chunks - 1, 0) if chunks > 1 else ""
        rest = f"{name}{_times(0, left)}" if left else ""
        whole = " ".join(filter(None, (*self._exactly(chunk, chunks), rest)))
        return self.named(f"{begun} {name}{_times(0, CHUNK - 1)} | {whole}".strip())

    def rule(self, part: Part) -> str:
        """The name of a rule for it: what repeats, and each set, is never written in place."""
        return self.named(self._body(part))

    def named(self, body: str) -> str:
        """The name of a rule that says so."""
        self._effort.spend(STEPS_OF_RULE + len(body) // CHARACTERS_OF_STEP)
        if body not in self._names:
            self._refuse_more(1)
            self._names[body] = f"r{len(self._names)}"
        return self._names[body]

    def choice(self, names: Sequence[str]) -> str:
        """The name of a rule for any of some."""
        return names[0] if len(names) == 1 else self.named(" | ".join(dict.fromkeys(names)))

    def _refuse_more(self, rules: int) -> None:
        if len(self._names) + len(self._states) + rules > MAX_RULES:
            raise NoGrammar(f"at most {MAX_RULES} parts")


def _times(least: int, most: int | None) -> str:
    known = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    return known.get((least, most)) or f"{{{least},{'' if most is None else most}}}"


def characters(ranges: Ranges) -> str:
    """A set, so that engines cannot read it otherwise.

    They go from byte to byte. Of a range whose bytes depend on each other, and of ``[^...]``, they
    make what is no UTF-8, or come to where nothing goes on, and then say anything.
    """
    spans = sorted((span for one in ranges for span in _cut(*one)), key=_begins_otherwise)
    if spans[0][0] == _CARET:  # in the first place it negates, escaped or not
        rest = [(_CARET + 1, spans[0][1])] if spans[0][1] > _CARET else []
        spans = [*rest, *spans[1:], (_CARET, _CARET)]
        if len(spans) == 1:
            return f'"{escaped(_CARET)}"'
    texts = (
        escaped(start) if start == end else f"{escaped(start)}-{escaped(end)}"
        for start, end in spans
    )
    return f"[{''.join(texts)}]"


def _begins_otherwise(span: tuple[int, int]) -> bool:
    """Sorts letters and digits first: see `quoted`."""
    return not chr(span[0]).isascii() or not chr(span[0]).isalnum()


def quoted(text: str) -> str:
    r"""A text, so that engines cannot read it otherwise.

    They write ``\u00E9`` as ``\xe9`` and read that again, with whatever digits follow.
    """
    parts = _SWALLOWING.sub(r"\g<0>\0", text).split("\0")
    return " ".join(f'"{"".join(escaped(ord(letter)) for letter in part)}"' for part in parts)


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges in which any byte of UTF-8 may be whatever the others are."""
    for last in _LAST_OF_BYTES:
        if start <= last < end:
            yield from _cut(start, last)
            yield from _cut(last + 1, end)
            return
    for bits in (6, 12, 18) if end > _LAST_OF_BYTES[0] else ():
        low = (1 << bits) - 1
        if start | low == end | low:
            break
        if start & low:
            yield from _cut(start, start | low)
            yield from _cut((start | low) + 1, end)
            return
        if end & low != low:
            yield from _cut(start, (end & ~low) - 1)
            yield from _cut(end & ~low, end)
            return
    yield start, end


def escaped(character: int) -> str:
    """In a text or in a set. Some readers take as many digits as they find: see `quoted`."""
    if chr(character).isascii() and chr(character).isalnum():
        return chr(character)
    return f"\\u{character:04X}" if character <= _LAST_SHORT else f"\\U{character:08X}"
