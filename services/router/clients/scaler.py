"""The scaler, as the router sees it: it says what the fleet is, and hears of the load.

While the scaler is away the last known fleet stays in use, marked stale. Each try has a channel of
its own, so that the scaler's name is looked up anew: one that was replaced has another address, and
a channel asks for it again after 30 s at the earliest, or after minutes where there was none.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import structlog

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.backoff import Backoff
from services.common.channel import Peer
from services.router.clients.load_reports import LoadReports
from services.router.fleet.fleet import Fleet
from services.router.fleet.group import Replica, State
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics

log = structlog.get_logger()

Stub: TypeAlias = "scaler_pb2_grpc.ScalerServiceAsyncStub"

SILENCE_SECONDS = 6.0
"""The scaler says something at least every 5 s; after this long it counts as away."""

CONNECT_SECONDS = 1.5
"""How long a try may take to connect: an address where nobody is any more may swallow it."""

REPORT_SECONDS = 1.0
RECONNECT = Backoff(0.1, 0.5)

STATES = {
    pb.REPLICA_STATE_STARTING: State.STARTING,
    pb.REPLICA_STATE_READY: State.READY,
    pb.REPLICA_STATE_DRAINING: State.DRAINING,
    pb.REPLICA_STATE_GONE: State.GONE,
}


class ScalerLink:
    """Keeps the fleet current and reports the load of the router of this name.

    `wall` gives seconds since 1970; `chance` draws from [0, 1) and spreads reconnects.
    """

    def __init__(
        self,
        peer: Peer,
        fleet: Fleet,
        load: LoadWindow,
        metrics: Metrics,
        *,
        router: str,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._peer = peer
        self._shown = peer.metadata()
        self._fleet = fleet
        self._load_reports = LoadReports(router, fleet.snapshot, load, wall=wall)
        self._metrics = metrics
        self._chance = chance

    async def watch(self) -> None:
        """Follows the fleet. Runs for ever; the caller owns it."""
        failures = 0
        while True:
            try:
                async with self._reached() as stub:
                    async for message in self._messages(stub):
                        failures = 0
                        replicas = [_replica(replica) for replica in message.replicas]
                        if message.full:
                            self._fleet.replace(replicas)
                            self._fleet.set_stale(stale=False)
                        elif replicas:
                            self._fleet.update(replicas)
            except (grpc.aio.AioRpcError, TimeoutError, OSError, _Gap) as error:
                if not self._fleet.stale:
                    log.warning("scaler is away; using the last known fleet", error=_named(error))
                self._fleet.set_stale(stale=True)
            failures += 1
            await asyncio.sleep(RECONNECT.seconds(failures, self._chance()))

    async def report(self) -> None:
        """Streams this router's load. Runs for ever; the caller owns it."""
        while True:
            try:
                async with self._reached() as stub:
                    await stub.ReportLoad(self._reports(), metadata=self._shown)
            except (grpc.aio.AioRpcError, TimeoutError, OSError) as error:
                log.debug("load reports broke off", error=_named(error))
            await asyncio.sleep(REPORT_SECONDS)

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[Stub]:
        """A channel of its own that is connected.

        Raises:
            TimeoutError: nobody answers.
            OSError: a file of ours that it needs cannot be read.
        """
        async with self._peer.open() as channel:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.channel_ready()
            yield scaler_pb2_grpc.ScalerServiceStub(channel)

    async def _messages(self, stub: Stub) -> AsyncIterator[pb.WatchReplicasResponse]:
        """Messages of one watch, checked for silence and gaps."""
        call = stub.WatchReplicas(pb.WatchReplicasRequest(), metadata=self._shown)
        revision: int | None = None
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await call.read()
                if not isinstance(message, pb.WatchReplicasResponse):
                    raise _Gap("the scaler ended the watch")
                expected = message.revision if revision is None or message.full else revision
                if message.replicas and not message.full and revision is not None:
                    expected = revision + 1
                if message.revision != expected:
                    raise _Gap(f"revision {message.revision} came instead of {expected}")
                revision = message.revision
                yield message
        finally:
            call.cancel()

    async def _reports(self) -> AsyncIterator[pb.ReportLoadRequest]:
        while True:
            yield self._load_reports.next()
            self._metrics.load_reports.inc()
            await asyncio.sleep(REPORT_SECONDS)


class _Gap(Exception):
    """The watch lost a message or ended."""


def _replica(message: pb.Replica) -> Replica:
    return Replica(
        id=message.id,
        pool=message.pool,
        tier=message.tier,
        model=message.model,
        precision=message.precision,
        address=message.address,
        state=STATES.get(message.state, State.GONE),
        max_in_flight=max(1, message.max_in_flight),
    )


def _named(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else str(error) or "silent"
