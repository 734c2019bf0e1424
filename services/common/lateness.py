"""Time limits of what others are asked for, where this process itself may be late.

An answer may have come in time and wait to be read by an event loop that was held up: what this
process is late says nothing of whom it asked.
"""

import asyncio
from collections.abc import Callable

LATE_SHARE = 0.2
"""Of a limit: so late this process may be, and still say of others that they are."""

LOOKS = 5
"""In so many parts a limit passes: the loop may be held up at any time, not just at the end."""


class Limit:
    """Gives up after a time; a little later where the event loop was held up in it.

    Attributes:
        late: it was, so that nothing is known of who was asked.
    """

    __slots__ = ("_ends", "_give_up", "_grace", "_part", "_timer", "late")

    def __init__(self, seconds: float, grace: float, give_up: Callable[[], object]) -> None:
        """Calls `give_up` after `seconds`.

        Or `grace` later where the loop came more than that too late to any part of them.
        """
        self._give_up, self._grace, self.late = give_up, grace, False
        self._part = seconds / LOOKS
        now = asyncio.get_running_loop().time()
        self._ends = now + seconds
        self._look_at(now + self._part)

    def cancel(self) -> None:
        """Nothing is given up any more."""
        self._timer.cancel()

    def _look_at(self, due: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(due, self._reached, due)

    def _reached(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.late = self.late or now - due > self._grace
        if due < self._ends and now < self._ends:
            self._look_at(min(now + self._part, self._ends))
        elif self.late:
            self._timer = loop.call_later(self._grace, self._give_up)
        else:
            self._give_up()
