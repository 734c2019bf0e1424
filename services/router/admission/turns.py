"""Turns at something of which there is little, taken by tenants one after another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.common.errors import DeadlineExceeded, Overloaded
from services.router.policy.line import Priority, WaitingLine


class Turns:
    """Who has one, and who waits; state of the process.

    What one tenant asks for waits behind its own: the next turn is that of the tenant that has
    least, and no tenant has more than its part, even where nobody else asks, as another may come.
    """

    def __init__(
        self,
        at_once: int,
        at_once_for_one: int,
        *,
        clock: Callable[[], float],
        waiting: int,
        waiting_for_one: int,
        what: str,
        reason: str,
    ) -> None:
        """Nobody has a turn yet.

        Args:
            at_once: turns there are.
            at_once_for_one: of them for one tenant.
            clock: seconds that only grow.
            waiting: most that wait for a turn.
            waiting_for_one: of them for one tenant.
            what: is waited for, in the plural, for whoever is refused.
            reason: of such a refusal.
        """
        self._at_once = at_once
        self._at_once_for_one = at_once_for_one
        self._clock = clock
        self._line: WaitingLine[asyncio.Future[None]] = WaitingLine(waiting, waiting_for_one)
        self._what = what
        self._reason = reason
        self._taken: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, tenant: str, priority: Priority, until: float) -> AsyncIterator[None]:
        """A block that begins with the tenant's turn and gives it back.

        Raises:
            Overloaded, DeadlineExceeded: as `take` does.
        """
        await self.take(tenant, priority, until)
        try:
            yield
        finally:
            self.give_back(tenant)

    async def take(self, tenant: str, priority: Priority, until: float) -> None:
        """Waits for a turn; `give_back` follows once.

        Args:
            tenant: whose it is.
            priority: standing among the tenant's own.
            until: when nobody waits for it any more, by the clock.

        Raises:
            Overloaded: too many of the tenant's, or of all tenants', wait already.
            DeadlineExceeded: `until` passed before.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket, evicted = self._line.join(turn, priority, tenant)
        if evicted is not None and not evicted.holder.done():
            evicted.holder.set_exception(self._refused())
        if ticket is None:
            raise self._refused()
        self._serve()
        come = False
        try:
            async with asyncio.timeout(until - self._clock()):
                await turn
            come = True
        except TimeoutError:
            raise DeadlineExceeded(
                f"too many {self._what} wait; the time was over before it was their turn",
                reason="QUEUED_TOO_LONG",
            ) from None
        finally:
            self._line.leave(ticket)
            if not come and turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(tenant)  # it came at the very moment we gave up
            turn.cancel()

    def give_back(self, tenant: str) -> None:
        """A turn is over."""
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        self._serve()

    def _serve(self) -> None:
        """Lets those go on whose turn it is."""
        while self._taken.total() < self._at_once:
            ticket = self._line.first(self._taken, self._at_once_for_one)
            if ticket is None:
                return
            self._line.serve(ticket)
            if not ticket.holder.done():  # else it has just given up
                self._taken[ticket.tenant] += 1
                ticket.holder.set_result(None)

    def _refused(self) -> Overloaded:
        return Overloaded(
            f"too many {self._what} of this tenant, or of all, wait already",
            reason=self._reason,
            retry_after_seconds=1.0,
        )
