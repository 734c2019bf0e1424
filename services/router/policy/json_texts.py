"""What texts look like between the quotation marks of JSON, for the texts that are meant."""

from services.router.policy.expressions import (
    LAST,
    Choice,
    NoGrammar,
    Part,
    Ranges,
    Repeat,
    Row,
    Set,
    without,
)
from services.router.policy.grammars import characters

_SHORT = {'"': '"', "\\": "\\", "\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f"}
UNSAFE = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
"""Characters that stand there behind a backslash alone, or not at all."""

PLAIN_LETTER = f"plain ::= {characters(without(UNSAFE))}\n"
"""The rule for any other."""


def in_json(part: Part, known: dict[Ranges, Part]) -> Part:
    """What a text between quotation marks in JSON looks like, for the text that is meant.

    Sets that were looked at are `known` from then on.
    """
    match part:
        case Row(parts):
            return Row(tuple([in_json(each, known) for each in parts]))
        case Choice(parts):
            return Choice(tuple([in_json(each, known) for each in parts]))
        case Repeat(each, least, most):
            return Repeat(in_json(each, known), least, most)
        case Set(ranges):
            if ranges not in known:
                known[ranges] = _letters(ranges)
            return known[ranges]


def _letters(ranges: Ranges) -> Part:
    missing = [*without(ranges), *UNSAFE]
    plain = tuple(span for span in without(missing) if span[0] <= LAST)
    found: list[Part] = [Set(plain)] if plain else []
    found += [
        Row((Set(((0x5C, 0x5C),)), Set(((ord(short), ord(short)),))))
        for letter, short in _SHORT.items()
        if any(start <= ord(letter) <= end for start, end in ranges)
    ]
    if not found:
        raise NoGrammar("a control character cannot be in an answer")
    return found[0] if len(found) == 1 else Choice(tuple(found))
