"""Lookup, Store and Abandon, the same for single calls and for streams.

An operation is a row of three: `read` checks the request, `run` asks the store and gives the
result, or a future of it where something has to be waited for, and `write` counts the result and
puts it into the response. A store that fails turns into a miss here, or into an answer not stored.
"""

import time
from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import Histogram

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import wire
from services.cache.metrics import Counts
from services.cache.policy import Lease
from services.cache.ports import Abandon, Found, Granted, NoEntry, Outcome, Put, Soon, Store
from services.common.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operation does with its request and its result.

    Attributes:
        name: in the protos.
        read: what the tenant's request asks for; raises `BadRequest`.
        run: asks the store for that, waiting for so many seconds at most.
        write: counts a result and puts it into the response.
        observe: takes how many seconds it took.
    """

    name: str
    read: Callable[[str, Any], Any]
    run: Callable[[Any, float], Soon[Any]]
    write: Callable[[Any, Any], None]
    observe: Callable[[float], None]

    def part(self, message: Any) -> Any:
        """Its request in an operation of a stream, and its response in a result."""
        return getattr(message, self.name)


class Operations:
    """The operations on one store.

    Attributes:
        named: each operation by its name in the protos.
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
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` gives seconds since 1970; `seconds` observes how long operations take."""
        self.store = store
        self.counts = counts
        self.draining = False
        self._max_entry_bytes = max_entry_bytes
        self._max_wait_seconds = max_wait_seconds
        self.named: Mapping[str, Operation] = {
            row.name: row
            for row in (
                Operation(
                    "lookup",
                    partial(wire.read_lookup, hash_key),
                    self._look,
                    self._write_lookup,
                    seconds.labels("lookup").observe,
                ),
                Operation(
                    "store",
                    partial(wire.read_store, hash_key, wall),
                    self._put,
                    self._write_store,
                    seconds.labels("store").observe,
                ),
                Operation(
                    "abandon",
                    partial(wire.read_abandon, hash_key),
                    self._abandon,
                    self._write_abandon,
                    seconds.labels("abandon").observe,
                ),
            )
        }

    def start(self, operation: Operation, tenant: str, request: Any, patience: float) -> Soon[Any]:
        """Starts an operation, which waits for at most `patience` seconds.

        Raises:
            BadRequest: a field of the request breaks its rule.
        """
        try:
            asked = operation.read(tenant, request)
        except BadRequest:
            self.counts.refused += 1
            raise
        return operation.run(asked, patience)

    def finish(self, operation: Operation, result: Any, response: Any, seconds: float) -> None:
        """Counts the result, which took so many seconds, and writes it into the response."""
        operation.write(result, response)
        operation.observe(seconds)

    def give_back(self, pending: Future[Any]) -> None:
        """Abandons the lease of a finished operation whose caller is gone, if it got one."""
        if not pending.cancelled() and pending.exception() is None:
            self.give_back_lease(pending.result())

    def give_back_lease(self, result: object) -> None:
        """Abandons the lease in a result that will never reach its caller, if there is one."""
        if isinstance(result, Granted):
            self.store.abandon(result.lease)

    def _look(self, asked: wire.Lookup, patience: float) -> Soon[Outcome]:
        if not asked.lease:
            return self.store.look(asked.key, asked.wanted)
        wait = 0.0 if self.draining else min(asked.wait_seconds, patience, self._max_wait_seconds)
        return self.store.claim(asked.key, asked.wanted, wait)

    def _write_lookup(self, outcome: Outcome, response: pb.LookupResponse) -> None:
        if isinstance(outcome, Found):
            result = "shared" if outcome.shared else "hit"
        elif isinstance(outcome, Granted):
            result = "leased"
        else:
            result = "failed" if outcome is NoEntry.FAILED else "absent"
        self.counts.lookups[result] += 1
        wire.write_lookup(outcome, response)

    def _put(self, asked: wire.Storing, _: float) -> Soon[Put]:
        where = asked.where
        if len(asked.record.answer) > self._max_entry_bytes:
            if isinstance(where, Lease):
                self.store.abandon(where)
            return Put.TOO_LARGE
        if where is None:
            return Put.NOT_HELD
        if isinstance(where, Lease):
            return self.store.put_under(where, asked.record, asked.ttl_seconds)
        return self.store.put(where, asked.record, asked.ttl_seconds)

    def _write_store(self, put: Put, response: pb.StoreResponse) -> None:
        self.counts.stores[put.name.lower()] += 1
        response.stored = put is Put.STORED

    def _abandon(self, asked: wire.GivingBack, _: float) -> Soon[Abandon]:
        if asked.lease is None:
            return Abandon.ENDED
        return self.store.abandon(asked.lease, unless_awaited=asked.unless_awaited)

    def _write_abandon(self, abandon: Abandon, response: pb.AbandonResponse) -> None:
        self.counts.abandons[abandon.name.lower()] += 1
        response.awaited = abandon is Abandon.AWAITED
        response.SetInParent()
