"""How many parts of an expression may take the same characters of the same text.

A text that shows it need not be found for that (`ambiguity` tries one): it is asked of each two
parts whether any text leads to both, so that nothing that stands beside them can draw away from it.
Counts and loops are cut to some dozens, first to fewer: most expressions show with those that
no text may be read in many ways.
"""

from collections.abc import Iterator, Sequence

from services.router.policy.automata import Automaton, positions
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import Choice, Part, Repeat, Row, Set

MANY_POSITIONS = 1500
"""Characters that an expression stands for; beyond that, alternatives that are plain texts are left
out, as words of long lists are."""

MAX_POSITIONS = 9000
"""The same without those."""

FEW = 4
"""Parts of an expression with small counts: it takes few steps with larger ones, too."""

MAX_EFFORT = 60_000
"""What takes more is read in too many ways."""

_CUT_FIRST = 3, 9
_CUT = 24, 72
"""Repetitions that are left of what does not vary itself, and of all within each other at least."""

_NESTED = 4
"""Steps of a part that repeats within one that repeats: with it those may end, and begin anew."""


def overlaps(part: Part, enough: int, effort: Effort) -> int:
    """Steps that a character takes at most, as far as it can be said so: a part is one or two.

    Args:
        part: the language.
        enough: it stops counting beyond that.
        effort: what counting takes is counted there.

    Raises:
        TooMuch: that was not left of `effort`.
    """
    few, varies = _cut(part, *_CUT_FIRST)
    if not varies:
        return 0
    own = Effort(MAX_EFFORT)
    try:
        most, found = _largest(few, enough, own)
        if found > enough or most <= FEW:
            return found
        return _largest(_cut(part, *_CUT)[0], enough, own)[1]
    except TooMuch:
        return enough + 1
    finally:
        effort.spend(own.spent)


def _largest(part: Part, enough: int, effort: Effort) -> tuple[int, int]:
    """Parts of the largest group that any text may lead to together, and steps that they take."""
    if positions(part) > MANY_POSITIONS:
        part = _fewer(part)
        if positions(part) > MAX_POSITIONS:
            raise TooMuch("takes too long to check")
    automaton = Automaton(part, effort)
    weights = [_NESTED if depth > 1 else 1 for depth in automaton.depths]
    groups: list[list[int]] = []
    found = 0
    for together in automaton.together():
        groups = list(_groups(together, effort))
        found = max((sum(weights[one] for one in group) for group in groups), default=0)
        if found > enough:
            break
    return max(map(len, groups), default=0), found


def _cut(part: Part, each: int, all_together: int) -> tuple[Part, int]:
    """The same with fewer repetitions, none without end; and how many are within each other.

    None where nothing repeats more or less often, or is one of several texts.
    """
    match part:
        case Set():
            return part, 0
        case Row(parts) | Choice(parts):
            cut = [_cut(one, each, all_together) for one in parts]
            several = isinstance(part, Choice) and not all(isinstance(one, Set) for one in parts)
            return (
                type(part)(tuple([one for one, _ in cut])),
                max((int(several), *(times for _, times in cut))),
            )
        case Repeat(inner, least, most):
            inner, times = _cut(inner, each, all_together)
            count = max(3, all_together // times) if times else each
            if most is not None:
                count = min(count, most)
            loose = least != most
            within = max(1, count * max(1, times)) if loose or times else 0
            return Repeat(inner, min(least, count - loose), count), within


def _fewer(part: Part) -> Part:
    """The same without alternatives that are plain texts; with one of them where all are."""
    match part:
        case Set():
            return part
        case Row(parts):
            return Row(tuple([_fewer(one) for one in parts]))
        case Choice(parts):
            others = [one for one in parts if not _is_text(one)]
            return Choice(tuple([_fewer(one) for one in others])) if others else parts[0]
        case Repeat(each, least, most):
            return Repeat(_fewer(each), least, most)


def _is_text(part: Part) -> bool:
    match part:
        case Set(ranges):
            return sum(end - start + 1 for start, end in ranges) <= FEW
        case Row(parts) | Choice(parts):
            return all(map(_is_text, parts))
        case Repeat():
            return False


def _groups(together: Sequence[int], effort: Effort) -> Iterator[list[int]]:
    """Positions that all are together, each two of them: each in one group, or in no larger one."""
    met = [one.bit_count() for one in together]
    largest = 0
    seen: set[int] = set()
    for first in sorted(range(len(together)), key=met.__getitem__, reverse=True):
        if met[first] <= largest or first in seen:
            continue
        effort.spend(met[first])
        left = together[first]
        group = []
        for one in sorted(_bits(left), key=met.__getitem__, reverse=True):
            if left >> one & 1:
                group.append(one)
                left &= together[one]
        seen.update(group)
        largest = max(largest, len(group))
        yield group


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
