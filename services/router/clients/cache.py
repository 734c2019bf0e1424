"""The cache service, spoken to over one long-lived stream.

All operations of this router share a stream; those that pile up while a message is being written
travel in the next one together, tenants in turns. Nothing here raises: a cache that is away is a
miss, and counted.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import structlog

from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1 import cache_pb2_grpc
from services.common.backoff import Backoff
from services.common.calls import is_cancelled
from services.common.channel import AWAY, Peer, named
from services.common.durations import set_seconds
from services.common.lateness import LATE_SHARE, Limit
from services.common.outbox import Outbox
from services.common.telemetry import Tracing
from services.router.clients.cache_messages import read_answer, write_answer, write_request
from services.router.clients.leases import Leases
from services.router.clients.under_way import UnderWay
from services.router.metrics import Metrics
from services.router.policy.routes import Tier
from services.router.ports import Asked, CacheHit, CacheMiss, Written

log = structlog.get_logger()

MAX_PENDING = 10_000
"""Operations without an answer; beyond it, or the part that one tenant has of it, the cache counts
as away."""

MAX_ON_THEIR_WAY = 16
"""Operations of one tenant that are written and not begun. What is written keeps its order, and so
do its answers, so the rest of a crowd waits here, where tenants take turns. The cache begins what
it reads in order: once it has answered a probe, whatever was written before and has no answer waits
there for what others do, and holds up nobody."""

MAX_IN_MESSAGE = 64
MAX_MESSAGE_BYTES = 1024 * 1024
"""A longer operation travels alone. The cache takes several MiB, and breaks off at more."""

CONNECT_SECONDS = 1.5
"""How long a try may take to connect: an address where nobody is any more may swallow it."""

RECONNECT = Backoff(0.1, 1.0)


class CacheStream:
    """The `AnswerCache` behind ``CacheService.Exchange``."""

    def __init__(
        self,
        peer: Peer,
        *,
        timeout_seconds: float,
        metrics: Metrics,
        tracing: Tracing,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Connects to nothing yet.

        Args:
            peer: the cache.
            timeout_seconds: longest that an operation may take, waits for others' answers apart.
            metrics: where operations that failed are counted.
            tracing: whose spans the cache's are part of.
            clock: seconds that only grow.
            chance: draws from [0, 1), spreads reconnects.

        Raises:
            ConfigError: the peer's files cannot be used at the start; later they count as "away".
        """
        peer.check()
        self._peer = peer
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock
        self._chance = chance
        self._pending: dict[int, asyncio.Future[pb.OperationResult]] = {}
        self._forsaken: dict[int, tuple[str, str]] = {}
        self._unanswered: dict[int, str] = {}  # by tenant
        self._asking, self._posted = UnderWay(MAX_PENDING), UnderWay(MAX_PENDING)
        self._leaving, self._unwritten = UnderWay(MAX_PENDING), UnderWay(MAX_PENDING)
        self._leases = Leases()
        self._lost = 0
        self._all_answered = asyncio.Event()
        self._outbox: Outbox[pb.Operation] = Outbox(
            pb.Operation.ByteSize, lambda operation: operation.tenant, MAX_ON_THEIR_WAY
        )
        self._on_their_way: dict[int, str] = {}  # by tenant, in the order of writing
        self._asked_for = 0  # the probe on its way that tells what was begun; 0: none
        self._next_id = 0
        self._connected = False
        self._heard = 0.0

    async def run(self) -> None:
        """Keeps the stream up. Runs for ever; the caller owns it."""
        failures = 0
        said: set[str] = set()  # of why it is away
        while True:
            try:
                async with self._peer.connected(CONNECT_SECONDS) as cache:
                    stub = cache_pb2_grpc.CacheServiceStub(cache.channel)
                    await self._exchange(stub.Exchange(metadata=cache.metadata))
                why = "the cache ended the stream"
            except AWAY as error:
                if is_cancelled():
                    raise
                why = named(error)
            finally:
                if self._connected:  # it was there
                    failures = 0
                    said.clear()
                self._disconnect()
            if why not in said:
                log.warning("cache stream broke", error=why)
                said.add(why)
            failures += 1
            await asyncio.sleep(RECONNECT.seconds(failures, self._chance()))

    async def lookup(
        self,
        tenant: str,
        route: str,
        asked: Asked,
        accepted: Sequence[Tier],
        *,
        lease: bool,
        max_wait_seconds: float,
    ) -> CacheHit | CacheMiss:
        """See `AnswerCache.lookup`."""
        operation = self._operation(tenant, max_wait_seconds + self._timeout)
        request = operation.lookup
        request.route = route
        write_request(request.request, asked)
        for tier in accepted:
            request.accepted_writers.add(tier=tier.name, model=tier.model, precision=tier.precision)
        request.lease = lease
        if max_wait_seconds > 0:
            set_seconds(request.max_wait, max_wait_seconds)
        result = await self._ask(operation, max_wait_seconds + self._timeout)
        if result is None:
            return CacheMiss(available=False)
        if result.lookup.HasField("hit"):
            hit = result.lookup.hit
            return CacheHit(read_answer(hit.answer), hit.shared)
        return CacheMiss(result.lookup.miss.lease)

    def store(
        self,
        tenant: str,
        route: str,
        asked: Asked,
        answer: Written,
        *,
        lease: str,
        ttl_seconds: float,
    ) -> None:
        """See `AnswerCache.store`."""
        operation = self._operation(tenant, self._timeout)
        request = operation.store
        request.route = route
        self._owe_if_away(tenant, route, lease)
        if self._leases.end(lease):
            request.lease = lease
        else:  # there was none, or the cache took it back with its stream: the answer is as good
            write_request(request.request, asked)
        write_answer(request.answer, answer)
        set_seconds(request.ttl, ttl_seconds)
        self._post(operation)

    def abandon(self, tenant: str, route: str, lease: str) -> None:
        """See `AnswerCache.abandon`."""
        self._owe_if_away(tenant, route, lease)
        self._leases.end(lease)
        operation = self._operation(tenant, self._timeout)
        operation.abandon.route = route
        operation.abandon.lease = lease
        self._post(operation)

    def _owe_if_away(self, tenant: str, route: str, lease: str) -> None:
        if not self._connected:
            self._leases.owe(lease, tenant, route)

    async def abandon_unless_awaited(self, tenant: str, route: str, lease: str) -> bool:
        """See `AnswerCache.abandon_unless_awaited`."""
        operation = self._operation(tenant, self._timeout)
        operation.abandon.route = route
        operation.abandon.lease = lease
        operation.abandon.unless_awaited = True
        result = await self._ask(operation, self._timeout)
        awaited = result is not None and result.abandon.awaited
        if not awaited:
            self._owe_if_away(tenant, route, lease)
            self._leases.end(lease)
        return awaited

    async def flush(self, timeout_seconds: float) -> bool:
        """Waits until the cache has taken what was stored and given back so far.

        Returns:
            whether it has; False where it was silent for so long, or went away in between.
        """
        lost = self._lost
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._unanswered:
                    self._all_answered.clear()
                    await self._all_answered.wait()
        return not self._unanswered and self._lost == lost

    def _operation(self, tenant: str, timeout_seconds: float) -> pb.Operation:
        self._next_id += 1
        operation = pb.Operation(id=self._next_id, tenant=tenant)
        set_seconds(operation.timeout, timeout_seconds)
        if self._tracing.enabled:
            operation.traceparent = self._tracing.traceparent()
        return operation

    def _probe(self) -> pb.Operation:
        """An operation that is answered at once, and whose answer nobody needs."""
        probe = self._operation("probe", self._timeout)
        probe.abandon.route = probe.abandon.lease = "probe"
        return probe

    def _send(self, operation: pb.Operation) -> bool:
        if not self._connected or not self._unwritten.has_room(operation.tenant):
            self._metrics.cache_unavailable.inc()
            return False
        self._put(operation)
        return True

    def _put(self, operation: pb.Operation) -> None:
        self._unwritten.begun(operation.tenant)
        self._outbox.put(operation)
        self._ask_what_is_begun()

    def _ask_what_is_begun(self) -> None:
        """Has a probe follow what is on its way, where anything waits for that."""
        if self._outbox.rests and not self._asked_for:
            probe = self._probe()
            self._asked_for = probe.id
            self._put(probe)

    def _post(self, operation: pb.Operation) -> None:
        """Sends what nobody awaits the result of; `flush` waits for all of them."""
        if not self._posted.has_room(operation.tenant):
            self._metrics.cache_unavailable.inc()
        elif self._send(operation):
            self._posted.begun(operation.tenant)
            self._unanswered[operation.id] = operation.tenant

    def _note_answer(self, number: int) -> None:
        """Notes the result of what nobody awaits."""
        if (tenant := self._unanswered.pop(number, None)) is not None:
            self._posted.over(tenant)
        if not self._unanswered:
            self._all_answered.set()

    async def _ask(self, operation: pb.Operation, seconds: float) -> pb.OperationResult | None:
        """The result, or None when the cache is away, failed or too slow."""
        if not self._asking.has_room(operation.tenant):
            self._metrics.cache_unavailable.inc()
            return None
        if not self._send(operation):
            return None
        self._asking.begun(operation.tenant)
        future: asyncio.Future[pb.OperationResult] = asyncio.get_running_loop().create_future()
        self._pending[operation.id] = future
        limit = Limit(seconds, self._timeout * LATE_SHARE, future.cancel)
        try:
            result = await future
        except asyncio.CancelledError:
            self._forsake(operation, future)
            if is_cancelled():
                raise
            self._metrics.cache_unavailable.inc()
            return None
        finally:
            limit.cancel()
            self._pending.pop(operation.id, None)
            self._asking.over(operation.tenant)
        if result.code != 0:
            self._metrics.cache_unavailable.inc()
            log.warning("cache refused an operation", code=result.code, error=result.error)
            return None
        return result

    def _forsake(self, operation: pb.Operation, future: "asyncio.Future[Any]") -> None:
        """Nobody waits for the result any more; a lease in it must not go with who has gone."""
        if not operation.lookup.lease:
            return
        whose = operation.tenant, operation.lookup.route
        if future.done() and not future.cancelled():
            self._give_back(whose, future.result())
        elif self._connected and self._leaving.has_room(operation.tenant):
            self._leaving.begun(operation.tenant)
            self._forsaken[operation.id] = whose

    def _give_back(self, whose: tuple[str, str], result: pb.OperationResult) -> None:
        if result.lookup.miss.lease:
            self.abandon(*whose, result.lookup.miss.lease)

    async def _exchange(self, call: Any) -> None:
        """Writes and reads until the stream ends or the cache no longer answers.

        It counts as there once it has answered: a connection comes up to a cache that hangs too.
        """
        self._put(self._probe())
        works = (self._read(call), self._write(call), self._watch())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    async def _watch(self) -> None:
        """Ends when the cache hangs.

        A lookup may rightly wait long, so a silent cache is asked for what it answers at once.
        """
        while True:
            await self._rest()
            asked_at = self._clock()
            silent = asked_at - self._heard >= self._timeout
            if not silent or not (self._pending or self._unanswered):
                continue
            self._send(self._probe())
            await self._rest()
            if self._heard < asked_at:
                log.warning("the cache hangs; going on without it")
                return

    async def _rest(self) -> None:
        """Sleeps; as long again where this process was late itself, and so heard nothing."""
        late = self._timeout
        while late > self._timeout * LATE_SHARE:
            began = self._clock()
            await asyncio.sleep(self._timeout)
            late = self._clock() - began - self._timeout

    async def _read(self, call: Any) -> None:
        while True:
            message = await call.read()
            self._heard = self._clock()
            if message is grpc.aio.EOF:
                return
            if not self._connected:
                self._connected = True
                for owed in self._leases.take_owed():
                    self.abandon(*owed)
            for result in message.results:
                self._begun(result.id)
                future = self._pending.get(result.id)
                if future is not None and not future.done():
                    if lease := result.lookup.miss.lease:
                        self._leases.granted(lease)
                    future.set_result(result)
                elif (whose := self._forsaken.pop(result.id, None)) is not None:
                    self._leaving.over(whose[0])
                    self._give_back(whose, result)
                else:
                    self._note_answer(result.id)

    def _begun(self, number: int) -> None:
        """An operation is answered; the next ones of its tenant go."""
        if number != self._asked_for:
            if (tenant := self._on_their_way.pop(number, None)) is not None:
                self._outbox.over(tenant)
            return
        self._asked_for = earlier = 0
        while earlier != number:
            earlier, tenant = next(iter(self._on_their_way.items()))
            del self._on_their_way[earlier]
            self._outbox.over(tenant)

    async def _write(self, call: Any) -> None:
        while True:
            operations = await self._outbox.take(MAX_IN_MESSAGE, MAX_MESSAGE_BYTES)
            for operation in operations:
                self._unwritten.over(operation.tenant)
                self._on_their_way[operation.id] = operation.tenant
            self._ask_what_is_begun()
            try:
                await call.write(pb.ExchangeRequest(operations=operations))
            except asyncio.InvalidStateError:
                return  # the stream has just ended; the reader knows why

    def _disconnect(self) -> None:
        self._connected = False
        self._outbox.clear()
        self._on_their_way.clear()
        self._asked_for = 0
        self._forsaken.clear()
        for under_way in (self._posted, self._leaving, self._unwritten):
            under_way.clear()  # what is asked for ends by itself
        self._leases.break_off()
        self._lost += len(self._unanswered)
        self._unanswered.clear()
        self._all_answered.set()
        for future in self._pending.values():
            future.cancel()
