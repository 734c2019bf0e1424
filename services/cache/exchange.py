"""One Exchange stream: many operations in flight, answered in any order.

What is known at once is answered where it is read, without a task; what must be waited for is a
pending future. Results gather in a response until the stream takes it, so the busier the stream,
the more results share a message. Nothing is read while too much is unanswered: that is how the
caller feels it.
"""

import asyncio
from asyncio import Future
from collections import Counter, deque
from collections.abc import AsyncIterator
from functools import partial
from time import perf_counter
from typing import Any

import structlog
from google.rpc import code_pb2

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache.operations import Operation, Operations
from services.cache.policy import may_wait
from services.cache.ports import Abandon, Found, Granted, Put
from services.common.durations import seconds_of
from services.common.errors import BadRequest, ServiceError, Violation
from services.common.faults import fault
from services.common.telemetry import Tracing

log = structlog.get_logger()

DEFAULT_PATIENCE_SECONDS = 5.0
RESPONSE_BYTES = 1024 * 1024
"""A response of this size takes no more results; far below the 4 MiB that callers receive."""
RESULT_OVERHEAD_BYTES = 128
KEPT_FREE = 8
"""Of so many unanswered operations of a stream one is never a lookup that waits."""

MAX_RESPONSES = 4
"""Responses that may pile up before reading stops."""


class _Outgoing:
    """A response that still gathers results."""

    def __init__(self) -> None:
        self.response = pb.ExchangeResponse()
        self.bytes = 0


class _Leases:
    """What a stream's caller holds, as far as this stream knows, by what the caller shows."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Granted, float]] = {}

    def add(self, text: str, granted: Granted, now: float) -> None:
        """Notes a lease, and forgets those that have ended by themselves: all last equally long."""
        while self._held:
            first, (_, ends_at) = next(iter(self._held.items()))
            if ends_at > now:
                break
            del self._held[first]
        self._held[text] = granted, now + granted.seconds

    def ended(self, text: str) -> None:
        """Its holder has used it or given it back."""
        self._held.pop(text, None)

    def take_all(self) -> list[Granted]:
        """All that are held; none is afterwards."""
        held, self._held = self._held, {}
        return [granted for granted, _ in held.values()]


class Stream:
    """The state of one stream."""

    def __init__(self, operations: Operations, tracing: Tracing, max_unanswered: int) -> None:
        """At most `max_unanswered` operations are read and not answered at any time."""
        self._operations = operations
        self._tracing = tracing
        self._max_unanswered = max_unanswered
        self._places = max_unanswered - max_unanswered // KEPT_FREE
        self._pending: dict[int, Future[Any]] = {}
        self._waiting: Counter[str] = Counter()  # of those, by tenant
        self._outgoing: deque[_Outgoing] = deque()
        self._unsent = 0
        self._results = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._leases = _Leases()
        self._ending = False
        self._closed = False

    async def responses(self, requests: AsyncIterator[pb.ExchangeRequest]) -> AsyncIterator[Any]:
        """Answers the operations of the requests until they end."""
        self._reader = asyncio.create_task(self._read(requests))
        self._reader.add_done_callback(lambda _: self._results.set())
        if self._ending:
            self._reader.cancel()
        while True:
            await self._results.wait()
            self._results.clear()
            while self._outgoing:
                outgoing = self._outgoing.popleft()
                self._unsent -= len(outgoing.response.results)
                self._room.set()
                yield outgoing.response
            if self._reader.done() and not self._pending:
                break
        if not self._reader.cancelled():
            self._reader.result()

    def end(self) -> None:
        """Reads no more; what was read is answered, then the stream ends."""
        self._ending = True
        if self._reader is not None:
            self._reader.cancel()

    def close(self) -> None:
        """The stream is over: nobody waits any more.

        Unless we have ended it, its caller has gone: the leases that it was granted, some of which
        it never heard of, are given back, and whoever waits for their answers goes on. gRPC does
        not tell a caller that broke off from one that ended its part.
        """
        if self._closed:
            return
        self._closed = True
        has_gone = not self._ending
        self.end()
        for pending in list(self._pending.values()):
            pending.cancel()
        self._outgoing.clear()
        if has_gone:
            for granted in self._leases.take_all():
                self._operations.give_back_lease(granted)

    async def _read(self, requests: AsyncIterator[pb.ExchangeRequest]) -> None:
        async for request in requests:
            for operation in request.operations:
                while self._crowded:
                    self._room.clear()
                    await self._room.wait()
                self._begin(operation)

    @property
    def _crowded(self) -> bool:
        unanswered = len(self._pending) + self._unsent
        return unanswered >= self._max_unanswered or len(self._outgoing) > MAX_RESPONSES

    def _may_wait(self, tenant: str) -> bool:
        """Whether a lookup of the tenant may; those who do leave room for what they wait for."""
        everybody = len(self._pending)
        if everybody >= self._max_unanswered - 1:
            return False
        return may_wait(self._waiting[tenant], everybody, self._places)

    def _begin(self, operation: pb.Operation) -> None:
        started = perf_counter()
        number, name = operation.id, operation.WhichOneof("operation")
        what = self._operations.named.get(name or "")
        if what is None:
            self._refuse(number, BadRequest.of(Violation("operation", "is required")))
            return
        if number in self._pending:
            wrong = Violation("id", "belongs to an unanswered operation")
            self._refuse(number, BadRequest.of(wrong))
            return
        try:
            result = self._start(what, operation)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
            self._refuse(number, error)
            return
        shown = _lease_shown(operation, name)
        if isinstance(result, Future):
            self._pending[number] = result
            self._waiting[operation.tenant] += 1
            done = partial(self._done, number, what, shown, started, tenant=operation.tenant)
            result.add_done_callback(done)
        else:
            self._answer(number, what, shown, result, started)

    def _start(self, what: Operation, operation: pb.Operation) -> Any:
        patience = DEFAULT_PATIENCE_SECONDS
        if operation.HasField("timeout"):
            patience = seconds_of(operation.timeout)
        if not self._may_wait(operation.tenant):
            patience = 0.0
        request = what.part(operation)
        if not self._tracing.enabled:
            return self._operations.start(what, operation.tenant, request, patience)
        with self._tracing.span(f"cache.{what.name}", operation.traceparent):
            return self._operations.start(what, operation.tenant, request, patience)

    def _done(
        self,
        number: int,
        what: Operation,
        shown: str,
        started: float,
        pending: Future[Any],
        *,
        tenant: str,
    ) -> None:
        if self._closed:
            self._operations.give_back(pending)
            return
        del self._pending[number]
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        self._room.set()
        if pending.cancelled():
            self._refuse(number, asyncio.CancelledError())
        elif (error := pending.exception()) is not None:
            self._refuse(number, error)
        else:
            self._answer(number, what, shown, pending.result(), started)

    def _answer(
        self, number: int, what: Operation, shown: str, result: Any, started: float
    ) -> None:
        size = len(result.record.answer) if isinstance(result, Found) else 0
        into = self._gathering(size).response.results.add(id=number)
        now = perf_counter()
        self._operations.finish(what, result, what.part(into), now - started)
        if isinstance(result, Granted):
            self._leases.add(into.lookup.miss.lease, result, now)
        elif shown and result not in (Abandon.AWAITED, Abandon.FAILED, Put.FAILED):
            self._leases.ended(shown)

    def _refuse(self, number: int, error: BaseException) -> None:
        into = self._gathering(0).response.results.add(id=number)
        if isinstance(error, ServiceError):
            into.code = getattr(code_pb2, error.code.name)
            into.error = error.message
        else:
            log.error("unexpected error", method="Exchange", fault=fault(error))
            into.code = code_pb2.INTERNAL
            into.error = "internal error; the log of this service has the details"

    def _gathering(self, size: int) -> _Outgoing:
        """The response that takes one more result of this size."""
        if not self._outgoing or self._outgoing[-1].bytes > RESPONSE_BYTES:
            self._outgoing.append(_Outgoing())
            self._results.set()
        outgoing = self._outgoing[-1]
        outgoing.bytes += size + RESULT_OVERHEAD_BYTES
        self._unsent += 1
        return outgoing


def _lease_shown(operation: pb.Operation, name: str | None) -> str:
    """The lease that an operation would end; empty, none."""
    if name == "store":
        return operation.store.lease
    return operation.abandon.lease if name == "abandon" else ""
