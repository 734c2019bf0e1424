"""Letters that are one where case does not count, as RE2 reads ``(?i)``: by simple folding."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

LAST_CASED = 0x1E943
"""No letter beyond has two cases."""

_LATER = (("\u0390", 0x1FD3), ("\u03b0", 0x1FE3))
"""That RE2 knows already, and the standard library does not."""


@cache
def _others() -> tuple[Sequence[int], Mapping[int, tuple[int, ...]]]:
    """All letters that have other cases, sorted, and those of each."""
    groups: dict[str, list[int]] = {}
    for number in range(LAST_CASED + 1):
        letter = chr(number)
        folded = letter.casefold()
        if len(folded) > 1:
            folded = letter.lower()
        if folded != letter and len(folded) == 1:
            groups.setdefault(folded, [ord(folded)]).append(number)
    for folded, number in _LATER:
        groups.setdefault(folded, [ord(folded)]).append(number)
    found = {
        one: tuple(other for other in group if other != one)
        for group in groups.values()
        for one in group
    }
    return sorted(found), found


def cased(ranges: Iterable[tuple[int, int]]) -> int:
    """How many letters with other cases some ranges hold."""
    letters, _ = _others()
    return sum(bisect_right(letters, end) - bisect_left(letters, start) for start, end in ranges)


def other_cases(start: int, end: int) -> Iterator[int]:
    """The other cases of the letters in a range."""
    letters, others = _others()
    for letter in letters[bisect_left(letters, start) : bisect_right(letters, end)]:
        yield from others[letter]
