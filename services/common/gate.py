"""Where every call comes in: who calls is found out, and errors become statuses.

Leaves to the servicers: what a call means. They read `current_identity()` and raise
`ServiceError`s; they hold no ``try`` ladders.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from services.common.credentials import Identity, set_current_identity
from services.common.errors import BadRequest, InternalError, ServiceError, Unavailable
from services.common.faults import fault
from services.common.open_calls import OpenCalls
from services.common.parts import shape_of
from services.common.reading import READ_SECONDS, Reading, single_message
from services.common.telemetry import Tracing

log = structlog.get_logger()

MOST_CALLS = 32_768
MOST_CALLS_OF_ONE = 8_192
"""Calls that are open at once, of callers with a key, and of one tenant."""

Handler = Any
"""A grpc.RpcMethodHandler; the class takes type parameters only in the type stubs."""


class Keys(Protocol):
    """The keys that are accepted now."""

    def identify(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Identity:
        """See `Keyring.identify`."""


class Gate:
    """Lets known callers in and turns errors into statuses, for every method alike.

    Stands before a server while servicers are added and wraps their handlers once: an interceptor
    would cost every call anew.

    Attributes:
        services: full names of the gRPC services that were added.
        closed: no call is let in any more.
    """

    def __init__(
        self, server: grpc.aio.Server, keys: Keys, tracing: Tracing, max_message_bytes: int
    ) -> None:
        self._server = server
        self._keys = keys
        self._tracing = tracing
        self._running = 0
        self._emptied = asyncio.Event()
        self._calls = OpenCalls(MOST_CALLS, MOST_CALLS_OF_ONE)
        self._reading = Reading.of_bytes(max_message_bytes)
        self.services: list[str] = []
        self.closed = False

    async def emptied(self) -> None:
        """Waits until no call runs: gRPC cancels calls without waiting for what they do last."""
        while self._running:
            self._emptied.clear()
            await self._emptied.wait()

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Adds a service's methods, called by the generated code with the methods by name."""
        gated = {
            name: self._wrap(handler, f"/{service}/{name}") for name, handler in handlers.items()
        }
        self.services.append(service)
        self._server.add_registered_method_handlers(service, gated)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The generated code's other way to add the same methods, which therefore adds nothing."""

    def _wrap(self, handler: Handler, method: str) -> Handler:
        inner: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )

        deserialize = _tolerant(handler.request_deserializer)
        shape = shape_of(handler.request_deserializer)

        async def received(requests: Any, context: Any, caller: str) -> Any:
            """What the servicer takes: the message, or the stream of them."""
            if handler.request_streaming:
                return _readable(requests)
            async with self._reading.turn(caller, READ_SECONDS) as left:
                data = await single_message(context, left)
                return _whole(await self._reading.parsed(caller, deserialize, data, shape))

        async def generator(requests: Any, context: Any) -> AsyncIterator[Any]:
            self._running += 1
            try:
                caller, parent = self._enter(context)
                with self._tracing.span(method, parent):
                    responses = inner(await received(requests, context, caller), context)
                    async with aclosing(responses):
                        async for response in responses:
                            yield response
            except Exception as error:  # noqa: BLE001 -- whatever it is, the caller gets a status
                await self._abort(error, context, method)
            finally:
                self._left()

        async def coroutine(requests: Any, context: Any) -> Any:
            self._running += 1
            try:
                caller, parent = self._enter(context)
                with self._tracing.span(method, parent):
                    # In no variable: an end that nobody reads would keep the request.
                    return await inner(await received(requests, context, caller), context)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the caller gets a status
                await self._abort(error, context, method)
            finally:
                self._left()

        # To gRPC each takes a stream: of a single message it would read the whole, and parse it,
        # before it asks us who calls.
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(
            generator if inspect.isasyncgenfunction(inner) else coroutine,
            deserialize if handler.request_streaming else None,
            handler.response_serializer,
        )

    def _left(self) -> None:
        self._running -= 1
        if not self._running:
            self._emptied.set()

    def _enter(self, context: Any) -> tuple[str, str]:
        """Lets a caller in. Returns its tenant, and the trace that its call belongs to."""
        if self.closed:
            raise Unavailable("this server is stopping; try another", reason="STOPPING")
        metadata = context.invocation_metadata()
        identity = self._keys.identify(metadata)
        self._calls.enter(identity.tenant, context)
        set_current_identity(identity)
        if not self._tracing.enabled:
            return identity.tenant, ""
        return identity.tenant, next((str(v) for k, v in metadata or () if k == "traceparent"), "")

    async def _abort(self, error: Exception, context: Any, method: str) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, ServiceError):
            log.error("unexpected error", method=method, fault=fault(error))
            _forget(error)
            error = InternalError("internal error; the log of this service has the details")
        _forget(error)
        try:
            await context.abort_with_status(error.status())
        except grpc.aio.InternalError:
            log.debug("nobody took the status", method=method, status=error.code.name)


def _forget(error: Exception) -> None:
    """Lets go of the frames that an error came through.

    gRPC keeps what it is ended with in a circle, and with it the request, until garbage is
    collected, or for as long as nobody reads the end.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


@dataclass(frozen=True)
class _Malformed:
    """Stands for a message that cannot be read, such as one with invalid UTF-8."""

    why: str

    def error(self) -> BadRequest:
        """The error for who sent it."""
        return BadRequest(f"the message cannot be read: {self.why}", reason="MALFORMED")


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserialiser whose failure the caller sees as INVALID_ARGUMENT, not as INTERNAL."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return read


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """A stream of requests that ends with the caller's error at one that cannot be read."""
    async for request in requests:
        yield _whole(request)


def _whole(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise request.error()
    return request
