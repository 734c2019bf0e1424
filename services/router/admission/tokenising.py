"""Prompts become tokens: short ones at once, long ones in threads of which there are few."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from services.common.memory import give_memory_back
from services.router.admission.long_work import LongWork
from services.router.policy.line import Priority
from services.router.policy.long_prompts import MESSAGE_BYTES, SHORT_BYTES, Room
from services.router.policy.prompts import Message
from services.router.ports import TierText, TooLong

T = TypeVar("T")

MEMORY_BYTES = 200_000
"""Prompts from here on leave so much freed memory behind that it is worth giving it back."""


class Tokenising:
    """Tokenises prompts of tenants; state of the process."""

    def __init__(self, clock: Callable[[], float], room: Room | None = None) -> None:
        """`clock` gives seconds that only grow."""
        self._long = LongWork("tokenising", clock, room if room is not None else Room())

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
            priority: standing among the tenant's own, where it is long.
            until: when nobody waits for it any more, by the clock.

        Raises:
            BadRequest: the template refuses the conversation.
            Overloaded: too many long prompts of the tenant's, or of all tenants', wait already.
            DeadlineExceeded: `until` passed before its turn.
        """
        size = _bytes(messages)
        if size <= SHORT_BYTES:
            return text.encode_below(messages, limit)
        work = partial(text.encode_below, messages, limit)
        return await self._in_thread(work, size, tenant=tenant, priority=priority, until=until)

    async def least_tokens(
        self,
        text: TierText,
        messages: Sequence[Message],
        limit: int,
        *,
        tenant: str,
        priority: Priority,
        until: float,
    ) -> int:
        """How few tokens the conversation can have; 0 where it is short, or may be below `limit`.

        Args and errors are those of `tokens`.
        """
        size = _bytes(messages)
        if size <= max(SHORT_BYTES, limit):
            return 0
        work = partial(text.least_tokens, messages)
        return await self._in_thread(work, size, tenant=tenant, priority=priority, until=until)

    def close(self) -> None:
        """Lets go of the threads; what runs comes to its end."""
        self._long.close()

    async def _in_thread(
        self, work: Callable[[], T], size: int, *, tenant: str, priority: Priority, until: float
    ) -> T:
        run = partial(_run, work, size)
        return await self._long.run(run, size, tenant=tenant, priority=priority, until=until)


def _run(work: Callable[[], T], size: int) -> T:
    result = work()
    if size >= MEMORY_BYTES:
        give_memory_back()
    return result


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of a conversation; of a text that is surely long, those that it takes in memory."""
    size = MESSAGE_BYTES * len(messages)
    for message in messages:
        content = message.content
        if content.isascii():
            size += len(content)
        elif len(content) <= SHORT_BYTES:
            size += len(content.encode())
        else:
            size += sys.getsizeof(content)
    return size
