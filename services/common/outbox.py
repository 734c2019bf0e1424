"""What waits to be written to a stream: in order, and what piled up meanwhile together."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Filled without waiting, emptied by the one task that writes. State of one stream."""

    def __init__(self, size: Callable[[T], int] = lambda _: 1) -> None:
        """`size` of an item, as `take` bounds it."""
        self._size = size
        self._items: deque[T] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Adds what is written after all that waits already."""
        self._items.append(item)
        self._filled.set()

    async def take(self, max_items: int, max_size: float = math.inf) -> list[T]:
        """Waits until there is something, and takes as much as fits together, at least one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        items = [self._items.popleft()]
        if self._items:
            size = self._size(items[0])
            while self._items and len(items) < max_items:
                size += self._size(self._items[0])
                if size > max_size:
                    break
                items.append(self._items.popleft())
        return items

    def clear(self) -> None:
        """Forgets what waits: the stream is gone."""
        self._items.clear()
