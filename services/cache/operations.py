"""Lookup, Store and Abandon, the same for single calls and for streams.

An operation has two halves. ``start`` checks the request and asks the store; it gives the result,
or a future of it where something has to be waited for. ``finish`` counts the result and writes it
into the response. A store that fails turns into a miss here, or into an answer not stored.
"""

import time
from asyncio import Future
from collections.abc import Callable
from typing import Any

from prometheus_client import Histogram

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import wire
from services.cache.metrics import Counts
from services.cache.policy import Lease
from services.cache.ports import Abandon, Found, Granted, NoEntry, Outcome, Put, Soon, Store
from services.common.errors import BadRequest


class Operations:
    """The operations on one store.

    Attributes:
        counts: what has been done so far.
        draining: set when the process is about to end; then nobody waits any more.
    """

    def __init__(
        self,
        store: Store,
        hash_key: bytes,
        *,
        max_entry_bytes: int,
        max_wait_seconds: float,
        seconds: Histogram,
        counts: Counts,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is the time of day; `seconds` observes how long operations take."""
        self.store = store
        self.counts = counts
        self.draining = False
        self._hash_key = hash_key
        self._max_entry_bytes = max_entry_bytes
        self._max_wait_seconds = max_wait_seconds
        self._now = now
        self._start: dict[str, Callable[..., Soon[Any]]] = {
            "lookup": self._lookup,
            "store": self._put,
            "abandon": self._abandon,
        }
        self._finish: dict[str, Callable[..., None]] = {
            "lookup": self._looked_up,
            "store": self._was_put,
            "abandon": self._abandoned,
        }
        self._observe = {name: seconds.labels(name).observe for name in self._start}

    def start(self, name: str, tenant: str, request: Any, patience: float) -> Soon[Any]:
        """Starts the operation `name`, which waits for at most `patience` seconds.

        Raises:
            BadRequest: a field of the request breaks its rule.
        """
        try:
            return self._start[name](tenant, request, patience)
        except BadRequest:
            self.counts.refused += 1
            raise

    def finish(self, name: str, result: Any, response: Any, seconds: float) -> None:
        """Counts the result, which took so many seconds, and writes it into the response."""
        self._finish[name](result, response)
        self._observe[name](seconds)

    def give_back(self, pending: Future[Any]) -> None:
        """Abandons the lease of a finished operation whose caller is gone, if it got one."""
        if not pending.cancelled() and pending.exception() is None:
            self.give_back_lease(pending.result())

    def give_back_lease(self, result: object) -> None:
        """Abandons the lease in a result that will never reach its caller, if there is one."""
        if isinstance(result, Granted):
            self.store.abandon(result.lease)

    def _lookup(self, tenant: str, request: pb.LookupRequest, patience: float) -> Soon[Outcome]:
        key, wanted, wait_seconds = wire.read_lookup(self._hash_key, tenant, request)
        if not request.lease:
            return self.store.look(key, wanted)
        wait = 0.0 if self.draining else min(wait_seconds, patience, self._max_wait_seconds)
        return self.store.claim(key, wanted, wait)

    def _looked_up(self, outcome: Outcome, response: pb.LookupResponse) -> None:
        if isinstance(outcome, Found):
            result = "shared" if outcome.shared else "hit"
        elif isinstance(outcome, Granted):
            result = "leased"
        else:
            result = "failed" if outcome is NoEntry.FAILED else "absent"
        self.counts.lookups[result] += 1
        wire.write_lookup(outcome, response)

    def _put(self, tenant: str, request: pb.StoreRequest, _: float) -> Soon[Put]:
        where, record, ttl = wire.read_store(self._hash_key, tenant, request, self._now())
        if len(record.answer) > self._max_entry_bytes:
            if isinstance(where, Lease):
                self.store.abandon(where)
            return Put.TOO_LARGE
        if where is None:
            return Put.NOT_HELD
        if isinstance(where, Lease):
            return self.store.put_under(where, record, ttl)
        return self.store.put(where, record, ttl)

    def _was_put(self, put: Put, response: pb.StoreResponse) -> None:
        self.counts.stores[put.name.lower()] += 1
        response.stored = put is Put.STORED

    def _abandon(self, tenant: str, request: pb.AbandonRequest, _: float) -> Soon[Abandon]:
        lease = wire.read_abandon(self._hash_key, tenant, request)
        if lease is None:
            return Abandon.ENDED
        return self.store.abandon(lease, unless_awaited=request.unless_awaited)

    def _abandoned(self, abandon: Abandon, response: pb.AbandonResponse) -> None:
        self.counts.abandons[abandon.name.lower()] += 1
        response.awaited = abandon is Abandon.AWAITED
        response.SetInParent()
