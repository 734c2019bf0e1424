"""Time limits of what others are asked for, where this process itself may be late.

An answer may have come in time and wait to be read by an event loop that was held up: what this
process is late says nothing of whom it asked.
"""

import asyncio
from collections.abc import Callable

LATE_SHARE = 0.2
"""Of a limit: so late this process may be, and still say of others that they are."""


class Limit:
    """Gives up after a time; a little later where the event loop comes late to it.

    Attributes:
        late: it came late, so that nothing is known of who was asked.
    """

    __slots__ = ("_give_up", "_grace", "_timer", "late")

    def __init__(self, seconds: float, grace: float, give_up: Callable[[], object]) -> None:
        """Calls `give_up` after `seconds`, or `grace` later where it is more than that too late."""
        self._give_up, self._grace, self.late = give_up, grace, False
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        self._timer = loop.call_at(due, self._reached, due)

    def cancel(self) -> None:
        """Nothing is given up any more."""
        self._timer.cancel()

    def _reached(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        self.late = loop.time() - due > self._grace
        if self.late:
            self._timer = loop.call_later(self._grace, self._give_up)
        else:
            self._give_up()
