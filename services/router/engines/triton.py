"""Replicas behind Triton's gRPC: connections, streams, cancellation.

With `triton_call`, `shared_call` and `trtllm` the only importer of `tritonclient` in the router. A
streamed answer has a call of its own, so that cancelling the call cancels just that request. Whole
answers, a message each way, share a few long-lived streams to each replica: that halves what a
request costs here. On a shared stream a request is ended by TensorRT-LLM's ``stop`` tensor under
the same id.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from tritonclient.grpc import service_pb2

from services.common.channel import NO_PROXY
from services.router.engines.own_call import OwnCall
from services.router.engines.pieces import Pieces
from services.router.engines.shared_call import SharedCall, SharedStream
from services.router.engines.triton_call import TritonCall
from services.router.engines.trtllm import Encoder
from services.router.policy.routes import Tier
from services.router.ports import Capabilities, EngineRequest, ReplicaFailed, TierText

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

SHARED_STREAMS = 8
"""Streams to a replica that whole answers share; several, so that reads of them overlap."""

WATCH_SECONDS = 0.25

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in effect the time to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    NO_PROXY,
)


class TritonEngine:
    """The `Engine` over Triton; connections open when first used."""

    def __init__(
        self, *, grpc_errors: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives seconds that only grow."""
        self._clock = clock
        # By text and model; they go with the last version of the policies that has the text.
        self._encoders: WeakKeyDictionary[TierText, dict[str, Encoder]] = WeakKeyDictionary()
        self._metadata = (("triton_grpc_error", "true"),) if grpc_errors else ()
        self._replicas: dict[str, _Connection] = {}
        self._running: set[TritonCall] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._has_log_probs: dict[tuple[str, str], bool] = {}

    def capabilities(self, tier: Tier) -> Capabilities:
        """See `Engine.capabilities`."""
        return Capabilities(
            has_log_probs=self._has_log_probs.get((tier.model, tier.precision)),
            can_resume=True,
            counts_tokens=True,
            has_priority=False,
        )

    def learn_log_probs(self, tier: Tier, *, has: bool) -> None:
        """See `Engine.learn_log_probs`."""
        self._has_log_probs[tier.model, tier.precision] = has

    def start(self, address: str, request: EngineRequest) -> TritonCall:
        """See `Engine.start`."""
        connection = self._replicas.get(address)
        if connection is None:
            connection = self._replicas[address] = _Connection(address, self._metadata)
        encoder = self._encoder(request.tier, request.text)
        # A number makes the id unique: what an earlier try left behind must not answer this one.
        name = f"{request.request_id}.{next(self._numbers)}"
        message = encoder.request(request, name)
        pieces = Pieces(request.text.detokenizer(), request.asked.stop, request.max_output_tokens)
        if not request.streaming:
            stream = connection.stream()
            return SharedCall(
                self._running,
                pieces,
                self._clock,
                self._clock() + request.deadline_seconds,
                stream=stream,
                request=message,
                encoder=encoder,
            )
        call = connection.call(message, request.deadline_seconds)
        return OwnCall(
            self._running,
            pieces,
            self._clock,
            call=call,
            spawn=self._spawn,
            ask_to_stop=lambda: connection.stream().ask(encoder.stop(name)),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Starts a task that ends by itself, within the time that its call has."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _encoder(self, tier: Tier, text: TierText) -> Encoder:
        """Makes requests for the tier's model, with its tokenizer; made when first needed."""
        encoders = self._encoders.setdefault(text, {})
        encoder = encoders.get(tier.model)
        if encoder is None:
            encoder = encoders[tier.model] = Encoder(tier, text)
        return encoder

    async def watch(self) -> None:
        """See `Engine.watch`: one look over all calls, instead of a timer for each message."""
        now, late = self._clock(), False
        while True:
            before = now
            await asyncio.sleep(WATCH_SECONDS)
            now = self._clock()
            # Where this process was late itself, what replicas said waits to be read: a look later.
            late = now - before > 2 * WATCH_SECONDS and not late
            if late:
                continue
            for call in [call for call in self._running if call.limit < now]:
                call.give_up(
                    ReplicaFailed(
                        "the replica fell silent, or its time was over", lost=True, silent=True
                    )
                )

    def forget(self, address: str) -> None:
        """See `Engine.forget`: drops the connection."""
        connection = self._replicas.pop(address, None)
        if connection is not None:
            self._spawn(connection.close())

    async def close(self) -> None:
        """See `Engine.close`."""
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
        self._streams: list[SharedStream | None] = [None] * SHARED_STREAMS
        self._turn = 0

    def call(self, request: service_pb2.ModelInferRequest, deadline_seconds: float) -> Any:
        """A call for one streamed answer."""
        return self._one(request, timeout=deadline_seconds, metadata=self._metadata)

    def stream(self) -> "SharedStream":
        """The shared stream whose turn it is; a broken one is replaced."""
        self._turn = (self._turn + 1) % SHARED_STREAMS
        stream = self._streams[self._turn]
        if stream is None or stream.broken:
            stream = SharedStream(self._many())
            self._streams[self._turn] = stream
        return stream

    async def close(self) -> None:
        """Ends the streams and closes the channel."""
        for stream in self._streams:
            if stream is not None:
                await stream.close()
        await self._channel.close()
