"""The scaler, as the router sees it: it says what the fleet is, and hears of the load.

While the scaler is away the last known fleet stays in use, marked stale. Each try has a connection
of its own, see `services.common.channel`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import structlog

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.backoff import Backoff
from services.common.calls import is_cancelled
from services.common.channel import AWAY, Connection, Peer, named
from services.router.clients.load_reports import LoadReports
from services.router.fleet.fleet import Fleet
from services.router.fleet.load import LoadWindow
from services.router.fleet.replica import Replica, State
from services.router.metrics import Metrics

log = structlog.get_logger()

SILENCE_SECONDS = 6.0
"""The scaler says something at least every 5 s; after this long it counts as away."""

LATE_SECONDS = 0.5

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

    Raises:
        ConfigError: the peer's files cannot be used at the start; later they count as "away".
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
        peer.check()
        self._peer = peer
        self._fleet = fleet
        self._load_reports = LoadReports(router, fleet.snapshot, load, wall=wall)
        self._metrics = metrics
        self._chance = chance
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()

    async def watch(self) -> None:
        """Follows the fleet. Runs for ever; the caller owns it."""
        failures = 0
        said: set[str] = set()  # of why it is away
        while True:
            try:
                async with self._peer.connected(CONNECT_SECONDS) as scaler:
                    async for message in self._messages(scaler):
                        failures = 0
                        said.clear()
                        replicas = [_replica(replica) for replica in message.replicas]
                        if message.full:
                            self._fleet.replace(replicas)
                            self._fleet.set_stale(stale=False)
                        elif replicas:
                            self._fleet.update(replicas)
            except (*AWAY, _Gap) as error:
                if is_cancelled():
                    raise
                if (why := named(error)) not in said:
                    log.warning("the scaler is away; the fleet is what it last said", error=why)
                    said.add(why)
                self._fleet.set_stale(stale=True)
            failures += 1
            await asyncio.sleep(RECONNECT.seconds(failures, self._chance()))

    async def report(self) -> None:
        """Streams this router's load. Runs for ever; the caller owns it."""
        while not self._left.is_set():
            try:
                async with self._peer.connected(CONNECT_SECONDS) as scaler:
                    stub = scaler_pb2_grpc.ScalerServiceStub(scaler.channel)
                    await stub.ReportLoad(self._reports(), metadata=scaler.metadata)
                    if self._leaving.is_set():
                        self._left.set()
                        break
            except AWAY as error:
                if is_cancelled():
                    raise
                log.debug("load reports broke off", error=named(error))
            await asyncio.sleep(REPORT_SECONDS)
        await asyncio.Event().wait()  # whoever reported again would be back

    async def leave(self, seconds: float) -> None:
        """Says that this router ends, so that nothing waits for it; no longer than so many seconds.

        Nothing may run on it any more.
        """
        self._leaving.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._left.wait()

    async def _messages(self, scaler: Connection) -> AsyncIterator[pb.WatchReplicasResponse]:
        """Messages of one watch, checked for silence and gaps."""
        stub = scaler_pb2_grpc.ScalerServiceStub(scaler.channel)
        call = stub.WatchReplicas(pb.WatchReplicasRequest(), metadata=scaler.metadata)
        revision: int | None = None
        try:
            while True:
                message = await _heard(call)
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
        while not self._leaving.is_set():
            yield self._load_reports.next()
            self._metrics.load_reports.inc()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._leaving.wait()
        yield self._load_reports.next(leaving=True)
        self._metrics.load_reports.inc()


async def _heard(call: Any) -> Any:
    """The next message.

    Raises:
        TimeoutError: it does not come. Where this process was late itself one may wait to be read:
            so it is looked for once more.
    """
    reading = asyncio.ensure_future(call.read())
    try:
        for seconds in (SILENCE_SECONDS, LATE_SECONDS):
            await asyncio.wait([reading], timeout=seconds)
            if reading.done():
                return reading.result()
        raise TimeoutError
    finally:
        reading.cancel()


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
