"""Turns at work that is long enough to hold up others, of one caller after another.

Whoever asks for much waits for its own. Where the work is done on the loop, what runs beside has
most of the time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
Made = TypeVar("Made")

REST = 4.0
"""How long others run after a piece of work, in times of what that took."""

PIECE = 16
"""Messages that are made at once: a tenth of a millisecond each at most."""


@dataclass
class _Line:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class CallerTurns:
    """Turns at long work, one at a time; state of a server."""

    def __init__(self) -> None:
        """Nobody works yet."""
        self._one = asyncio.Lock()
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(
        self, caller: str, clock: Callable[[], float] = time.perf_counter
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Waits until it is this caller's turn: of its own, and then among the callers.

        Args:
            caller: whose work it is.
            clock: seconds.

        Yields:
            What is awaited after each piece of work on the loop: others run meanwhile.
        """
        line = self._lines.setdefault(caller, _Line())
        line.users += 1
        try:
            async with line.turn, self._one:
                began = clock()

                async def rest() -> None:
                    nonlocal began
                    await asyncio.sleep(REST * (clock() - began))
                    began = clock()

                yield rest
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[caller]

    async def made(
        self, caller: str, items: Sequence[T], make: Callable[[T], Made], *, piece: int = PIECE
    ) -> list[Made]:
        """What is made of each item, in order; a few are made at once, more take a turn.

        Args:
            caller: who asks for it.
            items: as they are now; what changes them must not change this sequence.
            make: makes something of one, in a tenth of a millisecond or so.
            piece: how many are made before others run.
        """
        if len(items) <= piece:
            return [make(item) for item in items]
        found: list[Made] = []
        async with self.turn(caller) as rest:
            for first in range(0, len(items), piece):
                if found:
                    await rest()
                found += map(make, items[first : first + piece])
        return found
