"""Deterministic automata of regular expressions, as far as they are small.

Some are as long as what is written; some double with each repetition, as that of ``.*a.{12}`` does.
An engine that follows one has a single way to go on, whatever the text.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from services.router.policy.effort import Effort
from services.router.policy.expressions import Choice, Part, Ranges, Repeat, Row, Set

MAX_POSITIONS = 12_000
"""Characters that an expression stands for, repetitions written out."""

FIRST_PAIRS = 1000
"""Of positions, after which a first look is worth it."""


@dataclass(frozen=True)
class State:
    """Where a text may have led.

    Attributes:
        ends: the text may end here.
        moves: characters that may come next, with the number of the state that they lead to.
    """

    ends: bool
    moves: tuple[tuple[Ranges, int], ...]


def deterministic(part: Part, most: int, effort: Effort) -> tuple[State, ...] | None:
    """The states of the automaton of a language, the first one first.

    Args:
        part: the language.
        most: states.
        effort: what it takes is counted there.

    Returns:
        The automaton; None if it has more states, or stands for too many characters.

    Raises:
        TooMuch: it takes more than is left of `effort`.
    """
    return Automaton(part, effort).states(most) if positions(part) <= MAX_POSITIONS else None


def positions(part: Part) -> int:
    """Characters that a language stands for, repetitions written out."""
    match part:
        case Set():
            return 1
        case Row(parts) | Choice(parts):
            return sum(map(positions, parts))
        case Repeat(each, least, most):
            return positions(each) * max(1, least if most is None else most)


_Ends = tuple[bool, int, int]
"""Whether a part may be empty, and where it begins and ends: positions, as bits."""


class Automaton:
    """Glushkov's: a state for each position, no empty moves.

    Attributes:
        depths: of each position, in how many parts it is that may repeat otherwise.
    """

    def __init__(self, part: Part, effort: Effort) -> None:
        """What it takes is counted in `effort`."""
        self.depths: list[int] = []
        self._depth = 0
        self._sets: list[Ranges] = []
        self._follow: list[int] = []
        self._spend = effort.spend
        self._empty, self._first, self._last = self._built(part)

    def together(self) -> Iterator[list[int]]:
        """For each position: those, as bits, to which a text leads that leads to it, too.

        Pair by pair, so that nothing else that texts may lead to hides any. First what is known
        after some pairs, then after twice as many, and so on; last, all of them.
        """
        letters, read_at = self._letters()
        alike = [0] * len(self._sets)
        for position, its in enumerate(read_at):
            for letter in its:
                self._spend(1)
                alike[position] |= letters[letter][0]
        found = [0] * len(self._sets)
        new = [0] * len(self._sets)
        waiting: deque[int] = deque()

        def lead(positions: int, beside: int) -> None:
            for position in self._bits(positions):
                more = beside & alike[position] & ~found[position]
                if more:
                    if not new[position]:
                        waiting.append(position)
                    found[position] |= more
                    new[position] |= more

        lead(self._first, self._first)
        pairs, enough = 0, FIRST_PAIRS
        while waiting:
            position = waiting.popleft()
            pairs += new[position].bit_count()
            following = 0
            for other in self._bits(new[position]):
                following |= self._follow[other]
            new[position] = 0
            lead(self._follow[position], following)
            if pairs > enough:
                yield found
                enough *= 2
        yield found

    def states(self, most: int) -> tuple[State, ...] | None:
        """By subsets of what may come next; None: there are more."""
        letters, read_at = self._letters()
        numbers = {(self._first, self._empty): 0}
        waiting = list(numbers)
        found: list[State] = []
        for possible, ends in waiting:  # grows meanwhile
            moves: dict[int, list[tuple[int, int]]] = {}
            for letter in {one for at in self._bits(possible) for one in read_at[at]}:
                positions, spans = letters[letter]
                following = 0
                for position in self._bits(possible & positions):
                    following |= self._follow[position]
                state = following, bool(possible & positions & self._last)
                if state not in numbers:
                    if len(numbers) >= most:
                        return None
                    numbers[state] = len(numbers)
                    waiting.append(state)
                moves.setdefault(numbers[state], []).extend(spans)
            found.append(State(ends, tuple((_as_one(spans), to) for to, spans in moves.items())))
        return tuple(found)

    def _letters(self) -> tuple[list[tuple[int, list[tuple[int, int]]]], list[list[int]]]:
        """Each kind of character: the positions, as bits, that read it, and which ones are of it.

        And the kinds that each position reads.
        """
        changes: dict[int, int] = {}
        for position, ranges in enumerate(self._sets):
            for start, end in ranges:
                self._spend(1)
                for edge in (start, end + 1):
                    changes[edge] = changes.get(edge, 0) ^ 1 << position
        kinds: dict[int, list[tuple[int, int]]] = {}
        current = start = 0
        for edge in sorted(changes):
            if current:
                kinds.setdefault(current, []).append((start, edge - 1))
            current ^= changes[edge]
            start = edge
        letters = list(kinds.items())
        read_at: list[list[int]] = [[] for _ in self._sets]
        for letter, (positions, _) in enumerate(letters):
            for position in self._bits(positions):
                read_at[position].append(letter)
        return letters, read_at

    def _built(self, part: Part) -> _Ends:
        self._spend(1)
        match part:
            case Set(ranges):
                bit = 1 << len(self._sets)
                self._sets.append(ranges)
                self.depths.append(self._depth)
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
        self._depth += least != most
        for number in range(max(1, least) if most is None else most, 0, -1):
            one = self._built(each)
            if most is None and number == max(1, least):
                self._connect(one[2], one[1])
            empty, first, last = self._joined(one, ends)
            ends = empty or number > least, first, last
        self._depth -= least != most
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


def _as_one(spans: list[tuple[int, int]]) -> Ranges:
    """Sorted, put together."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start == found[-1][1] + 1:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return tuple(found)
