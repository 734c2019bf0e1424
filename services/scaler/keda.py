"""KEDA's ExternalScaler: says how many replicas a pool shall have, and KEDA has them made.

The decision is the scaler's; KEDA is its actuator. The one metric of a trigger is the number of
replicas with a target of 1 for each, so that what KEDA's HPA computes is that number.

`GetMetricSpec` always succeeds: KEDA reads no metric, counts no failure and never falls back where
it fails (KEDA issue 8056). What is not known fails in `GetMetrics` and `IsActive`, which it counts.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from externalscaler import externalscaler_pb2 as pb
from externalscaler import externalscaler_pb2_grpc
from services.common.errors import BadRequest, Overloaded, Unavailable
from services.scaler.ports import Wish, Wishes

log = structlog.get_logger()

POOL = "pool"
"""Key of a trigger's metadata."""
PREFIX = "pennyweight-"
REPLICA = 1
"""Value of the metric for each replica."""
MOST_STREAMS = 512
"""At once, of all callers. For one more, the connection that has most lets its oldest go."""
MOST_CALLS = 256
"""Calls that one connection may have open: KEDA has two streams for each ScaledObject on one."""
AGAIN_SECONDS = 20.0
"""What is active is said again at the latest after this: KEDA may have missed it while it began."""


@dataclass(eq=False)
class _Stream:
    connection: str
    over: asyncio.Event = field(default_factory=asyncio.Event)


class ExternalScaler(externalscaler_pb2_grpc.ExternalScalerServicer):
    """externalscaler.ExternalScaler."""

    def __init__(self, wishes: Wishes, *, failed: Callable[[], None] = lambda: None) -> None:
        """`failed` hears of each question that had no answer."""
        self._wishes = wishes
        self._failed = failed
        self._streams: list[_Stream] = []  # the oldest first
        self._closing = False

    def close(self) -> None:
        """Ends the streams, which KEDA would keep open for ever."""
        self._closing = True
        for stream in self._streams:
            stream.over.set()

    async def IsActive(self, request: pb.ScaledObjectRef, _context: Any) -> pb.IsActiveResponse:
        """Whether any replica shall serve."""
        return pb.IsActiveResponse(result=self._wish(request).active)

    async def StreamIsActive(
        self, request: pb.ScaledObjectRef, context: Any
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """The same at once, with each change and from time to time; silent while not known."""
        with self._stream(context.peer()) as stream:
            said: bool | None = None
            while not stream.over.is_set():
                wish = self._known(request)
                if wish is not None and (wish.active is not said or said):
                    said = wish.active
                    yield pb.IsActiveResponse(result=said)
                while not stream.over.is_set():
                    again = await self._changed(stream, AGAIN_SECONDS)
                    wish = self._known(request)
                    if not again or (wish is not None and wish.active is not said):
                        break

    async def GetMetricSpec(
        self, request: pb.ScaledObjectRef, _context: Any
    ) -> pb.GetMetricSpecResponse:
        """The metric and its target; also without any data."""
        return _specs(request)

    async def GetMetrics(
        self, request: pb.GetMetricsRequest, _context: Any
    ) -> pb.GetMetricsResponse:
        """Replicas that shall be there."""
        size = self._wish(request.scaledObjectRef).size * REPLICA
        value = pb.MetricValue(
            metricName=request.metricName or _metric(request.scaledObjectRef),
            metricValue=size,
            metricValueFloat=size,
        )
        return pb.GetMetricsResponse(metricValues=[value])

    async def StreamMetricSpec(
        self, request: pb.ScaledObjectRef, context: Any
    ) -> AsyncIterator[pb.GetMetricSpecResponse]:
        """The same as `GetMetricSpec`, at once. It never changes, so nothing follows."""
        with self._stream(context.peer()) as stream:
            yield _specs(request)
            await stream.over.wait()

    def _wish(self, request: pb.ScaledObjectRef) -> Wish:
        """What is wanted of the pool.

        Raises:
            BadRequest: there is no such pool.
            Unavailable: it is not known now.
        """
        pool = _pool(request)
        try:
            wish = self._wishes.wish(pool)
        except KeyError:
            self._failed()
            raise BadRequest(
                f"metadata {POOL}: must be a pool of the scaling file, got {pool!r}",
                reason="NO_SUCH_POOL",
            ) from None
        if wish is None:
            self._failed()
            raise Unavailable(
                f"it is not known now what pool {pool} needs",
                reason="SIZE_NOT_KNOWN",
                retry_after_seconds=1.0,
            )
        return wish

    def _known(self, request: pb.ScaledObjectRef) -> Wish | None:
        try:
            return self._wishes.wish(_pool(request))
        except KeyError:  # it may come
            return None

    @contextmanager
    def _stream(self, connection: str) -> Iterator[_Stream]:
        """One of so many streams.

        Raises:
            Overloaded: it made room for another.
        """
        stream = _Stream(connection)
        self._streams.append(stream)
        if self._closing:
            stream.over.set()
        if len(self._streams) > MOST_STREAMS:
            self._let_one_go()
        try:
            yield stream
        finally:
            let_go = stream not in self._streams
            if not let_go:
                self._streams.remove(stream)
        if let_go:
            raise Overloaded(
                f"{MOST_STREAMS} streams are enough; this one made room for another",
                reason="TOO_MANY_STREAMS",
                retry_after_seconds=5.0,
            )

    def _let_one_go(self) -> None:
        most, _ = Counter(stream.connection for stream in self._streams).most_common(1)[0]
        stream = next(stream for stream in self._streams if stream.connection == most)
        self._streams.remove(stream)
        stream.over.set()

    async def _changed(self, stream: _Stream, seconds: float) -> bool:
        """Waits for a change; False: there was none in time, or the stream is over."""
        waits = [
            asyncio.ensure_future(self._wishes.changed()),
            asyncio.ensure_future(stream.over.wait()),
        ]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return waits[0] in done
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _pool(request: pb.ScaledObjectRef) -> str:
    return request.scalerMetadata.get(POOL) or request.name


def _metric(request: pb.ScaledObjectRef) -> str:
    return PREFIX + _pool(request)


def _specs(request: pb.ScaledObjectRef) -> pb.GetMetricSpecResponse:
    spec = pb.MetricSpec(metricName=_metric(request), targetSize=REPLICA, targetSizeFloat=REPLICA)
    return pb.GetMetricSpecResponse(metricSpecs=[spec])
