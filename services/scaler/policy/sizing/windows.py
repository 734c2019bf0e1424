"""The greatest or least of what was seen lately, kept small however long the window is.

Pure. Times are seconds of one clock and come in order.
"""

Seen = tuple[tuple[float, float], ...]
"""When and what, oldest first; each one is beaten by no later one, so the first is the extreme."""

MOST = 720
"""Values that one window keeps; of more, the oldest, which is the extreme, stays and others go."""


def with_greatest(seen: Seen, at: float, value: float, since: float) -> Seen:
    """Adds a value and forgets those before `since`; the first is then the greatest."""
    end = len(seen)
    while end and value >= seen[end - 1][1]:
        end -= 1
    return _kept(seen, end, (at, value), since)


def with_least(seen: Seen, at: float, value: float, since: float) -> Seen:
    """Adds a value and forgets those before `since`; the first is then the least."""
    end = len(seen)
    while end and value <= seen[end - 1][1]:
        end -= 1
    return _kept(seen, end, (at, value), since)


def _kept(seen: Seen, end: int, newest: tuple[float, float], since: float) -> Seen:
    start = 0
    while start < end and seen[start][0] < since:
        start += 1
    if end - start >= MOST:
        return (seen[start], *seen[end - MOST + 2 : end], newest)
    return (*seen[start:end], newest)
