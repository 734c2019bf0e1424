"""What many ask for at a time, made once for all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Making(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Shared(Generic[T]):
    """Something that is made when it is asked for, never from before it was.

    It is made in a task of its own, which ends with the last who waits for it: who is cut off
    takes it from nobody else.
    """

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        """Makes nothing yet. `make` reads what holds when it begins, or later."""
        self._make = make
        self._one = asyncio.Lock()
        self._next: _Making[T] | None = None  # which has not begun

    async def get(self) -> T:
        """One that was begun after this call; all who wait for the next get the same.

        Raises:
            Exception: whatever making it raises, to all who wait for it; who asks next has it made
                anew.
        """
        if self._next is None:
            self._next = _Making(asyncio.create_task(self._made()))
        making = self._next
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            if not making.waiting:
                making.task.cancel()
                if self._next is making:
                    self._next = None  # nobody may join it any more

    async def _made(self) -> T:
        async with self._one:
            self._next = None
            return await self._make()
