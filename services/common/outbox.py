"""What waits to be written to a stream: in order, and what piled up meanwhile together."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Filled without waiting, emptied by the one task that writes. State of one stream."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Adds what is written after all that waits already."""
        self._items.append(item)
        self._filled.set()

    async def take(self, max_items: int) -> list[T]:
        """Waits until there is something, and takes at most `max_items`, at least one."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        return [self._items.popleft() for _ in range(min(max_items, len(self._items)))]

    def clear(self) -> None:
        """Forgets what waits: the stream is gone."""
        self._items.clear()
