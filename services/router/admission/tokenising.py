"""Prompts become tokens: short ones at once, long ones in threads of which there are few.

A long prompt takes tenths of a second and up to 100 MB for a moment. So how many are tokenised at
once is bounded, for each tenant and in all, and so is what waits for it; tenants take turns. Short
prompts never wait here. State of the process.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from services.common.errors import DeadlineExceeded, Overloaded
from services.router.admission.memory import give_memory_back
from services.router.policy.line import Priority, WaitingLine
from services.router.policy.long_prompts import SHORT_BYTES, Room
from services.router.policy.prompts import Message
from services.router.ports import TierText, TooLong

MEMORY_BYTES = 200_000
"""Prompts from here on leave so much freed memory behind that it is worth giving it back."""

MANY = 1_000_000
"""More prompts than may wait by their bytes: the line itself turns nobody away."""


class Tokenising:
    """Tokenises prompts of tenants."""

    def __init__(self, clock: Callable[[], float], room: Room | None = None) -> None:
        """`clock` gives seconds that only grow."""
        self._clock = clock
        self._room = room if room is not None else Room()
        self._threads = ThreadPoolExecutor(self._room.at_once, thread_name_prefix="tokenising")
        self._line: WaitingLine[asyncio.Future[None]] = WaitingLine(MANY)
        self._running: Counter[str] = Counter()
        self._waiting_bytes: Counter[str] = Counter()

    async def tokens(
        self,
        text: TierText,
        messages: Sequence[Message],
        limit: int,
        *,
        tenant: str,
        priority: Priority,
        until: float,
    ) -> Sequence[int] | TooLong:
        """The conversation in tokens, if it has less than `limit` of them.

        Args:
            text: of the model that gets it.
            messages: the conversation.
            limit: see `TierText.encode_below`.
            tenant: who asks.
            priority: standing among the tenant's own.
            until: when nobody waits for it any more, by the clock.

        Raises:
            BadRequest: the template refuses the conversation.
            Overloaded: too much of the tenant's, or of all tenants', waits already.
            DeadlineExceeded: `until` passed before its turn.
        """
        size = _bytes(messages)
        if size <= SHORT_BYTES:
            return text.encode_below(messages, limit)
        await self._turn(size, tenant, priority, until)
        work = partial(_encode, text, messages, limit, size)
        try:
            running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BaseException:  # the router stops
            self._give_back(tenant)
            raise
        # A thread cannot be stopped: what it does counts as the tenant's until it is done.
        running.add_done_callback(partial(self._done, tenant))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Lets go of the threads; what runs comes to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, size: int, tenant: str, priority: Priority, until: float) -> None:
        """Waits until one more prompt of the tenant may be tokenised; `_give_back` follows once.

        Raises:
            Overloaded, DeadlineExceeded: see `tokens`.
        """
        waiting = self._waiting_bytes
        if not self._room.has_room(waiting.total(), waiting[tenant]):
            raise Overloaded(
                "too many long prompts of this tenant, or of all, wait to be tokenised",
                reason="LONG_PROMPTS",
                retry_after_seconds=1.0,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket, _ = self._line.join(turn, priority, tenant)
        assert ticket is not None  # noqa: S101 -- the line turns nobody away, `Room` does
        waiting[tenant] += size
        self._serve()
        come = False
        try:
            async with asyncio.timeout(until - self._clock()):
                await turn
            come = True
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the prompt was tokenised", reason="QUEUED_TOO_LONG"
            ) from None
        finally:
            self._line.leave(ticket)
            waiting[tenant] -= size
            if not waiting[tenant]:
                del waiting[tenant]
            if not come and turn.done() and not turn.cancelled():
                self._give_back(tenant)  # it came at the very moment we gave up
            turn.cancel()

    def _serve(self) -> None:
        """Lets those go on whose turn it is."""
        most = self._room.at_once_for_one
        while self._running.total() < self._room.at_once:
            ticket = self._line.first(self._running, most)
            if ticket is None:
                return
            self._line.serve(ticket)
            if not ticket.holder.done():  # else it has just given up
                self._running[ticket.tenant] += 1
                ticket.holder.set_result(None)

    def _done(self, tenant: str, running: "asyncio.Future[object]") -> None:
        if not running.cancelled():
            running.exception()  # whoever waited was told, or has gone
        self._give_back(tenant)

    def _give_back(self, tenant: str) -> None:
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        self._serve()


def _encode(
    text: TierText, messages: Sequence[Message], limit: int, size: int
) -> Sequence[int] | TooLong:
    tokens = text.encode_below(messages, limit)
    if size >= MEMORY_BYTES:
        give_memory_back()
    return tokens


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of a conversation; of a text that is surely long, those that it takes in memory."""
    size = 0
    for message in messages:
        content = message.content
        if content.isascii():
            size += len(content)
        elif len(content) <= SHORT_BYTES:
            size += len(content.encode())
        else:
            size += sys.getsizeof(content)
    return size
