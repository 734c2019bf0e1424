"""Which callers have read nothing for too long, or leave too much unread: their calls are ended."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Why(Enum):
    """Why a call is ended; the values are for its caller."""

    LATE = "the caller read nothing of the answer for too long"
    MUCH = "too much waited for callers of this tenant who had not read it, most of it here"


@dataclass(frozen=True, slots=True)
class Unread:
    """What one caller has not taken.

    Attributes:
        seconds: for how long it has taken nothing of what waits for it.
        held_bytes: kept for it meanwhile.
        tenant: whose caller it is.
    """

    seconds: float
    held_bytes: int
    tenant: str


def overdue(callers: Sequence[Unread], *, most_seconds: float, most_bytes: int) -> dict[int, Why]:
    """The numbers of those whose calls are to be ended.

    They have had their time; or what is kept for all of them would be more than `most_bytes`. Then
    the tenant for which most is kept loses calls, those with the most first, as a few should not
    cost many: no tenant's crowd ends a call of one for which less is kept.
    """
    ended = {number: Why.LATE for number, one in enumerate(callers) if one.seconds >= most_seconds}
    kept: Counter[str] = Counter()
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(callers)), key=lambda number: callers[number].held_bytes):
        if number not in ended:
            kept[callers[number].tenant] += callers[number].held_bytes
            numbers[callers[number].tenant].append(number)
    left = kept.total()
    while left > most_bytes:
        tenant = max(kept, key=lambda tenant: kept[tenant])
        number = numbers[tenant].pop()
        kept[tenant] -= callers[number].held_bytes
        left -= callers[number].held_bytes
        ended[number] = Why.MUCH
    return ended
