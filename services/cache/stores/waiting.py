"""Lookups that wait for another's answer: in order, each with its own patience.

No partition may take so many places that none are left for others.

Knows nothing of entries or leases; the stores say when a record came or a lease is free.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from services.cache.policy import Key, Record, may_wait, serves
from services.cache.ports import Clock, Found, Granted, NoEntry, Outcome, Timer


@dataclass(slots=True, eq=False)
class Waiter:
    """One lookup that waits."""

    wanted: frozenset[bytes]
    outcome: asyncio.Future[Outcome]
    patience: Timer = field(init=False)


class WaitingRoom:
    """All lookups of this process that wait, first come first served within a key."""

    def __init__(self, clock: Clock, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._queues: dict[Key, dict[Waiter, None]] = {}  # the inner dicts are ordered sets
        self._count = 0
        self._by_partition: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return self._count

    def is_full(self, key: Key) -> bool:
        """Whether nobody may join any more who waits for this key."""
        return not may_wait(self._by_partition[key.partition], self._count, self._limit)

    def join(self, key: Key, wanted: frozenset[bytes], seconds: float) -> asyncio.Future[Outcome]:
        """Waits for a record by a wanted writer, or for the lease; absent when time is over."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiter = Waiter(wanted, outcome)
        waiter.patience = self._clock.call_later(seconds, self._settle, key, waiter, NoEntry.ABSENT)
        self._queues.setdefault(key, {})[waiter] = None
        self._count += 1
        self._by_partition[key.partition] += 1
        outcome.add_done_callback(partial(self._gone, key, waiter))
        return outcome

    def first(self, key: Key) -> Waiter | None:
        """Who has waited longest and still does."""
        return next((w for w in self._queues.get(key, ()) if not w.outcome.done()), None)

    def serve(self, key: Key, record: Record) -> None:
        """Hands a new record to everybody whom it serves."""
        found = Found(record, shared=True)
        for waiter in list(self._queues.get(key, ())):
            if serves(record, waiter.wanted):
                self._settle(key, waiter, found)

    def grant(self, granted: Granted) -> bool:
        """Hands the lease to who has waited longest; False if nobody waits."""
        waiter = self.first(granted.lease.key)
        if waiter is None:
            return False
        self._settle(granted.lease.key, waiter, granted)
        return True

    def dismiss(self, key: Key, outcome: NoEntry) -> None:
        """Lets everybody who waits for the key go without an answer."""
        for waiter in list(self._queues.get(key, ())):
            self._settle(key, waiter, outcome)

    def dismiss_all(self) -> None:
        """Lets everybody go without an answer."""
        for key in list(self._queues):
            self.dismiss(key, NoEntry.ABSENT)

    def _settle(self, key: Key, waiter: Waiter, outcome: Outcome) -> None:
        self._leave(key, waiter)
        if not waiter.outcome.done():
            waiter.outcome.set_result(outcome)

    def _gone(self, key: Key, waiter: Waiter, _: asyncio.Future[Outcome]) -> None:
        self._leave(key, waiter)

    def _leave(self, key: Key, waiter: Waiter) -> None:
        waiter.patience.cancel()
        queue = self._queues.get(key)
        if queue is None or waiter not in queue:
            return
        del queue[waiter]
        self._count -= 1
        self._by_partition[key.partition] -= 1
        if not self._by_partition[key.partition]:
            del self._by_partition[key.partition]
        if not queue:
            del self._queues[key]
