"""Work that long requests, new forms and checks of answers make, in threads of which there are few.

A long prompt takes tenths of a second and up to 150 MB for a moment. So how much runs at once is
bounded, for each tenant and in all, and so is what waits for it; tenants take turns.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from services.common.calls import note_end
from services.common.errors import Overloaded
from services.router.admission.turns import Turns
from services.router.policy.line import Priority
from services.router.policy.long_prompts import Room

T = TypeVar("T")

MANY = 1_000_000
"""More than may wait by their bytes: the line itself turns nobody away."""


@dataclass(frozen=True)
class Kind:
    """What work is made by, in the words of a refusal.

    Attributes:
        many: several of it.
        reason: that too many wait.
        least_bytes: for which one counts at least while it waits.
    """

    many: str
    reason: str
    least_bytes: int = 0


LONG_PROMPT = Kind("long prompts", "LONG_PROMPTS")
NEW_FORM = Kind("new forms of answers", "NEW_FORMS", least_bytes=64 << 10)
"""However short, it may take as long as a long prompt."""
ANSWER = Kind("checks of answers", "ANSWER_CHECKS", least_bytes=8 << 10)


class LongWork:
    """Runs it, one kind of it; state of the process."""

    def __init__(self, name: str, clock: Callable[[], float], room: Room) -> None:
        """`name` is of its threads; `clock` gives seconds that only grow."""
        self._room = room
        self._threads = ThreadPoolExecutor(room.at_once, thread_name_prefix=name)
        self._turns = Turns(
            room.at_once,
            room.at_once_for_one,
            clock=clock,
            waiting=MANY,
            waiting_for_one=MANY,
            what="long texts, new forms and checks of answers",
            reason=LONG_PROMPT.reason,
        )
        self._waiting_bytes: Counter[str] = Counter()

    async def run(
        self,
        work: Callable[[], T],
        size: int,
        *,
        tenant: str,
        priority: Priority,
        until: float,
        kind: Kind = LONG_PROMPT,
    ) -> T:
        """Runs work in a thread, once it is its turn.

        Args:
            work: to be done.
            size: bytes that it holds while it waits.
            tenant: whose it is.
            priority: standing among the tenant's own.
            until: when nobody waits for it any more, by the clock.
            kind: what makes it.

        Raises:
            Overloaded: too much of the tenant's, or of all tenants', waits already.
            DeadlineExceeded: `until` passed before its turn.
            Exception: what the work raises.
        """
        await self._turn(max(size, kind.least_bytes), tenant, priority, until, kind)
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BaseException:  # the router stops
            self._turns.give_back(tenant)
            raise
        # A thread cannot be stopped: what it does counts as the tenant's until it is done.
        running.add_done_callback(partial(self._done, tenant))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Lets go of the threads; what runs comes to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(
        self, size: int, tenant: str, priority: Priority, until: float, kind: Kind
    ) -> None:
        """Waits until one more of the tenant may run; `give_back` of the turns follows once.

        Raises:
            Overloaded, DeadlineExceeded: see `run`.
        """
        waiting = self._waiting_bytes
        if not self._room.has_room(waiting.total(), waiting[tenant]):
            raise Overloaded(
                f"too many {kind.many} of this tenant, or of all, wait already",
                reason=kind.reason,
                retry_after_seconds=1.0,
            )
        waiting[tenant] += size
        try:
            await self._turns.take(tenant, priority, until)
        finally:
            waiting[tenant] -= size
            if not waiting[tenant]:
                del waiting[tenant]

    def _done(self, tenant: str, running: "asyncio.Future[object]") -> None:
        note_end(running)  # whoever waited was told, or has gone
        self._turns.give_back(tenant)
