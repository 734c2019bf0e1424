"""Regular expressions as grammars, for engines that are told what form an answer must have.

Engines determinise a regular expression in the loop that serves everybody: ``.*a.{12}`` takes
minutes there, and its size doubles with each repetition. The same language as a grammar, a rule for
each set of characters and for each part that repeats, stays as small as it is written. A grammar
never allows what its expression does not.
"""

import functools
import re
from collections.abc import Iterator, Sequence

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

MAX_RULES = 4000
"""Of one grammar: what an engine's compiler reads in a moment."""

MAX_CHARACTERS = 250_000
"""Of one grammar: it goes along with each request."""

KEPT = 8
"""Grammars that are kept: one is asked for again as soon as its expression is found to be good."""

CHUNK = 16
"""Repetitions that are counted one by one."""

_LAST_OF_BYTES = (0x7F, 0x7FF, 0xFFFF)
"""The last characters that are one, two and three bytes of UTF-8."""

_CARET = 0x5E
_SWALLOWING = re.compile(r"[\x01-\x1F\x7F-\xFF](?=[0-9A-Fa-f])")
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

    def write(self, part: Part) -> str:
        """The grammar of a text."""
        body = self._body(part)
        return self.joined(body)

    def joined(self, body: str, more: str = "") -> str:
        """The rules from ``root`` on, which is `body`, with more of them at the end."""
        rules = "".join(f"{name} ::= {text}\n" for text, name in self._names.items())
        whole = f"root ::= {body}\n{rules}{more}"
        if len(whole) > MAX_CHARACTERS:
            raise NoGrammar(f"at most {MAX_CHARACTERS} characters as a grammar, got {len(whole)}")
        return whole

    def _body(self, part: Part) -> str:
        match part:
            case Row(parts):
                return " ".join(self._row(parts)) or '""'
            case Choice(parts):
                return " | ".join(self._body(each) for each in parts)
            case Repeat():
                flat = _flat(part)
                return self.times(self.rule(flat.part), flat.least, flat.most)
            case Set(ranges):
                return characters(ranges)

    def _row(self, parts: Sequence[Part]) -> Iterator[str]:
        text = ""
        for part in _joined(parts):
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
        if body not in self._names:
            if len(self._names) >= MAX_RULES:
                raise NoGrammar(f"at most {MAX_RULES} parts")
            self._names[body] = f"r{len(self._names)}"
        return self._names[body]


def _flat(part: Repeat) -> Repeat:
    """Without repetitions of repetitions: an engine would follow each way to cut a text."""
    each = part.part
    if not isinstance(each, Repeat):
        return part
    each = _flat(each)
    if each.least > 1 or 0 in (each.most, part.most):
        return Repeat(each, part.least, part.most)
    endless = each.most is None or part.most is None
    most = None if endless else (each.most or 0) * (part.most or 0)
    return Repeat(each.part, each.least * part.least, most)


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Repetitions of the same, one after another, as one."""
    last: Repeat | None = None
    for part in parts:
        following = _flat(part) if isinstance(part, Repeat) else None
        if last and following and last.part == following.part:
            endless = last.most is None or following.most is None
            most = None if endless else (last.most or 0) + (following.most or 0)
            last = Repeat(last.part, last.least + following.least, most)
            continue
        if last:
            yield last
        last = following
        if not following:
            yield part
    if last:
        yield last


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
