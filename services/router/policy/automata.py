"""How large the automaton of a regular expression is, before anybody builds one.

Engines turn the ``pattern`` of a JSON schema into a deterministic automaton, in the loop that
serves everybody. Most are as long as what is written; some double with each repetition, as
``.*a.{12}`` does. Those are found here, in bounded work, and refused.
"""

from collections.abc import Iterator

from services.router.policy.effort import Effort
from services.router.policy.expressions import Choice, Part, Ranges, Repeat, Row, Set, read

MAX_POSITIONS = 2000
"""Characters that an expression stands for, repetitions written out."""

GROWTH = 3
LEAST_STATES = 500
"""An automaton may have so many states, or `GROWTH` for each position."""


class TooLarge(ValueError):
    """The automaton is larger than engines can take; the message says how."""


def refuse_large(expression: str, effort: Effort) -> None:
    """Does nothing where the automaton of the whole text is small.

    Raises:
        TooLarge: it is not.
        TooMuch: to find out takes more than is left of `effort`.
        NoGrammar: see `expressions.read`.
    """
    part = read(expression)
    if _positions(part) > MAX_POSITIONS:
        raise TooLarge(f"stands for more than {MAX_POSITIONS} characters, repetitions written out")
    _Automaton(part, effort).refuse_large()


def _positions(part: Part) -> int:
    match part:
        case Set():
            return 1
        case Row(parts) | Choice(parts):
            return sum(map(_positions, parts))
        case Repeat(each, least, most):
            return _positions(each) * max(1, least if most is None else most)


_Ends = tuple[bool, int, int]
"""Whether a part may be empty, and where it begins and ends: positions, as bits."""


class _Automaton:
    """Glushkov's: a state for each position, no empty moves."""

    def __init__(self, part: Part, effort: Effort) -> None:
        self._sets: list[Ranges] = []
        self._follow: list[int] = []
        self._spend = effort.spend
        _, self._first, _ = self._built(part)

    def refuse_large(self) -> None:
        """Counts the states of the deterministic one, as far as is needed."""
        most = max(LEAST_STATES, GROWTH * len(self._sets))
        letters, read_at = self._letters()
        seen = {self._first}
        waiting = [self._first]
        while waiting:
            possible = waiting.pop()
            for letter in {one for position in self._bits(possible) for one in read_at[position]}:
                following = 0
                for position in self._bits(possible & letters[letter]):
                    following |= self._follow[position]
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
                    if len(seen) > most:
                        raise TooLarge(f"needs an automaton of more than {most} states")

    def _letters(self) -> tuple[list[int], list[list[int]]]:
        """For each kind of character the positions, as bits, that read it; the same by position."""
        changes: dict[int, int] = {}
        for position, ranges in enumerate(self._sets):
            for start, end in ranges:
                self._spend(1)
                for edge in (start, end + 1):
                    changes[edge] = changes.get(edge, 0) ^ 1 << position
        kinds, current = set(), 0
        for edge in sorted(changes):
            current ^= changes[edge]
            kinds.add(current)
        letters = list(kinds - {0})
        read_at: list[list[int]] = [[] for _ in self._sets]
        for letter, positions in enumerate(letters):
            for position in self._bits(positions):
                read_at[position].append(letter)
        return letters, read_at

    def _built(self, part: Part) -> _Ends:
        self._spend(1)
        match part:
            case Set(ranges):
                bit = 1 << len(self._sets)
                self._sets.append(ranges)
                self._follow.append(0)
                return False, bit, bit
            case Row(parts):
                ends: _Ends = (True, 0, 0)
                for each in reversed(parts):
                    ends = self._joined(self._built(each), ends)
                return ends
            case Choice(parts):
                all_ends = [self._built(each) for each in parts]
                first = last = 0
                for _, begins, stops in all_ends:
                    first |= begins
                    last |= stops
                return any(empty for empty, _, _ in all_ends), first, last
            case Repeat(each, least, most):
                return self._repeated(each, least, most)

    def _repeated(self, each: Part, least: int, most: int | None) -> _Ends:
        """From the last to the first, so that what may be left out ends nothing before it."""
        ends: _Ends = (True, 0, 0)
        for number in range(max(1, least) if most is None else most, 0, -1):
            one = self._built(each)
            if most is None and number == max(1, least):
                self._connect(one[2], one[1])
            empty, first, last = self._joined(one, ends)
            ends = empty or number > least, first, last
        return ends

    def _joined(self, left: _Ends, right: _Ends) -> _Ends:
        """One after the other."""
        empty, first, last = left
        may_end, then, ends = right
        self._connect(last, then)
        return (
            empty and may_end,
            first | (then if empty else 0),
            ends | (last if may_end else 0),
        )

    def _connect(self, last: int, first: int) -> None:
        for position in self._bits(last):
            self._follow[position] |= first

    def _bits(self, bits: int) -> Iterator[int]:
        while bits:
            self._spend(1)
            lowest = bits & -bits
            yield lowest.bit_length() - 1
            bits ^= lowest
