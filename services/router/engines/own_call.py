"""A streamed answer, on a call of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

from services.common.calls import is_cancelled
from services.common.errors import ServiceError
from services.router.engines.pieces import Pieces
from services.router.engines.triton_call import (
    LAST_SECONDS,
    TritonCall,
    closed,
    decoded,
    failure_of,
)
from services.router.engines.trtllm import Chunk
from services.router.ports import ReplicaFailed

ASK_AGAIN_SECONDS = 0.05
"""First wait before a stop is asked for again: it goes another way than its request, and may come
before it."""


class OwnCall(TritonCall):
    """See `TritonCall`.

    gRPC cancels a call when the task that reads it is cancelled, so it is read by a task of ours:
    when its caller has gone it may go on, or still be asked how far it came.
    """

    def __init__(
        self,
        running: "set[TritonCall]",
        pieces: Pieces,
        clock: Callable[[], float],
        *,
        call: Any,
        spawn: "Callable[[Any], asyncio.Task[None]]",
        ask_to_stop: Callable[[], None],
    ) -> None:
        super().__init__(running, pieces, clock)
        self._call = call
        self._spawn = spawn
        self._ask_to_stop = ask_to_stop
        self._reading = spawn(self._read_all())

    def finish(self) -> None:
        """See `EngineCall.finish`."""
        # To its end, not cancelled: cancelling after the last response upsets Triton 2.51.
        if self._end():
            self._spawn(self._read_to_the_end())

    async def stop(self) -> None:
        """See `EngineCall.stop`: read to its end, which comes soon, all its tokens are counted."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                wait = ASK_AGAIN_SECONDS
                while not self.final:
                    self._ask_to_stop()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            while not self.final:
                                await self.read(LAST_SECONDS)
                    wait *= 2
            self.finish()
        except (TimeoutError, ReplicaFailed, ServiceError):
            self.cancel()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """See `EngineCall.cancel`."""
        if self._end():
            self._call.cancel()

    async def _read_to_the_end(self) -> None:
        if not self._reading.done():
            await asyncio.wait((self._reading,), timeout=LAST_SECONDS)
            self._call.cancel()

    async def _read_all(self) -> None:
        while isinstance(what := await self._next(), Chunk):
            self.arrived(what)
        self.arrived(what)

    async def _next(self) -> Chunk | Exception:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            return failure_of(error)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return closed()
        if message is grpc.aio.EOF:
            return ReplicaFailed("the replica ended the stream early", lost=True)
        return decoded(message)
