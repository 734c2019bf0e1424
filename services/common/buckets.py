"""Durations counted in the buckets of one fixed scale, so that counts of several processes add up.

The scale is that of `DurationCounts` in scaler.proto: bucket i has what is at most 0.1 ms * 2^(i/4)
and more than the bound before it, the last one what is longer than the last bound. Four buckets for
each doubling: what is read back is within a factor of 2^(1/4) of the truth.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest

BOUNDS = tuple(0.0001 * 2 ** (index / 4) for index in range(81))
"""Seconds: from 0.1 ms to 104.8576 s."""

BUCKETS = len(BOUNDS) + 1


def bucket_of(seconds: float) -> int:
    """The bucket that the duration falls in."""
    return bisect_left(BOUNDS, seconds)


def merged(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The counts of both; buckets that are left out at the end have none."""
    return tuple(a + b for a, b in zip_longest(first, second, fillvalue=0))


def quantile(counts: Sequence[int], fraction: float) -> float | None:
    """Seconds that `fraction` (0 to 1) of the durations take at most; None: there are none.

    Within a bucket durations are taken to be spread evenly; those outside the scale count as its
    first or last bound.
    """
    rank = fraction * sum(counts)
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            low = BOUNDS[min(max(index - 1, 0), len(BOUNDS) - 1)]
            high = BOUNDS[min(index, len(BOUNDS) - 1)]
            return low + (high - low) * max(rank - below, 0.0) / count
        below += count
    return None


def longer_than(counts: Sequence[int], seconds: float) -> float:
    """How many of the durations are longer; within a bucket they are taken to be spread evenly."""
    longer = 0.0
    for index, count in enumerate(counts):
        low = BOUNDS[index - 1] if index else 0.0
        high = BOUNDS[index] if index < len(BOUNDS) else float("inf")
        if seconds <= low:
            longer += count
        elif seconds < high < float("inf"):
            longer += count * (high - seconds) / (high - low)
    return longer
