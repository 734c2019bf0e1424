"""The standard reflection service (grpc.reflection.v1alpha), which needs no key.

Beside grpc's own: what one may ask is bounded. Each answer holds its question again, so a large one
that compresses well would be little to send and much to answer.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

MOST_STREAMS = 64
"""At once, of all callers together: each may hold an answer that nobody reads. For one more, the
connection that has most lets its oldest go."""
MOST_REQUESTS = 200
"""Of one stream."""
MOST_REQUEST_BYTES = 1024

NAME: str = reflection.SERVICE_NAME

_Servicer: Any = reflection.aio.ReflectionServicer


@dataclass(eq=False)
class _Look:
    """One stream.

    Attributes:
        connection: whose it is.
        context: gRPC's, of the call.
        task: that serves it.
        answers: an answer is being sent, and nothing read.
    """

    connection: str
    context: Any
    task: "asyncio.Task[Any]"
    answers: bool = False

    def end(self) -> "asyncio.Task[None] | None":
        """Ends it from outside; returns what sees to it, if anything has to."""
        if self.answers:  # which waits for the caller, and so would any word
            self.task.cancel()
            return None
        # A read is not cancelled: gRPC would still write where it has left off.
        return asyncio.create_task(self._refuse())

    async def _refuse(self) -> None:
        with suppress(grpc.aio.AbortError, grpc.aio.InternalError, grpc.aio.UsageError):
            await self.context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask by reflection now"
            )


class Reflection(_Servicer):  # type: ignore[misc]
    """Tells of the protos of this server's services."""

    def __init__(self, names: Any) -> None:
        """`names` of the services."""
        super().__init__(names)
        self._looks: list[_Look] = []  # the oldest first
        self._ending: set[asyncio.Task[None]] = set()

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: Any, unused_context: Any
    ) -> AsyncIterator[Any]:
        """Answers so many requests, one after another."""
        context = unused_context  # as grpc's own names it
        task: Any = asyncio.current_task()
        look = _Look(context.peer(), context, task)
        self._looks.append(look)
        if len(self._looks) > MOST_STREAMS:
            self._let_one_go()
        try:
            async with aclosing(_bounded(request_iterator, context)) as requests:
                async for answer in super().ServerReflectionInfo(requests, context):
                    look.answers = True
                    yield answer
                    look.answers = False
        finally:
            if look in self._looks:
                self._looks.remove(look)

    def _let_one_go(self) -> None:
        """Its place is free at once, however long its end takes to be sent."""
        most, _ = Counter(look.connection for look in self._looks).most_common(1)[0]
        look = next(look for look in self._looks if look.connection == most)
        self._looks.remove(look)
        if (ending := look.end()) is not None:
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


async def _bounded(requests: Any, context: Any) -> AsyncGenerator[Any]:
    asked = 0
    async for request in requests:
        asked += 1
        if asked > MOST_REQUESTS or request.ByteSize() > MOST_REQUEST_BYTES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"at most {MOST_REQUESTS} requests of {MOST_REQUEST_BYTES} bytes are answered",
            )
        yield request
