"""The standard reflection service (grpc.reflection.v1alpha), which needs no key.

Beside grpc's own: what one may ask is bounded. Each answer holds its question again, so a large one
that compresses well would be little to send and much to answer.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

MOST_STREAMS = 64
"""At once, of all callers together: each may hold an answer that nobody reads."""
MOST_REQUESTS = 200
"""Of one stream."""
MOST_REQUEST_BYTES = 1024

NAME: str = reflection.SERVICE_NAME

_Servicer: Any = reflection.aio.ReflectionServicer


class Reflection(_Servicer):  # type: ignore[misc]
    """Tells of the protos of this server's services."""

    _streams = 0

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: Any, unused_context: Any
    ) -> AsyncIterator[Any]:
        """Answers so many requests, one after another."""
        context = unused_context  # as grpc's own names it
        if self._streams >= MOST_STREAMS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask by reflection now"
            )
        self._streams += 1
        try:
            async with aclosing(_bounded(request_iterator, context)) as requests:
                async for answer in super().ServerReflectionInfo(requests, context):
                    yield answer
        finally:
            self._streams -= 1


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
