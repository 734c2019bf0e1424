"""Which callers have read nothing for too long, or leave too much unread: their calls are ended."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unread:
    """What one caller has not taken.

    Attributes:
        seconds: for how long it has taken nothing of what waits for it.
        held_bytes: kept for it meanwhile.
    """

    seconds: float
    held_bytes: int


def overdue(callers: Sequence[Unread], *, most_seconds: float, most_bytes: int) -> list[int]:
    """The numbers of those whose calls are to be ended.

    They have had their time; or they leave so much that what is kept for all of them would be more
    than `most_bytes`: then those with the most go first, as a few should not cost many.
    """
    late = [number for number, one in enumerate(callers) if one.seconds >= most_seconds]
    others = set(range(len(callers))).difference(late)
    held = sum(callers[number].held_bytes for number in others)
    for number in sorted(others, key=lambda number: callers[number].held_bytes, reverse=True):
        if held <= most_bytes:
            break
        held -= callers[number].held_bytes
        late.append(number)
    return late
