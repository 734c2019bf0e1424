"""In how many ways a text may be read at once by the grammar of an expression.

Engines follow a grammar with all the ways to read the text so far (Earley's method), for every
token that may come next. Where parts that repeat hold parts that repeat, or stand beside others
that take the same characters, there are very many ways, and each token takes seconds. That is found
here beforehand: by reading, in bounded work, the text that most ways are open for.

A small part may be hidden behind a long text or in a branch, so each part in which something
repeats within something that repeats is read for itself too. What alternatives draw the reading
away from is found by `overlaps`.
"""

from collections import Counter
from collections.abc import Iterator

from services.router.policy.effort import Effort
from services.router.policy.expressions import Choice, Part, Ranges, Repeat, Row, Set

LENGTH = 64
"""Characters that are read of a text."""

_EFFORT_OF_STEP = 3
_EFFORT_OF_RANGE = 1
_Item = tuple[int, int, int]
"""A part that is being read: its number, how much of it has been, and since which character."""


def ways(part: Part, enough: int, effort: Effort) -> int:
    """Steps that a character takes at most: up to five or so where texts are read in one way.

    A choice between many is none in itself: what is begun anew at a character is not counted.

    Args:
        part: the language.
        enough: it stops counting beyond that.
        effort: what counting takes is counted there.

    Raises:
        TooMuch: that was not left of `effort`.
    """
    parts = _Parts(part)
    most = 0
    for item in parts.worth_reading():
        if most <= enough:
            most = max(most, _Reading(parts, effort).most_steps(item, enough))
    return most


class _Parts:
    """The parts of a language by number, equal ones once; inner ones have smaller numbers."""

    def __init__(self, part: Part) -> None:
        self.parts: list[Part] = []
        self.inner: list[tuple[int, ...]] = []
        self.empty: list[bool] = []
        self._least: list[int] = []  # characters
        self._numbers: dict[Part, int] = {}
        self.whole = self._number(part)

    def worth_reading(self) -> Iterator[_Item]:
        """The whole, and each part in which something repeats within or beside what repeats.

        What stands behind a long text is begun with, too.
        """
        loose = [isinstance(part, Repeat) and part.least != part.most for part in self.parts]
        found = [0] * len(self.parts)
        for number, inner in enumerate(self.inner):
            found[number] = loose[number] + sum(found[each] for each in inner)
            if found[number] <= 1 and number != self.whole:
                continue
            yield number, 0, 0
            since = 0
            for at, each in enumerate(inner if isinstance(self.parts[number], Row) else ()):
                if found[each] and since > LENGTH // 2:
                    yield number, at, 0
                    since = 0
                since += self._least[each]

    def _number(self, part: Part) -> int:
        if part in self._numbers:
            return self._numbers[part]
        inner: tuple[int, ...] = ()
        shortest = 1
        match part:
            case Row(parts):
                inner = tuple(self._number(each) for each in parts)
                shortest = sum(self._least[each] for each in inner)
            case Choice(parts):
                inner = tuple(self._number(each) for each in parts)
                shortest = min(self._least[each] for each in inner)
            case Repeat(each, least, _):
                inner = (self._number(each),)
                shortest = least * self._least[inner[0]]
        self.parts.append(part)
        self.inner.append(inner)
        self.empty.append(shortest == 0)
        self._least.append(shortest)
        self._numbers[part] = number = len(self.parts) - 1
        return number


class _Reading:
    """Reads one part."""

    def __init__(self, parts: _Parts, effort: Effort) -> None:
        self._parts = parts
        self._effort = effort
        self._wanted: list[dict[int, list[_Item]]] = []
        """After each character: by the number of a part, what goes on after it."""

    def most_steps(self, item: _Item, enough: int) -> int:
        """The most that a character takes from `item` on; beyond `enough` it goes on no further."""
        most = 0
        items = [item]
        while items and len(self._wanted) < LENGTH:
            most = max(most, self._read(items, enough))
            if most > enough:
                break
            items = self._after_a_character()
        return most

    def _read(self, items: list[_Item], enough: int) -> int:
        """Finds all ways to go on from here; returns the steps that those took that had begun."""
        self._wanted.append({})
        at = len(self._wanted) - 1
        seen = set(items)
        left = list(seen)
        steps = len(items) - 1
        while left and steps <= enough:
            self._effort.spend(_EFFORT_OF_STEP)
            for item in self._from(left.pop()):
                self._effort.spend(_EFFORT_OF_STEP)
                steps += item[2] < at
                if item not in seen:
                    seen.add(item)
                    left.append(item)
        return steps

    def _from(self, item: _Item) -> Iterator[_Item]:
        number, read, since = item
        at, here = len(self._wanted) - 1, self._wanted[-1]
        wanted, ended = self._rest(number, read)
        for each in wanted:
            if each not in here:
                here[each] = []
                if not isinstance(self._parts.parts[each], Set):
                    yield each, 0, at
            here[each].append(item)
            if self._parts.empty[each]:
                yield self._further(item)
        if ended and since < at:
            for parent in self._wanted[since].get(number, ()):
                yield self._further(parent)

    def _rest(self, number: int, read: int) -> tuple[tuple[int, ...], bool]:
        """What may come next in a part, and whether it may end here."""
        inner = self._parts.inner[number]
        match self._parts.parts[number]:
            case Repeat(_, least, most):
                return (inner if most is None or read < most else ()), read >= least
            case Choice():
                return (() if read else inner), bool(read)
        return inner[read : read + 1], read == len(inner)

    def _further(self, item: _Item) -> _Item:
        number, read, since = item
        part = self._parts.parts[number]
        if isinstance(part, Choice):
            return number, 1, since
        if isinstance(part, Repeat) and part.most is None:
            return number, min(read + 1, part.least), since
        return number, read + 1, since

    def _after_a_character(self) -> list[_Item]:
        """What goes on after the character that most ways take."""
        here = self._wanted[-1]
        sets = {number: ranges for number in here if (ranges := self._ranges(number))}
        self._effort.spend(_EFFORT_OF_RANGE * sum(map(len, sets.values())))
        changes: Counter[int] = Counter()  # in how many take a character, by where they do
        for number, ranges in sets.items():
            for start, end in ranges:
                changes[start] += len(here[number])
                changes[end + 1] -= len(here[number])
        best, most, takers = -1, 0, 0
        for start in sorted(changes):
            takers += changes[start]
            if takers >= most:
                best, most = start, takers
        takers_of_best = (each for each, ranges in sets.items() if _has(ranges, best))
        return [self._further(parent) for each in takers_of_best for parent in here[each]]

    def _ranges(self, number: int) -> Ranges:
        part = self._parts.parts[number]
        return part.ranges if isinstance(part, Set) else ()


def _has(ranges: Ranges, character: int) -> bool:
    return any(start <= character <= end for start, end in ranges)
