"""Time that passes when a test says so; stands in for an asyncio loop's."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0
        self._order = count()
        self._due: list[tuple[float, int, FakeTimer, Callable[[], Any]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> FakeTimer:
        timer = FakeTimer()
        due = (self.now + delay, next(self._order), timer, lambda: callback(*args))
        heapq.heappush(self._due, due)
        return timer

    @property
    def armed(self) -> int:
        return sum(not timer.cancelled for _, _, timer, _ in self._due)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            at, _, timer, callback = heapq.heappop(self._due)
            self.now = max(self.now, at)
            if not timer.cancelled:
                callback()
        self.now = end
