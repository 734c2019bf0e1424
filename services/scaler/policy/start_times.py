"""How long the last starts of a pool took: the usual time, and how much they differ. Pure."""

import math
import statistics
from dataclasses import dataclass

KEPT_STARTS = 20
LEAST_SECONDS = 0.001
LEAST_STARTS = 3
"""Fewer say nothing of how much they differ."""


@dataclass(frozen=True)
class StartTimes:
    """The last starts of one pool, in seconds until the replica was ready, the latest last."""

    seconds: tuple[float, ...] = ()

    def add(self, seconds: float) -> "StartTimes":
        """With one more."""
        return StartTimes((*self.seconds, seconds)[-KEPT_STARTS:])

    def after(self, earlier: "StartTimes") -> "StartTimes":
        """With those before them."""
        return StartTimes((*earlier.seconds, *self.seconds)[-KEPT_STARTS:])

    @property
    def typical_seconds(self) -> float | None:
        """The median; None: none was seen."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def spread(self) -> float:
        """Standard deviation of their logarithm; 0: too few were seen."""
        if len(self.seconds) < LEAST_STARTS:
            return 0.0
        return statistics.stdev(math.log(max(one, LEAST_SECONDS)) for one in self.seconds)
