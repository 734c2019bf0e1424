"""The client: ask a route, learn why it was answered as it was, tell outcomes, halt levers.

Responsible for deadlines, for trying again while nothing was received, for cancelling what nobody
reads any more, and for plain types instead of messages. Leaves routing, caching and money to the
router.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack

import grpc

from pennyweight.answers import (
    Answer,
    Event,
    Explanation,
    Finished,
    Lever,
    LeverList,
    RouteList,
)
from pennyweight.attempts import Attempts, RetryBudget, away_of, errors_of
from pennyweight.channel import metadata_for, open_channel
from pennyweight.errors import InternalError, PennyweightError
from pennyweight.questions import Options, Prompt
from pennyweight.request import lever_change_of, outcome_of, request_of
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from pennyweight.wire import (
    answer_of,
    event_of,
    explanation_of,
    lever_of,
    levers_of,
    routes_of,
)


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
            was received; 1 never tries again. None: as often as fits into the call's deadline.

    Raises:
        Unauthenticated: there is no key, and the target is not on this machine; or the key is none
            that can be sent.
        ValueError: the target names no port, or a certificate comes without its key.
        OSError: a TLS file cannot be read.
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
        max_attempts: int | None = None,
    ) -> None:
        self._metadata = metadata_for(target, api_key)
        self._channel = open_channel(
            target, tls_ca=tls_ca, tls_certificate=tls_certificate, tls_key=tls_key, tls=tls
        )
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts
        self._budget = RetryBudget()
        self._closed = False

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
        self._closed = True
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
        attempts = self._attempts(options.get("timeout_seconds"))
        while True:
            call = self._stub.Generate(
                request, timeout=attempts.seconds_left(), metadata=self._metadata
            )
            received, event = False, None
            try:
                async with errors_of(call):
                    async for message in call:
                        received, event = True, event_of(message)
                        if event is not None:
                            yield event
            except PennyweightError as error:
                if received:
                    raise
                delay = self._next_delay(attempts, error)
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
        timeout = options.get("timeout_seconds")
        request = request_of(pb.CompleteRequest, route, prompt, _with_key(options))
        return answer_of(await self._unary(self._stub.Complete, request, timeout))

    async def explain(self, route: str, prompt: Prompt, **options: Unpack[Options]) -> Explanation:
        """Says what would be decided now; runs nothing.

        Raises:
            PennyweightError: the call failed.
            ValueError: an option is not in the contract.
        """
        timeout = options.get("timeout_seconds")
        request = request_of(pb.ExplainRequest, route, prompt, options)
        return explanation_of(await self._unary(self._stub.Explain, request, timeout))

    async def list_routes(self, *, timeout_seconds: float | None = None) -> RouteList:
        """Lists the routes the caller may use, with their ladders.

        Raises:
            PennyweightError: the call failed.
        """
        request = pb.ListRoutesRequest()
        return routes_of(await self._unary(self._stub.ListRoutes, request, timeout_seconds))

    async def record_outcome(
        self,
        route: str,
        handle: str,
        *,
        resolved: bool | None = None,
        rating: float | None = None,
        corrected_answer: str | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """Says what became of an answer. Saying the same again changes nothing.

        Args:
            route: that answered.
            handle: that `Started` and `Finished` carried.
            resolved: whether the answer did what it was asked for.
            rating: what a person thought of it, from -1 (bad) to 1 (good).
            corrected_answer: the answer it should have been. Only a keyed digest of it is kept.
            timeout_seconds: time for the whole call. None: the client's.

        Returns:
            the id of the request it was recorded for, as in the ledger.

        Raises:
            NotFound: the handle was not given to this caller's tenant for this route, or too long
                ago.
            AlreadyExists: another outcome was recorded before.
            PennyweightError: the call failed.
        """
        request = outcome_of(
            route, handle, resolved=resolved, rating=rating, corrected_answer=corrected_answer
        )
        response = await self._unary(self._stub.RecordOutcome, request, timeout_seconds)
        return str(response.request_id)

    async def levers(self, route: str = "", *, timeout_seconds: float | None = None) -> LeverList:
        """Lists the levers of a route, or of all that the caller may use.

        Raises:
            NotFound: there is no such route.
            PennyweightError: the call failed.
        """
        request = pb.ListLeversRequest(route=route)
        return levers_of(await self._unary(self._stub.ListLevers, request, timeout_seconds))

    async def set_lever(
        self,
        route: str,
        lever: str,
        state: Literal["on", "halted"],
        *,
        author: str,
        reason: str,
        expires_after_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> Lever:
        """Halts or releases a lever, for all routers at once. For operators.

        Args:
            route: whose lever.
            lever: its name, as `levers` lists it.
            state: ``halted`` to halt it, ``on`` to release it.
            author: who asks for it.
            reason: why.
            expires_after_seconds: how long a halt lasts. None: until it is released.
            timeout_seconds: time for the whole call. None: the client's.

        Raises:
            Forbidden: the key may not do this.
            NotFound: there is no such route or lever.
            PennyweightError: the call failed.
            ValueError: an argument is not in the contract.
        """
        request = lever_change_of(
            route,
            lever,
            state,
            author=author,
            reason=reason,
            expires_after_seconds=expires_after_seconds,
        )
        response = await self._unary(self._stub.SetLever, request, timeout_seconds)
        return lever_of(response.lever)

    async def _unary(
        self, method: Callable[..., Any], request: Any, timeout_seconds: float | None
    ) -> Any:
        attempts = self._attempts(timeout_seconds)
        while True:
            call = method(request, timeout=attempts.seconds_left(), metadata=self._metadata)
            try:
                async with errors_of(call):
                    return await call
            except PennyweightError as error:
                delay = self._next_delay(attempts, error)
            await asyncio.sleep(delay)

    def _next_delay(self, attempts: Attempts, error: PennyweightError) -> float:
        """Seconds to wait before the next try; raises the error where there must be none."""
        if self._closed:  # by which the call ended
            raise error
        return attempts.next_delay(away_of(error))

    def _attempts(self, timeout_seconds: float | None) -> Attempts:
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return Attempts(
            time.monotonic() + timeout,
            self._max_attempts,
            self._budget,
            clock=time.monotonic,
            chance=random.random,
        )


def _with_key(options: Options) -> Options:
    """The options with an idempotency key: retries of one call can then be told from new ones."""
    return {"idempotency_key": uuid.uuid4().hex, **options}
