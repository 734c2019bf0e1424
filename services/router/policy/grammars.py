"""Regular expressions as grammars, for engines that are told what form an answer must have.

Engines determinise a regular expression in the loop that serves everybody: ``.*a.{12}`` takes
minutes there, and its size doubles with each repetition. The same language as a grammar, a rule for
each set of characters and for each part that repeats, stays as small as it is written. Where that
could be read in many ways at once, the grammar is that of the automaton instead, if it is small: a
rule for each state. A grammar never allows what its expression does not.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import suppress

from services.router.policy.ambiguity import ways
from services.router.policy.automata import State, deterministic
from services.router.policy.effort import Effort, TooMuch
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
from services.router.policy.simplified import simplified

MAX_RULES = 4000
"""Of one grammar: what an engine's compiler reads in a moment."""

KEPT = 64
"""Grammars that are kept: requests of one application mostly want the same few."""

FEW_WAYS = 16
"""Steps for a character at most (see `ambiguity`) of what is told as it is written."""

MOST_WAYS = 150
"""The same of what has no small automaton, so that one part may begin at each character of another.
Beyond that tokens take seconds."""

MAX_STATES = 400
"""Of an automaton that is told as a grammar."""

CHUNK = 16
"""Repetitions that are counted one by one."""

_LAST_SHORT = 0xFFFF  # what four digits say


@functools.lru_cache(maxsize=KEPT)
def grammar(expression: str) -> str:
    """The language of an expression, as rules from ``root`` on (EBNF).

    Raises:
        NoGrammar: it has none, or a too large one, or none that can be followed quickly.
    """
    writer = Writer()
    root = writer.language(read(expression), Effort())
    rules = [f"{name} ::= {text}" for name, text in writer.rules()]
    return "\n".join([f"root ::= {root}", *rules]) + "\n"


class Writer:
    """Writes rules, equal ones once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._states: dict[str, str] = {}

    def rules(self) -> Iterator[tuple[str, str]]:
        """Names and what they stand for."""
        yield from ((name, text) for text, name in self._names.items())
        yield from self._states.items()

    def language(self, part: Part, effort: Effort) -> str:
        """The body of a rule for a language, said so that engines follow it quickly.

        Raises:
            NoGrammar: it cannot be said so, or not found out within `effort`.
        """
        part = simplified(part)
        try:
            found = ways(part, MOST_WAYS, effort)
        except TooMuch as error:
            raise NoGrammar(str(error)) from error
        if found <= FEW_WAYS:
            return self._body(part)
        with suppress(TooMuch):
            if (states := deterministic(part, MAX_STATES, effort)) is not None:
                return self._automaton(states)
        if found > MOST_WAYS:
            raise NoGrammar(
                "a text can be read in too many ways at once: put a mark that they do not take "
                "themselves between the parts that repeat, or let them repeat fewer times"
            )
        return self._body(part)

    def _automaton(self, states: Sequence[State]) -> str:
        self._refuse_more(len(states))
        names = [f"s{len(self._states) + number}" for number in range(len(states))]
        for name, state in zip(names, states, strict=True):
            moves = [f"{_characters(ranges)} {names[to]}" for ranges, to in state.moves]
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
        if body not in self._names:
            self._refuse_more(1)
            self._names[body] = f"r{len(self._names)}"
        return self._names[body]

    def _refuse_more(self, rules: int) -> None:
        if len(self._names) + len(self._states) + rules > MAX_RULES:
            raise NoGrammar(f"at most {MAX_RULES} parts")


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
