"""How long the last starts of a pool took: the usual time, and how much they differ."""

import math
import statistics
from collections import deque

KEPT_STARTS = 20
LEAST_SECONDS = 0.001
LEAST_STARTS = 3
"""Fewer say nothing of how much they differ."""


class StartTimes:
    """The last starts of one pool."""

    def __init__(self) -> None:
        """None was seen yet."""
        self._seconds: deque[float] = deque(maxlen=KEPT_STARTS)

    def add(self, seconds: float) -> None:
        """Takes how long one took, until the replica was ready."""
        self._seconds.append(seconds)

    @property
    def typical_seconds(self) -> float | None:
        """The median; None: none was seen."""
        return statistics.median(self._seconds) if self._seconds else None

    @property
    def spread(self) -> float:
        """Standard deviation of their logarithm; 0: too few were seen."""
        if len(self._seconds) < LEAST_STARTS:
            return 0.0
        return statistics.stdev(math.log(max(one, LEAST_SECONDS)) for one in self._seconds)
