"""The client: ask a route, streamed or whole, and learn why it was answered the way it was.

Responsible for deadlines, for trying again while nothing was received, for cancelling what nobody
reads any more, and for plain types instead of messages. Leaves routing, caching and money to the
router.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from pennyweight.answers import Answer, Event, Explanation, Finished, Options, RouteList
from pennyweight.channel import metadata_for, open_channel
from pennyweight.errors import (
    InternalError,
    PennyweightError,
    Unavailable,
    error_of,
    error_of_call,
)
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from pennyweight.wire import (
    Prompt,
    answer_of,
    event_of,
    explanation_of,
    request_of,
    routes_of,
)

FIRST_BACKOFF_SECONDS = 0.1


class Client:
    """Calls one router, or a load balancer before several.

    Use it inside a running event loop, as a context manager or with `close`::

        async with Client("localhost:50051") as pw:
            async for event in pw.generate("support-chat", "My card has not arrived"):
                ...

    Args:
        target: host:port or any gRPC target.
        api_key: the caller's key. None: the variable PENNYWEIGHT_API_KEY; without it the
            development key, for targets on this machine only.
        tls_ca: PEM bundle that signed the router's certificate; given, the client speaks TLS.
        tls_certificate: PEM chain to show to a router that asks for one; needs `tls_key`.
        tls_key: PEM key of `tls_certificate`.
        tls: True speaks TLS without any of the files, trusting gRPC's own roots.
        timeout_seconds: deadline of a call that names none.
        max_attempts: how often a call is tried in all while the router is unavailable and nothing
            was received; 1 never tries again.

    Raises:
        Unauthenticated: there is no key, and the target is not on this machine.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls_ca: Path | str | None = None,
        tls_certificate: Path | str | None = None,
        tls_key: Path | str | None = None,
        tls: bool | None = None,
        timeout_seconds: float = 60.0,
        max_attempts: int = 5,
    ) -> None:
        self._metadata = metadata_for(target, api_key)
        self._channel = open_channel(
            target, tls_ca=tls_ca, tls_certificate=tls_certificate, tls_key=tls_key, tls=tls
        )
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels running calls and closes the connection."""
        await self._channel.close()

    async def generate(
        self, route: str, prompt: Prompt, **options: Unpack[Options]
    ) -> AsyncGenerator[Event, None]:
        """Streams one answer: `Started`, then `Delta`s, then `Finished`.

        Breaking out of the loop cancels the call as soon as Python drops the iterator; put it in
        `contextlib.aclosing` where that must be at once.

        Raises:
            PennyweightError: the call failed; text received before stays valid.
            ValueError: an option is not in the contract.
        """
        request = request_of(pb.GenerateRequest, route, prompt, _with_key(options))
        attempts = self._attempts(options)
        while True:
            call = self._stub.Generate(
                request, timeout=attempts.seconds_left(), metadata=self._metadata
            )
            received, event = False, None
            try:
                with _errors_of(call):
                    async for message in call:
                        received, event = True, event_of(message)
                        if event is not None:
                            yield event
            except PennyweightError as error:
                if received:
                    raise
                delay = attempts.next_delay(error)
            else:
                if isinstance(event, Finished):
                    return
                raise InternalError("the answer ended unfinished", grpc.StatusCode.INTERNAL)
            finally:
                call.cancel()
            await asyncio.sleep(delay)

    async def complete(self, route: str, prompt: Prompt, **options: Unpack[Options]) -> Answer:
        """Returns one answer whole.

        Raises:
            PennyweightError: the call failed.
            ValueError: an option is not in the contract.
        """
        request = request_of(pb.CompleteRequest, route, prompt, _with_key(options))
        return answer_of(await self._unary(self._stub.Complete, request, options))

    async def explain(self, route: str, prompt: Prompt, **options: Unpack[Options]) -> Explanation:
        """Says what would be decided now; runs nothing.

        Raises:
            PennyweightError: the call failed.
            ValueError: an option is not in the contract.
        """
        request = request_of(pb.ExplainRequest, route, prompt, options)
        return explanation_of(await self._unary(self._stub.Explain, request, options))

    async def list_routes(self, *, timeout_seconds: float | None = None) -> RouteList:
        """Lists the routes the caller may use, with their ladders.

        Raises:
            PennyweightError: the call failed.
        """
        options: Options = {}
        if timeout_seconds is not None:
            options["timeout_seconds"] = timeout_seconds
        request = pb.ListRoutesRequest()
        return routes_of(await self._unary(self._stub.ListRoutes, request, options))

    async def _unary(self, method: Callable[..., Any], request: Any, options: Options) -> Any:
        attempts = self._attempts(options)
        while True:
            call = method(request, timeout=attempts.seconds_left(), metadata=self._metadata)
            try:
                with _errors_of(call):
                    return await call
            except PennyweightError as error:
                delay = attempts.next_delay(error)
            await asyncio.sleep(delay)

    def _attempts(self, options: Options) -> "_Attempts":
        timeout = options.get("timeout_seconds", self._timeout_seconds)
        return _Attempts(time.monotonic() + timeout, self._max_attempts)


class _Attempts:
    """The tries of one call. State: when it must be over, how many were made."""

    def __init__(self, deadline: float, most: int) -> None:
        self._deadline = deadline
        self._most = most
        self._made = 0

    def seconds_left(self) -> float:
        """Time left for the call, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def next_delay(self, error: PennyweightError) -> float:
        """Seconds to wait before the next try; raises the error where there must be none.

        Doubles with each try and is spread by half, so that callers do not come back together.
        Never less than what the service asks for.
        """
        backoff = FIRST_BACKOFF_SECONDS * 2.0**self._made * random.uniform(0.5, 1.0)  # noqa: S311
        self._made += 1
        delay = max(backoff, error.retry_after_seconds or 0.0)
        final = self._made >= self._most or delay >= self.seconds_left()
        if final or not isinstance(error, Unavailable):
            raise error
        return delay


@contextmanager
def _errors_of(call: Any) -> Iterator[None]:
    """Turns what grpc raises for a call into our errors; the task's own cancellation passes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not call.done() or (task is not None and task.cancelling()):
            raise
        # grpc raises this also when the call alone was cancelled: by the service, or by `close`.
        raise error_of(grpc.StatusCode.CANCELLED, "the call was cancelled") from None


def _with_key(options: Options) -> Options:
    """The options with an idempotency key: retries of one call can then be told from new ones."""
    return {"idempotency_key": uuid.uuid4().hex, **options}
