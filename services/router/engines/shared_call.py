"""Whole answers, on streams that many of them share."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from tritonclient.grpc import service_pb2

from services.common.faults import fault
from services.router.engines.pieces import Pieces
from services.router.engines.triton_call import (
    LAST_SECONDS,
    TritonCall,
    closed,
    decoded,
    failure_of,
)
from services.router.engines.trtllm import Chunk, Encoder
from services.router.ports import ReplicaFailed

log = structlog.get_logger()

LOG_PROB_BYTES = 4


class SharedCall(TritonCall):
    """A whole answer, on a shared stream."""

    def __init__(
        self,
        running: "set[TritonCall]",
        pieces: Pieces,
        clock: Callable[[], float],
        ends_at: float = math.inf,
        *,
        stream: "SharedStream",
        request: service_pb2.ModelInferRequest,
        encoder: Encoder,
    ) -> None:
        super().__init__(running, pieces, clock, ends_at)
        self._last: asyncio.Future[None] | None = None
        self._stream = stream
        self._encoder = encoder
        self._id = request.id
        stream.send(request, self)

    def finish(self) -> None:
        """See `EngineCall.finish`."""
        if self._end():
            self._stream.end(self._id)

    async def stop(self) -> None:
        """See `EngineCall.stop`: the replica's last response says what it has made."""
        if not self._end():
            return
        self._last = asyncio.get_running_loop().create_future()
        self._stream.ask(self._encoder.stop(self._id))
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._last
        except TimeoutError:
            pass  # nobody says
        finally:
            self._stream.end(self._id)

    def arrived(self, what: Chunk | Exception) -> None:
        """See `TritonCall.arrived`; what comes after a stop says how far the answer came."""
        if self._last is None:
            super().arrived(what)
        elif isinstance(what, Exception):
            self._hear_the_last()
        elif not what.bare:  # else it is the reply to the stop itself
            self._count(what)
            self._hear_the_last()

    def _count(self, chunk: Chunk) -> None:
        """Counts what a stopped request has made, if its last response says so.

        TensorRT-LLM 1.2 drops the tokens of a whole answer that is stopped: then the length of its
        log-probabilities alone tells how many there were, where they were asked for, and the time
        of the last one that there were some.
        """
        made = len(chunk.tokens) or len(chunk.log_probs or b"") // LOG_PROB_BYTES
        self.output_tokens = max(self.output_tokens, made)
        self.figures = chunk.figures or self.figures
        self.final = made > 0 or self.figures.engine_seconds is None

    def _hear_the_last(self) -> None:
        if self._last is not None and not self._last.done():
            self._last.set_result(None)

    def cancel(self) -> None:
        """See `EngineCall.cancel`."""
        if self._end():
            self._stream.end(self._id)
            self._stream.ask(self._encoder.stop(self._id))


class SharedStream:
    """A long-lived stream that carries many requests, told apart by their ids."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._calls: dict[str, SharedCall] = {}
        self._outbox: list[service_pb2.ModelInferRequest] = []
        self._wake = asyncio.Event()
        self.broken = False
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    def send(self, request: service_pb2.ModelInferRequest, call: SharedCall) -> None:
        """Sends a request; `call` is told what comes back."""
        self._calls[request.id] = call
        self.ask(request)

    def ask(self, request: service_pb2.ModelInferRequest) -> None:
        """Sends a message, unless the stream is broken."""
        if not self.broken:
            self._outbox.append(request)
            self._wake.set()

    def end(self, request_id: str) -> None:
        """Nobody waits for the request any more."""
        self._calls.pop(request_id, None)

    async def close(self) -> None:
        """Ends the stream; what still waits on it fails."""
        self._fail(closed())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                call = self._calls.get(message.infer_response.id)
                if call is not None:  # else it was stopped meanwhile
                    call.arrived(decoded(message))
            self._fail(ReplicaFailed("the replica ended the stream", lost=True))
        except grpc.aio.AioRpcError as error:
            self._fail(failure_of(error))
        except Exception as error:  # noqa: BLE001 -- else it would swallow all that is sent on it
            log.error("a stream of a replica failed", fault=fault(error))  # noqa: TRY400 -- see `fault`
            self._fail(ReplicaFailed("what the replica said cannot be read", lost=True))

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                requests, self._outbox = self._outbox, []
                self._wake.clear()
                for request in requests:
                    await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.broken = True  # the reader learns why
        except Exception as error:  # noqa: BLE001 -- else what is sent on it would wait for ever
            log.error("a stream of a replica failed", fault=fault(error))  # noqa: TRY400 -- see `fault`
            self._fail(ReplicaFailed("the stream to the replica broke", lost=True))

    def _fail(self, error: Exception) -> None:
        self.broken = True
        _, writer = self._tasks
        writer.cancel()
        for call in self._calls.values():
            call.arrived(error)
