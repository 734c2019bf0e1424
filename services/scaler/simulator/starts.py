"""Replicas on their way: ordered, called off, and there at last."""

from collections import deque
from collections.abc import Sequence

from services.scaler.simulator.course import Counts


class Starts:
    """Starts of one pool that are under way; counts what they take."""

    def __init__(self, seconds: Sequence[float], step: float, counts: Counts) -> None:
        """None is under way.

        Args:
            seconds: that starts take, used in turn.
            step: seconds of a step of the trace.
            counts: where starts, stops and what was wasted are counted.
        """
        self._seconds = seconds
        self._step = step
        self._counts = counts
        self._due: deque[tuple[int, int]] = deque()  # ready at, ordered at; earliest first

    def __len__(self) -> int:
        return len(self._due)

    def until(self, end: int) -> int:
        """The step at which the next one is ready, at most `end`."""
        return min(end, self._due[0][0]) if self._due else end

    def come(self, at: int) -> int:
        """How many are ready now; they are on their way no longer."""
        came = 0
        while self._due and self._due[0][0] <= at:
            self._due.popleft()
            came += 1
        return came

    def resize(self, change: int, at: int) -> int:
        """So many replicas more, or fewer; gives how many ready ones have to go."""
        if change:
            self._counts.changes += 1
        for _ in range(change):
            self._order(at)
        for left in range(-change, 0, -1):
            self._counts.stops += left if not self._due else 1
            if not self._due:
                return left
            self._call_off(at)
        return 0

    def _order(self, at: int) -> None:
        seconds = self._seconds[self._counts.starts % len(self._seconds)]
        self._counts.starts += 1
        ready_at = at + max(1, round(seconds / self._step))
        # Starts that take their own time may overtake each other.
        place = len(self._due)
        while place and self._due[place - 1][0] > ready_at:
            place -= 1
        self._due.insert(place, (ready_at, at))

    def _call_off(self, at: int) -> None:
        newest = max(self._due, key=lambda one: one[1])
        self._due.remove(newest)
        self._counts.wasted += (at - newest[1]) * self._step
