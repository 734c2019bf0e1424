"""Turns at something that few can use at once, taken one after another by whoever waits."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable


class FairSemaphore:
    """A semaphore at which one's crowd holds up its own alone. State of the process."""

    def __init__(self, turns: int) -> None:
        """`turns` may be had at once."""
        self._free = turns
        self._lines: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, whose: Hashable) -> None:
        """Waits for a turn; `give_back` follows once. Each one's own come in order."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(whose, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back()  # it came in the moment the waiter left
            raise

    def give_back(self) -> None:
        """A turn is over: who waits has the next one."""
        while self._lines:
            whose, line = self._lines.popitem(last=False)
            while line and (turn := line.popleft()).done():
                pass  # it was given up
            if line:
                self._lines[whose] = line
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
