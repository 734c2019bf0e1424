"""What many ask for at a time, made once for all of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Something that is made when it is asked for, never from before it was."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        """Makes nothing yet. `make` reads what holds when it begins, or later."""
        self._make = make
        self._making = asyncio.Lock()
        self._begun = 0
        self._made: tuple[int, T] | None = None
        self._asked = 0

    async def get(self) -> T:
        """One that was begun after this call; all who wait for the next get the same.

        Raises:
            Exception: whatever making it raises; whoever waits next makes it anew.
        """
        asked_at = self._begun
        self._asked += 1
        try:
            async with self._making:
                if self._made is None or self._made[0] <= asked_at:
                    self._begun += 1
                    self._made = self._begun, await self._make()
                return self._made[1]
        finally:
            self._asked -= 1
            if not self._asked:
                self._made = None  # nobody may take it any more
