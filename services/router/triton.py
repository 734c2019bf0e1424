"""Replicas behind Triton's gRPC: connections, streams, cancellation.

With `trtllm` the only importer of `tritonclient`. A streamed answer has a call of its own, so that
cancelling the call cancels just that request. Whole answers, a message each way, share a few
long-lived streams to each replica: that halves what a request costs here. On a shared stream a
request is ended by TensorRT-LLM's ``stop`` tensor under the same id.
"""

import abc
import asyncio
import itertools
import math
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from services.common.errors import DeadlineExceeded, InternalError, ServiceError
from services.router.policy.routes import Tier
from services.router.ports import Asked, EngineChunk, ReplicaFailed, TierText
from services.router.trtllm import Encoder, classify, decode

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

SHARED_STREAMS = 8
"""Streams to a replica that whole answers share; several, so that reads of them overlap."""

WATCH_SECONDS = 0.25

LAST_SECONDS = 1.0
"""How long a stream may take to end after its last response."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in effect the time to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)


class TritonEngine:
    """The `Engine` over Triton; connections open when first used."""

    def __init__(
        self,
        tiers: Mapping[str, Tier],
        texts: Mapping[str, TierText],
        *,
        grpc_errors: bool = False,
    ) -> None:
        """Takes tiers and their texts by tier name."""
        self._encoders = {name: Encoder(tier, texts[name]) for name, tier in tiers.items()}
        self._metadata = (("triton_grpc_error", "true"),) if grpc_errors else ()
        self._replicas: dict[str, _Connection] = {}
        self._running: set[Run] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    def start(
        self,
        address: str,
        tier: Tier,
        prompt: Sequence[int],
        asked: Asked,
        *,
        request_id: str,
        streaming: bool,
        outlives: bool,
        deadline_seconds: float,
    ) -> "Run":
        """See `Engine.start`."""
        connection = self._replicas.get(address)
        if connection is None:
            connection = self._replicas[address] = _Connection(address, self._metadata)
        encoder = self._encoders[tier.name]
        # A number makes the id unique: what an earlier try left behind must not answer this one.
        name = f"{request_id}.{next(self._numbers)}"
        request = encoder.request(prompt, asked, request_id=name, streaming=streaming)
        run: Run
        if streaming:
            call = connection.call(request, deadline_seconds)
            run = _OwnCall(self._running, call, outlives=outlives)
        else:
            run = _SharedCall(self._running, connection.stream(), request, encoder)
        self._running.add(run)
        return run

    async def watch(self) -> None:
        """Gives up runs that stay silent beyond their time. Runs for ever; the caller owns it.

        One look over all runs every quarter second, instead of a timer for each message.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for run in [run for run in self._running if run.limit < now]:
                run.give_up("the replica fell silent")

    def forget(self, address: str) -> None:
        """Drops the connection to a replica that is gone."""
        connection = self._replicas.pop(address, None)
        if connection is not None:
            task = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes all connections."""
        for connection in self._replicas.values():
            await connection.close()
        self._replicas.clear()


class _Connection:
    """The channel to one replica, and the streams that whole answers share."""

    def __init__(self, address: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        serializers: dict[str, Any] = {
            "request_serializer": service_pb2.ModelInferRequest.SerializeToString,
            "response_deserializer": service_pb2.ModelStreamInferResponse.FromString,
        }
        # The method takes a stream; with one request in it, a call that sends one message and
        # half-closes at once is the same on the wire, and cheaper.
        self._one = self._channel.unary_stream(STREAM_METHOD, **serializers)
        self._many = self._channel.stream_stream(STREAM_METHOD, **serializers)
        self._streams: list[_SharedStream | None] = [None] * SHARED_STREAMS
        self._turn = 0

    def call(self, request: service_pb2.ModelInferRequest, deadline_seconds: float) -> Any:
        """A call for one streamed answer."""
        return self._one(request, timeout=deadline_seconds, metadata=self._metadata)

    def stream(self) -> "_SharedStream":
        """The shared stream whose turn it is; a broken one is replaced."""
        self._turn = (self._turn + 1) % SHARED_STREAMS
        stream = self._streams[self._turn]
        if stream is None or stream.broken:
            stream = _SharedStream(self._many(metadata=self._metadata))
            self._streams[self._turn] = stream
        return stream

    async def close(self) -> None:
        """Ends the streams and closes the channel."""
        for stream in self._streams:
            if stream is not None:
                await stream.close()
        await self._channel.close()


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

    def _merged(self, chunk: EngineChunk) -> EngineChunk:
        """All that has piled up while the caller was written to, as one chunk."""
        tokens = [*chunk.tokens]
        while self._arrived and isinstance(following := self._arrived[0], EngineChunk):
            chunk = following
            tokens += chunk.tokens
            self._arrived.popleft()
        return EngineChunk(tokens, chunk.final, chunk.figures)

    def _end(self) -> bool:
        """Notes the end; False if it was noted before."""
        if self not in self._running:
            return False
        self._running.discard(self)
        return True


class _OwnCall(_Run):
    """A streamed answer, on a call of its own.

    gRPC cancels a call when the task that reads it is cancelled. A run that may go on without its
    caller is therefore read by a task of ours; the others by the caller's own, which is quicker.
    """

    def __init__(self, running: "set[Run]", call: Any, *, outlives: bool) -> None:
        super().__init__(running)
        self._call = call
        self._reading = asyncio.create_task(self._read_all()) if outlives else None

    async def read(self, timeout_seconds: float) -> EngineChunk:
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
        # To its end, not cancelled: cancelling after the last response upsets Triton 2.51.
        if not self._end():
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        if not self._reading.done():
            await asyncio.wait((self._reading,), timeout=LAST_SECONDS)
            self._call.cancel()

    def cancel(self) -> None:
        if self._end():
            self._call.cancel()

    def give_up(self, why: str) -> None:
        self.arrived(ReplicaFailed(why, lost=True))
        self.cancel()

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


class _SharedCall(_Run):
    """A whole answer, on a shared stream."""

    def __init__(
        self,
        running: "set[Run]",
        stream: "_SharedStream",
        request: service_pb2.ModelInferRequest,
        encoder: Encoder,
    ) -> None:
        super().__init__(running)
        self._stream = stream
        self._encoder = encoder
        self._id = request.id
        stream.send(request, self)

    async def finish(self) -> None:
        if self._end():
            self._stream.end(self._id, None)

    def cancel(self) -> None:
        if self._end():
            self._stream.end(self._id, self._encoder.stop(self._id))

    def give_up(self, why: str) -> None:
        self.arrived(ReplicaFailed(why, lost=True))
        self.cancel()


Run = _OwnCall | _SharedCall


class _SharedStream:
    """A long-lived stream that carries many requests, told apart by their ids."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._runs: dict[str, _SharedCall] = {}
        self._outbox: list[service_pb2.ModelInferRequest] = []
        self._wake = asyncio.Event()
        self.broken = False
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    def send(self, request: service_pb2.ModelInferRequest, run: _SharedCall) -> None:
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
