"""grpc.aio's server without the fault by which a single request ends it.

grpc.aio decodes the path of a call in the loop that takes all calls: a path that is not UTF-8 ends
that loop, and with it the listener and every running call. Here gRPC's core tells the methods
apart, by bytes: each is registered there and has a taker of its own, and whatever comes beside them
belongs to no method, so nobody needs its path.

It stands on names that are private to grpcio, so a version that lacks one fails at import, and
`tests/integration/common/test_raw_requests.py` sees any that means another thing by it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from grpc._cython import cygrpc
from grpc.aio import _server as grpc_aio

from services.common.calls import note_end

_core: Any = cygrpc
_aio: Any = grpc_aio
_handle, _schedule = _core._handle_rpc, _core._schedule_rpc_coro  # noqa: SLF001
_MethodResolver = _core._MethodResolver  # noqa: SLF001

MOST_CALLS = 32_768
"""Calls of one method that are handled at once, whoever makes them; further ones wait in gRPC's
core. They are refused before, in words: see `services.common.gate` and `services.common.keyless`,
which also bound those whose end nobody takes."""

MOST_STRAYS = 4_096
"""The same of calls of no method, which are refused at once."""

TAKEN_AT_ONCE = 64
"""Calls of one method that are asked for at a time. gRPC hands them over in the order in which they
came, whoever makes them, and one a turn of the loop would have a call wait for the work of each
before it."""

Options = Sequence[tuple[str, int]]
Handlers = Mapping[str, Any]
"""Method handlers by path."""


class Listener(_aio.Server):  # type: ignore[misc]
    """A server of registered methods; made in a running event loop."""

    def __init__(self, options: Options) -> None:
        """Listens nowhere yet. Takes the place of grpc.aio's own constructor."""
        self._loop = _core.get_working_loop()
        self._server = _Intake(self._loop, tuple(options))

    async def failure(self) -> Exception:
        """Waits until the server ends by itself, which it should never do. Returns why.

        grpc.aio's own word of it comes only once the calls that still run have ended.
        """
        return await asyncio.shield(self._server.failure)

    @property
    def ended(self) -> int:
        """Calls that were handled to their end so far, whatever that was.

        One that its caller gave up is none: nobody may have been there to answer it.
        """
        ended: int = self._server.ended
        return ended

    async def stop(self, grace: float | None) -> None:
        """See `grpc.aio.Server`; stops a server that has ended by itself as well."""
        self._server.stopping = True
        if self._server.failure.done():
            with suppress(Exception):  # gRPC tells the first of the failure, and stops nothing
                await super().stop(grace)
        await super().stop(grace)
        await self._server.taken()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Adds nothing: generated code adds the same methods as registered ones too."""


class _Intake(_core.AioServer):  # type: ignore[misc]
    """Takes calls for each method apart."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Options) -> None:
        super().__init__(loop, None, (), (), options, None)
        self._event_loop = loop
        self.failure: asyncio.Future[Exception] = loop.create_future()
        self._resolver = _MethodResolver([], {})
        self._by_path: dict[str, Any] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._takers: list[asyncio.Future[None]] = []
        self.ended = 0
        self.stopping = False

    def add_registered_method_handlers(self, method_handlers: Handlers) -> None:
        super().add_registered_method_handlers(dict(method_handlers))
        self._by_path.update(method_handlers)
        self._resolver = _MethodResolver([], self._by_path)

    async def _server_main_loop(self, started: asyncio.Future[bool]) -> None:
        try:
            await super()._server_main_loop(started)
        except Exception as error:
            self.stopping = True
            self.failure.set_result(error)
            raise

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[None]:
        """Called once for each method, and with None for calls of no method.

        gRPC's loop awaits a single call by it, which here never comes: the loop is left with
        seeing the server stop.
        """
        return self._event_loop.create_task(self._take_all(method))

    def _one_ended(self) -> None:
        self.ended += 1

    async def taken(self) -> None:
        """Waits, once the server has stopped, until nobody asks gRPC for calls any more.

        gRPC writes each call where whoever asked for it waits, so none may go before.
        """
        await asyncio.gather(*self._takers, return_exceptions=True)

    async def _take_all(self, method: bytes | None) -> None:
        """Takes calls until the server stops, which gRPC's own error says."""
        room = asyncio.Semaphore(MOST_STRAYS if method is None else MOST_CALLS)
        takers = [asyncio.ensure_future(self._take(method, room)) for _ in range(TAKEN_AT_ONCE)]
        self._takers += takers
        taking = asyncio.gather(*takers)
        taking.add_done_callback(note_end)
        await asyncio.shield(taking)  # gRPC's loop cancels us at a failure

    async def _next(self, method: bytes | None) -> Any:
        if self.stopping:  # there may be no server any more to ask
            raise _core._RequestCallError("the server stops")  # noqa: SLF001 - which gRPC expects
        if method is None:
            return await self._request_call()
        return await self._request_registered_call(method)

    async def _take(self, method: bytes | None, room: asyncio.Semaphore) -> None:
        path = "" if method is None else method.decode()
        while True:
            await room.acquire()
            try:
                call = await self._next(method)
            except BaseException:
                room.release()  # who waits for it ends too
                raise
            work = _handle(path, self._resolver, (), call, self._event_loop, False)  # noqa: FBT003
            place = _Place(room, self._one_ended)
            task = self._event_loop.create_task(
                _schedule(place.held(work), call, self._event_loop, path)
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(place.leave)  # where the work never began


class _Place:
    """Room for one call, given back once."""

    def __init__(self, room: asyncio.Semaphore, on_end: Callable[[], None]) -> None:
        self._room: asyncio.Semaphore | None = room
        self._on_end = on_end

    async def held(self, work: Awaitable[None]) -> None:
        """Does the work and leaves; what gRPC does after it takes no room."""
        given_up = False
        try:
            await work
        except asyncio.CancelledError:
            given_up = True
            raise
        finally:
            self.leave()
            if not given_up:
                self._on_end()

    def leave(self, _: object = None) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.release()
