"""The standard health service (grpc.health.v1).

Beside grpc's own: whoever watches hears that the server ends and is then let go, so that watchers
never hold up a drain.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Response = health_pb2.HealthCheckResponse

MOST_WATCHES = 256
"""At once, of all callers. For one more, the connection that has most lets its oldest go."""


@dataclass(eq=False)
class _Watch:
    connection: str
    over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Health(health_pb2_grpc.HealthServicer):
    """Which services of this server serve; the empty name stands for all."""

    def __init__(self) -> None:
        self._status: dict[str, int] = {}
        self._ended = False
        self._watches: list[_Watch] = []  # the oldest first

    def set(self, names: Iterable[str], *, serving: bool) -> None:
        """These serve from now on, or do not."""
        status = _Response.SERVING if serving else _Response.NOT_SERVING
        self._status.update(dict.fromkeys(names, status))
        self._wake()

    def ends(self) -> None:
        """None serves any more, and none will."""
        self._ended = True
        self.set(self._status, serving=False)

    def _wake(self) -> None:
        for watch in self._watches:
            watch.changed.set()

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """How it stands with a service now."""
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return _Response(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """How it stands with a service, now and at each change."""
        watch = _Watch(context.peer())
        self._watches.append(watch)
        if len(self._watches) > MOST_WATCHES:
            self._let_one_go()
        try:
            async with aclosing(self._changes(request, watch)) as changes:
                async for response in changes:
                    yield response
        finally:
            if not watch.over:
                self._watches.remove(watch)
        if watch.over:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many watch; watch again")

    def _let_one_go(self) -> None:
        most, _ = Counter(watch.connection for watch in self._watches).most_common(1)[0]
        watch = next(watch for watch in self._watches if watch.connection == most)
        watch.over = True
        self._watches.remove(watch)
        watch.changed.set()

    async def _changes(
        self, request: health_pb2.HealthCheckRequest, watch: _Watch
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
        sent: int | None = None
        while True:
            watch.changed.clear()
            ended = self._ended
            status = self._status.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != sent:
                yield _Response(status=status)
                sent = status
            if ended or watch.over:
                return
            await watch.changed.wait()
