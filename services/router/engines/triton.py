"""Replicas behind Triton's gRPC: connections, streams, cancellation.

With `triton_runs` and `trtllm` the only importer of `tritonclient`. A streamed answer has a call of
its own, so that cancelling the call cancels just that request. Whole answers, a message each way,
share a few long-lived streams to each replica: that halves what a request costs here. On a shared
stream a request is ended by TensorRT-LLM's ``stop`` tensor under the same id.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from services.router.engines.triton_streams import OwnCall, Run, SharedCall, SharedStream
from services.router.engines.trtllm import Encoder
from services.router.policy.routes import Tier
from services.router.ports import Asked, TierText

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

SHARED_STREAMS = 8
"""Streams to a replica that whole answers share; several, so that reads of them overlap."""

WATCH_SECONDS = 0.25

MAX_ENCODERS = 64
"""Encoders kept; more than that are models of policies that are long out of force."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # in effect the time to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)


class TritonEngine:
    """The `Engine` over Triton; connections open when first used."""

    def __init__(self, texts: Mapping[str, TierText], *, grpc_errors: bool = False) -> None:
        """`texts` are by `Tier.tokenizer`."""
        self._texts = texts
        self._encoders: dict[tuple[str, str], Encoder] = {}
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
        log_probs: bool,
        deadline_seconds: float,
    ) -> "Run":
        """See `Engine.start`."""
        connection = self._replicas.get(address)
        if connection is None:
            connection = self._replicas[address] = _Connection(address, self._metadata)
        encoder = self._encoder(tier)
        # A number makes the id unique: what an earlier try left behind must not answer this one.
        name = f"{request_id}.{next(self._numbers)}"
        request = encoder.request(
            prompt, asked, request_id=name, streaming=streaming, log_probs=log_probs
        )
        run: Run
        if streaming:
            call = connection.call(request, deadline_seconds)
            run = OwnCall(self._running, call, outlives=outlives)
        else:
            run = SharedCall(self._running, connection.stream(), request, encoder)
        self._running.add(run)
        return run

    def _encoder(self, tier: Tier) -> Encoder:
        """Makes requests for the tier's model, with its tokenizer; made when first needed."""
        key = tier.model, tier.tokenizer
        encoder = self._encoders.get(key)
        if encoder is None:
            if len(self._encoders) >= MAX_ENCODERS:
                self._encoders.clear()
            encoder = self._encoders[key] = Encoder(tier, self._texts[tier.tokenizer])
        return encoder

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
            stream = SharedStream(self._many(metadata=self._metadata))
            self._streams[self._turn] = stream
        return stream

    async def close(self) -> None:
        """Ends the streams and closes the channel."""
        for stream in self._streams:
            if stream is not None:
                await stream.close()
        await self._channel.close()
