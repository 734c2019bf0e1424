"""Callers who do not read what is written to them.

What the replica makes for such a caller waits here, so that the place on the replica is free once
the engine is done; but neither for ever nor in any amount: then the call is ended. Writes are
looked over from time to time, so that an ordinary one costs no timer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.router.metrics import Metrics
from services.router.policy.unread import Unread, Why, overdue
from services.router.request.context import RequestState

log = structlog.get_logger()

LOOK_SECONDS = 0.25
"""How often is looked; a write that takes less is nothing to look at."""

GIVE_WAY_SECONDS = 1.0
"""How long a caller may take nothing while others may wait for the same answer."""

BYTES_A_TOKEN = 192
"""What a token takes that has come from a replica and was not read: its number in a message."""


@dataclass(slots=True, eq=False)
class Reader:
    """A caller who takes an answer in pieces.

    Attributes:
        state: of its request.
        end: ends its call, as `given_up` then says.
        since: when the write that is under way began, by the router's clock; None between writes.
        given_up: why its call was ended, as it did not read; None while it is not.
    """

    state: RequestState
    end: Callable[[], None]
    since: float | None = None
    given_up: Why | None = None

    @property
    def held_bytes(self) -> int:
        """What is kept of the answer that was not written to it yet, about."""
        if not self.state.attempts:  # a stored answer is here as a whole
            return self.state.answer.output_tokens * BYTES_A_TOKEN
        attempt = self.state.attempts[-1]
        return max(0, attempt.output_tokens - attempt.answer.output_tokens) * BYTES_A_TOKEN


@dataclass(frozen=True)
class SlowReaders:
    """Watches over all callers who are written to; state of the process.

    Attributes:
        most_seconds: how long a caller may take nothing of what waits for it.
        most_bytes: kept for callers who do not read, all together.
        clock: seconds that only grow.
        readers: those who are written to.
    """

    metrics: Metrics
    most_seconds: float
    most_bytes: int
    clock: Callable[[], float]
    readers: set[Reader] = field(default_factory=set)

    async def run(self) -> None:
        """Looks again and again. Runs for ever; the caller owns it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Frees the places of answers that are made but not read, and ends calls that are overdue.

        Nor does anybody go on waiting for such an answer who asks the same.

        Called from the event loop: between reading and ending nothing else runs.
        """
        now = self.clock()
        slow: list[Reader] = []
        found: list[Unread] = []
        for reader in self.readers:
            seconds = 0.0 if reader.since is None else now - reader.since
            if seconds >= LOOK_SECONDS and reader.given_up is None:
                for attempt in reader.state.attempts:
                    attempt.place.release()
                if seconds >= GIVE_WAY_SECONDS:
                    reader.state.give_way()
                slow.append(reader)
                tenant = reader.state.context.tenant
                found.append(Unread(seconds, reader.held_bytes, tenant))
        ended = overdue(found, most_seconds=self.most_seconds, most_bytes=self.most_bytes)
        for number, why in ended.items():
            reader = slow[number]
            log.warning(
                "a caller does not read",
                request_id=reader.state.context.request_id,
                tenant=found[number].tenant,
                why=why.name.lower(),
                seconds=round(found[number].seconds, 1),
                held_bytes=found[number].held_bytes,
            )
            self.metrics.unread.inc()
            reader.given_up = why
            reader.end()
