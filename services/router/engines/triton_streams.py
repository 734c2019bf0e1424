"""Requests on Triton's streams: what arrives for each, how each ends.

`OwnCall` is a streamed answer on a call of its own; `SharedCall` a whole answer on a stream that
many share.
"""

import abc
import asyncio
import math
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from services.common.calls import is_cancelled
from services.common.errors import DeadlineExceeded, InternalError, ServiceError
from services.router.engines.pieces import Pieces
from services.router.engines.trtllm import Chunk, Encoder, classify, decode, unpack_log_probs
from services.router.ports import EngineFigures, Finish, Piece, ReplicaFailed

LOG_PROB_BYTES = 4
ASK_AGAIN_SECONDS = 0.05
"""First wait before a stop is asked for again: it goes another way than its request, and may come
before it."""

LAST_SECONDS = 1.0
"""How long a replica may take for its last word after it was asked to end a request."""


class TritonCall(abc.ABC):
    """See `EngineCall`; one request on one replica.

    Attributes:
        limit: seconds of the clock at which the replica counts as silent.
    """

    def __init__(
        self,
        running: "set[TritonCall]",
        pieces: Pieces,
        clock: Callable[[], float],
        ends_at: float = math.inf,
    ) -> None:
        """It may run until `ends_at` of the clock."""
        self._running = running
        self._pieces = pieces
        self._clock = clock
        self._arrived: deque[Chunk | Exception] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._log_probs: bytes | None = None
        self._ends_at = ends_at
        self.limit = ends_at
        self.output_tokens = 0
        self.final = False
        self.figures = EngineFigures()
        running.add(self)

    @property
    def finish_reason(self) -> Finish:
        """See `EngineCall.finish_reason`."""
        return self._pieces.finish_reason

    def arrived(self, what: Chunk | Exception) -> None:
        """Takes what came for this request; it stays until it is read."""
        if self not in self._running:  # it has ended, and its money is counted
            return
        if isinstance(what, Chunk):
            self._note(what)
        self._arrived.append(what)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self, timeout_seconds: float) -> Piece:
        """See `EngineCall.read`."""
        self.limit = min(self._clock() + timeout_seconds, self._ends_at)
        while not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self.limit = self._ends_at  # a caller who takes text slowly is no silence of the replica
        return self._next_piece()

    def log_probs(self, most: int) -> Sequence[float] | None:
        """See `EngineCall.log_probs`."""
        return None if self._log_probs is None else unpack_log_probs(self._log_probs, most)

    @abc.abstractmethod
    def finish(self) -> None:
        """See `EngineCall.finish`."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """See `EngineCall.stop`."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """See `EngineCall.cancel`."""

    def give_up(self, failure: ReplicaFailed) -> None:
        """See `EngineCall.give_up`."""
        self.arrived(failure)
        self.cancel()

    def _note(self, chunk: Chunk) -> None:
        """Counts what a chunk brings, read or not."""
        self.output_tokens += len(chunk.tokens)
        if chunk.log_probs:  # other than tokens they come as the whole list so far
            self._log_probs = chunk.log_probs
        if chunk.final:
            self.final = True
            self.figures = chunk.figures or self.figures

    def _next_piece(self) -> Piece:
        """The piece of all that has piled up.

        Raises:
            ReplicaFailed, ServiceError: that came next.
        """
        what = self._arrived.popleft()
        if isinstance(what, Exception):
            self.finish()
            raise what
        tokens: Sequence[int] = what.tokens
        final = what.final
        while self._arrived and isinstance(following := self._arrived[0], Chunk):
            self._arrived.popleft()
            tokens = [*tokens, *following.tokens]
            final = following.final
        return self._pieces.take(tokens, final=final)

    def _end(self) -> bool:
        """Notes the end; False if it was noted before."""
        if self not in self._running:
            return False
        self._running.discard(self)
        return True


class OwnCall(TritonCall):
    """A streamed answer, on a call of its own.

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
            return _from_status(error)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return _closed()
        if message is grpc.aio.EOF:
            return ReplicaFailed("the replica ended the stream early", lost=True)
        return _decoded(message)


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
        self._fail(_closed())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                call = self._calls.get(message.infer_response.id)
                if call is not None:  # else it was stopped meanwhile
                    call.arrived(_decoded(message))
            self._fail(ReplicaFailed("the replica ended the stream", lost=True))
        except grpc.aio.AioRpcError as error:
            self._fail(_from_status(error))

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

    def _fail(self, error: Exception) -> None:
        self.broken = True
        _, writer = self._tasks
        writer.cancel()
        for call in self._calls.values():
            call.arrived(error)


def _closed() -> ReplicaFailed:
    return ReplicaFailed("the connection was closed", lost=True)


def _decoded(message: service_pb2.ModelStreamInferResponse) -> Chunk | Exception:
    try:
        return decode(message)
    except (ReplicaFailed, ServiceError) as error:
        return error
    except struct.error as error:
        return InternalError(f"the replica sent what cannot be read: {error}")


def _from_status(error: grpc.aio.AioRpcError) -> Exception:
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return ReplicaFailed(text, lost=True)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed while the model was answering")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ReplicaFailed(text, lost=False)
    result = classify(text)
    return result if isinstance(result, (ServiceError, ReplicaFailed)) else InternalError(text)
