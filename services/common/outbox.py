"""What waits to be written to a stream: in turns, and what piled up meanwhile together."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Filled without waiting, emptied by the one task that writes. State of one stream.

    Whoever's items they are take turns, one item each; each one's own stay in order.
    """

    def __init__(
        self, size: Callable[[T], int] = lambda _: 1, whose: Callable[[T], str] = lambda _: ""
    ) -> None:
        """`size` of an item, as `take` bounds it; `whose` it is."""
        self._size = size
        self._whose = whose
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()  # whose turn it is first
        self._filled = asyncio.Event()

    def put(self, item: T) -> None:
        """Adds what is written after all that waits already of the same one."""
        self._lines.setdefault(self._whose(item), deque()).append(item)
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
        """Forgets what waits: the stream is gone."""
        self._lines.clear()

    def _next(self) -> T:
        """Takes the item whose turn it is."""
        whose, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[whose] = line
        return item
