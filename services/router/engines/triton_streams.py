"""Requests on Triton's streams: what arrives for each, how each ends.

`OwnCall` is a streamed answer on a call of its own; `SharedCall` a whole answer on a stream that
many share.
"""

import abc
import asyncio
import math
import struct
import time
from collections import deque
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from services.common.errors import DeadlineExceeded, InternalError, ServiceError
from services.router.engines.trtllm import Encoder, classify, decode
from services.router.ports import EngineChunk, ReplicaFailed

LAST_SECONDS = 1.0
"""How long a stream may take to end after its last response."""


class _Run(abc.ABC):
    """One request on one replica.

    Attributes:
        limit: monotonic seconds at which the replica counts as silent.
    """

    def __init__(self, running: "set[Run]") -> None:
        self._running = running
        self._arrived: deque[EngineChunk | Exception] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.limit = math.inf

    def arrived(self, what: EngineChunk | Exception) -> None:
        """Takes what came for this request; it stays until it is read."""
        self._arrived.append(what)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def read(self, timeout_seconds: float) -> EngineChunk:
        """See `EngineRun.read`."""
        self.limit = time.monotonic() + timeout_seconds
        while not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        self.limit = math.inf  # a caller who takes text slowly is no silence of the replica
        what = self._arrived.popleft()
        if isinstance(what, Exception):
            await self.finish()
            raise what
        if not self._arrived:
            return what
        return self._merged(what)

    @abc.abstractmethod
    async def finish(self) -> None:
        """See `EngineRun.finish`."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """See `EngineRun.cancel`."""

    def give_up(self, why: str) -> None:
        """See `EngineRun.give_up`."""
        self.arrived(ReplicaFailed(why, lost=True))
        self.cancel()

    def _merged(self, chunk: EngineChunk) -> EngineChunk:
        """All that has piled up while the caller was written to, as one chunk."""
        tokens, log_probs = [*chunk.tokens], chunk.log_probs
        while self._arrived and isinstance(following := self._arrived[0], EngineChunk):
            chunk = following
            tokens += chunk.tokens
            log_probs = chunk.log_probs or log_probs
            self._arrived.popleft()
        return EngineChunk(tokens, chunk.final, chunk.figures, log_probs)

    def _end(self) -> bool:
        """Notes the end; False if it was noted before."""
        if self not in self._running:
            return False
        self._running.discard(self)
        return True


class OwnCall(_Run):
    """A streamed answer, on a call of its own.

    gRPC cancels a call when the task that reads it is cancelled. A run that may go on without its
    caller is therefore read by a task of ours; the others by the caller's own, which is quicker.
    """

    def __init__(self, running: "set[Run]", call: Any, *, outlives: bool) -> None:
        super().__init__(running)
        self._call = call
        self._reading = asyncio.create_task(self._read_all()) if outlives else None

    async def read(self, timeout_seconds: float) -> EngineChunk:
        """See `EngineRun.read`."""
        if self._reading is None and not self._arrived:
            self.limit = time.monotonic() + timeout_seconds
            try:
                self.arrived(await self._next())
            except asyncio.CancelledError:
                # A call that we cancel surfaces like the cancellation of the task that reads it.
                task = asyncio.current_task()
                if not self._arrived or (task is not None and task.cancelling()):
                    raise
        return await super().read(timeout_seconds)

    async def finish(self) -> None:
        """See `EngineRun.finish`."""
        # To its end, not cancelled: cancelling after the last response upsets Triton 2.51.
        if not self._end():
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        if not self._reading.done():
            await asyncio.wait((self._reading,), timeout=LAST_SECONDS)
            self._call.cancel()

    def cancel(self) -> None:
        """See `EngineRun.cancel`."""
        if self._end():
            self._call.cancel()

    async def _read_all(self) -> None:
        while isinstance(what := await self._next(), EngineChunk):
            self.arrived(what)
        self.arrived(what)

    async def _next(self) -> EngineChunk | Exception:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            return _from_status(error)
        if message is grpc.aio.EOF:
            return ReplicaFailed("the replica ended the stream early", lost=True)
        return _decoded(message)


class SharedCall(_Run):
    """A whole answer, on a shared stream."""

    def __init__(
        self,
        running: "set[Run]",
        stream: "SharedStream",
        request: service_pb2.ModelInferRequest,
        encoder: Encoder,
    ) -> None:
        super().__init__(running)
        self._stream = stream
        self._encoder = encoder
        self._id = request.id
        stream.send(request, self)

    async def finish(self) -> None:
        """See `EngineRun.finish`."""
        if self._end():
            self._stream.end(self._id, None)

    def cancel(self) -> None:
        """See `EngineRun.cancel`."""
        if self._end():
            self._stream.end(self._id, self._encoder.stop(self._id))


Run = OwnCall | SharedCall


class SharedStream:
    """A long-lived stream that carries many requests, told apart by their ids."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._runs: dict[str, SharedCall] = {}
        self._outbox: list[service_pb2.ModelInferRequest] = []
        self._wake = asyncio.Event()
        self.broken = False
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    def send(self, request: service_pb2.ModelInferRequest, run: SharedCall) -> None:
        """Sends a request; `run` is told what comes back."""
        self._runs[request.id] = run
        self._post(request)

    def end(self, request_id: str, stop: service_pb2.ModelInferRequest | None) -> None:
        """Nobody waits for the request any more; `stop` tells the replica."""
        if self._runs.pop(request_id, None) is not None and stop is not None:
            self._post(stop)

    async def close(self) -> None:
        """Ends the stream; what still waits on it fails."""
        self._fail(ReplicaFailed("the connection was closed", lost=True))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._call.cancel()

    def _post(self, request: service_pb2.ModelInferRequest) -> None:
        if not self.broken:
            self._outbox.append(request)
            self._wake.set()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                run = self._runs.get(message.infer_response.id)
                if run is not None:  # else it was stopped meanwhile
                    run.arrived(_decoded(message))
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
        for run in self._runs.values():
            run.arrived(error)


def _decoded(message: service_pb2.ModelStreamInferResponse) -> EngineChunk | Exception:
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
