"""Services that need no key: each connection has a few calls open, with a small message each.

There is no bound for all connections together: whoever opens many would then leave no room for
those who ask whether this server lives. Where very many are open, each connection has fewer: so
all of them hold a bounded memory, as the connections do.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from services.common.errors import BadRequest, ServiceError
from services.common.open_calls import OpenCalls
from services.common.reading import Reading, next_message, single_message

MOST_MESSAGE_BYTES = 4096
"""Of a single message; the largest that gRPC takes is for callers with a key."""

READ_AT_ONCE = 8
"""Single messages that are read at once for one connection."""

MESSAGE_SECONDS = 2.0
"""How long such a message may wait for its turn and be on its way. Its size shows only once
it is there: until then it may grow to what gRPC takes of any message."""

STREAM_SECONDS = 5.0
"""How long the next message of a stream may take: whoever asks more asks at once."""

CALL_SECONDS = 10.0
"""How long an answer may wait to be taken: that of such a call, or each of a stream."""

CROWD = 2048
MOST_IN_CROWD = 2
"""Once so many calls of the services are open, each connection may have so few."""


class Keyless:
    """Stands before a server while such services are added, and wraps their handlers.

    Args:
        server: gRPC's.
        most: calls of the services that one connection may have open.
    """

    def __init__(self, server: grpc.aio.Server, most: int) -> None:
        self._server = server
        self._calls = OpenCalls(None, most, crowd=CROWD, most_in_crowd=MOST_IN_CROWD)
        self._reading = Reading(None, READ_AT_ONCE)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Adds a service's methods, called by the generated code with the methods by name."""
        bounded = {name: self._wrap(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, bounded)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The generated code's other way to add the same methods, which therefore adds nothing."""

    async def _message(self, peer: str, context: Any) -> bytes:
        """The bytes of a call's one message; see `single_message`."""
        async with self._reading.turn(peer, MESSAGE_SECONDS) as left:
            return await single_message(context, left)

    def _wrap(self, handler: Any) -> Any:
        inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream

        async def entered(context: Any) -> Any:
            """What the servicer takes: the message, or the stream of them."""
            try:
                peer = context.peer()
                self._calls.enter(peer, context)
                if handler.request_streaming:
                    return several(context)
                return handler.request_deserializer(_small(await self._message(peer, context)))
            except (DecodeError, ServiceError) as error:
                await context.abort_with_status(_told(error).status())

        async def several(context: Any) -> AsyncIterator[Any]:
            """The messages of a stream; it ends where the next one does not come soon."""
            try:
                while (data := await next_message(context, STREAM_SECONDS)) is not None:
                    yield handler.request_deserializer(_small(data))
            except (DecodeError, ServiceError) as error:
                await context.abort_with_status(_told(error).status())

        async def stream(_: Any, context: Any) -> None:
            # Written here, not by gRPC: so a write that is given up ends what the servicer began.
            request = await entered(context)
            async with _told_errors(context), aclosing(inner(request, context)) as responses:
                async for response in responses:
                    timer = _cancelled_later()
                    try:
                        await context.write(response)
                    finally:
                        timer.cancel()

        async def coroutine(_: Any, context: Any) -> Any:
            # gRPC sends the answer in the same task, and waits until the caller takes it.
            timer = _cancelled_later()
            context.add_done_callback(lambda _: timer.cancel())
            request = await entered(context)
            async with _told_errors(context):
                return await inner(request, context)

        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(
            stream if inspect.isasyncgenfunction(inner) else coroutine,
            None,
            handler.response_serializer,
        )


@asynccontextmanager
async def _told_errors(context: Any) -> AsyncIterator[None]:
    """Tells the caller what a servicer raises of our errors."""
    try:
        yield
    except ServiceError as error:
        await context.abort_with_status(error.status())


def _cancelled_later() -> asyncio.TimerHandle:
    """Cancels the task that runs, unless that is called off within `CALL_SECONDS`."""
    task: Any = asyncio.current_task()
    return asyncio.get_running_loop().call_later(CALL_SECONDS, task.cancel)


def _small(data: bytes) -> bytes:
    if len(data) > MOST_MESSAGE_BYTES:
        raise BadRequest(f"the message is longer than {MOST_MESSAGE_BYTES} bytes")
    return data


def _told(error: DecodeError | ServiceError) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    return BadRequest(f"the message cannot be read: {error}", reason="MALFORMED")
