"""One Exchange stream: many operations in flight, answered in any order.

What is known at once is answered where it is read, without a task; what must be waited for is a
pending future. Results gather in a response until the stream takes it, so the busier the stream,
the more results share a message. Nothing is read while too much is unanswered: that is how the
caller feels it.
"""

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from time import perf_counter
from typing import Any

import structlog
from google.rpc import code_pb2

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache.operations import Operation, Operations
from services.cache.ports import Found, Granted
from services.common.durations import seconds_of
from services.common.errors import BadRequest, ServiceError, Violation
from services.common.telemetry import Tracing

log = structlog.get_logger()

DEFAULT_PATIENCE_SECONDS = 5.0
RESPONSE_BYTES = 1024 * 1024
"""A response of this size takes no more results; far below the 4 MiB that callers receive."""
RESULT_OVERHEAD_BYTES = 128
MAX_RESPONSES = 4
"""Responses that may pile up before reading stops."""


class _Outgoing:
    """A response that still gathers results, and the leases in it."""

    def __init__(self) -> None:
        self.response = pb.ExchangeResponse()
        self.bytes = 0
        self.leases: list[Granted] = []


class Stream:
    """The state of one stream."""

    def __init__(self, operations: Operations, tracing: Tracing, max_unanswered: int) -> None:
        """At most `max_unanswered` operations are read and not answered at any time."""
        self._operations = operations
        self._tracing = tracing
        self._max_unanswered = max_unanswered
        self._pending: dict[int, Future[Any]] = {}
        self._outgoing: deque[_Outgoing] = deque()
        self._unsent = 0
        self._results = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
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
        """The caller is gone: nobody waits any more, and leases nobody heard of are given back."""
        if self._closed:
            return
        self._closed = True
        self.end()
        for pending in list(self._pending.values()):
            pending.cancel()
        for outgoing in self._outgoing:
            for granted in outgoing.leases:
                self._operations.give_back_lease(granted)
        self._outgoing.clear()

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
        if isinstance(result, Future):
            self._pending[number] = result
            result.add_done_callback(partial(self._done, number, what, started))
        else:
            self._answer(number, what, result, started)

    def _start(self, what: Operation, operation: pb.Operation) -> Any:
        patience = DEFAULT_PATIENCE_SECONDS
        if operation.HasField("timeout"):
            patience = seconds_of(operation.timeout)
        if 2 * len(self._pending) > self._max_unanswered:
            patience = 0.0  # those who wait must leave room for the answers they wait for
        request = what.part(operation)
        if not self._tracing.enabled:
            return self._operations.start(what, operation.tenant, request, patience)
        with self._tracing.span(f"cache.{what.name}", operation.traceparent):
            return self._operations.start(what, operation.tenant, request, patience)

    def _done(self, number: int, what: Operation, started: float, pending: Future[Any]) -> None:
        if self._closed:
            self._operations.give_back(pending)
            return
        del self._pending[number]
        self._room.set()
        if pending.cancelled():
            self._refuse(number, asyncio.CancelledError())
        elif (error := pending.exception()) is not None:
            self._refuse(number, error)
        else:
            self._answer(number, what, pending.result(), started)

    def _answer(self, number: int, what: Operation, result: Any, started: float) -> None:
        size = len(result.record.answer) if isinstance(result, Found) else 0
        outgoing = self._gathering(size)
        if isinstance(result, Granted):
            outgoing.leases.append(result)
        into = outgoing.response.results.add(id=number)
        self._operations.finish(what, result, what.part(into), perf_counter() - started)

    def _refuse(self, number: int, error: BaseException) -> None:
        into = self._gathering(0).response.results.add(id=number)
        if isinstance(error, ServiceError):
            into.code = getattr(code_pb2, error.code.name)
            into.error = error.message
        else:
            log.error("unexpected error", method="Exchange", exc_info=error)
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
