"""What waits to be written to a stream: in turns, and what piled up meanwhile together."""

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Filled without waiting, emptied by the one task that writes. State of one stream.

    Whoever's items they are take turns, one item each; each one's own stay in order. What has been
    taken can be put behind nobody else's any more, so of each one's only so many are out at once.
    """

    def __init__(
        self,
        size: Callable[[T], int] = lambda _: 1,
        whose: Callable[[T], str] = lambda _: "",
        most_out: float = math.inf,
    ) -> None:
        """Nothing waits yet.

        Args:
            size: of an item, as `take` bounds it.
            whose: it is.
            most_out: of one's items, taken and not yet `over`; its others wait for that.
        """
        self._size = size
        self._whose = whose
        self._most_out = most_out
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()  # whose turn it is first
        self._resting: dict[str, deque[T]] = {}  # lines of whom too much is out
        self._out: Counter[str] = Counter()
        self._filled = asyncio.Event()

    @property
    def rests(self) -> bool:
        """Whether anything waits for what is out."""
        return bool(self._resting)

    def put(self, item: T) -> None:
        """Adds what is written after all that waits already of the same one."""
        whose = self._whose(item)
        if (line := self._resting.get(whose)) is not None:
            line.append(item)
        elif self._out[whose] >= self._most_out:
            self._resting[whose] = deque([item])
        else:
            self._lines.setdefault(whose, deque()).append(item)
            self._filled.set()

    def over(self, whose: str) -> None:
        """One of somebody's items that were taken is done with."""
        self._out[whose] -= 1
        if not self._out[whose]:
            del self._out[whose]
        if (line := self._resting.pop(whose, None)) is not None:
            self._lines[whose] = line
            self._filled.set()

    async def take(self, max_items: int, max_size: float = math.inf) -> list[T]:
        """Waits until there is something, and takes as much as fits together, at least one."""
        while not self._lines:
            self._filled.clear()
            await self._filled.wait()
        items = [self._next()]
        if self._lines:
            size = self._size(items[0])
            while self._lines and len(items) < max_items:
                size += self._size(next(iter(self._lines.values()))[0])
                if size > max_size:
                    break
                items.append(self._next())
        return items

    def clear(self) -> None:
        """Forgets what waits and what is out: the stream is gone."""
        self._lines.clear()
        self._resting.clear()
        self._out.clear()

    def _next(self) -> T:
        """Takes the item whose turn it is."""
        whose, line = self._lines.popitem(last=False)
        item = line.popleft()
        self._out[whose] += 1
        if line:
            rests = self._out[whose] >= self._most_out
            (self._resting if rests else self._lines)[whose] = line
        return item
