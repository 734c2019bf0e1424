"""Replicas that speak TensorRT-LLM's `tensorrt_llm` tensors through Triton's gRPC.

The only importer of `tritonclient`. One call a request, so that cancelling it cancels just that
request. The contract, quirks included: token ids in, delta token ids out, ended by the parameter
``triton_final_response``; errors come either as a gRPC status or as ``error_message`` in a message,
and both end the request.
"""

import asyncio
import math
import random
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import grpc
from tritonclient.grpc import service_pb2

from services.common.errors import (
    BadRequest,
    DeadlineExceeded,
    InternalError,
    ServiceError,
    Violation,
)
from services.router.policy.routes import Tier
from services.router.ports import (
    Asked,
    EngineChunk,
    EngineFigures,
    ReplicaFailed,
    TierText,
)

STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

TRY_ELSEWHERE = (
    "Exceeds maximum queue size",
    "Maximum queue size of",
    "shutting down",
    "Server is stopping",
    "not at ready state",
    "no available versions",
    "is not healthy",
    "Stub process",
    "engine process",
)
"""Messages that say: this replica cannot now, another one may."""

BAD_INPUT = ("Invalid request", "INVALID_ARGUMENT", "unexpected shape", "unexpected datatype")
"""Messages that say: no replica can serve this request."""

INPUTS = (
    ("input_ids", "INT32"),
    ("input_lengths", "INT32"),
    ("request_output_len", "INT32"),
    ("end_id", "INT32"),
    ("pad_id", "INT32"),
    ("streaming", "BOOL"),
    ("exclude_input_in_output", "BOOL"),
    ("return_perf_metrics", "BOOL"),
    ("temperature", "FP32"),
    ("runtime_top_k", "INT32"),
    ("runtime_top_p", "FP32"),
    ("seed", "UINT64"),
)
"""Tensors that every request sends, in the order of their raw contents."""

OUTPUTS = (
    "output_ids",
    "sequence_length",
    "kv_cache_reused_blocks",
    "first_scheduled_time_ns",
    "last_token_time_ns",
)

WATCH_SECONDS = 0.25

TOKENS_PER_BLOCK = 32
"""KV block size that engines are built with unless told otherwise."""


def classify(message: str) -> Exception:
    """Our error for a message of Triton's or the engine's."""
    if any(known in message for known in TRY_ELSEWHERE):
        return ReplicaFailed(message, lost="Maximum queue size" not in message)
    if any(known in message for known in BAD_INPUT):
        return BadRequest.of(Violation("prompt", f"the engine refuses it: {message[:200]}"))
    return InternalError(f"the replica failed: {message[:200]}", reason="ENGINE_FAILED")


class TritonEngine:
    """Channels to the replicas, opened when first used."""

    def __init__(self, texts: Mapping[str, TierText], *, grpc_errors: bool = False) -> None:
        """Takes the texts of the tiers by tier name, for end and padding tokens."""
        self._skeleton = _skeleton()
        self._texts = texts
        self._metadata = (("triton_grpc_error", "true"),) if grpc_errors else ()
        self._channels: dict[str, tuple[grpc.aio.Channel, Callable[..., Any]]] = {}
        self._running: set[TritonRun] = set()

    def start(
        self,
        address: str,
        tier: Tier,
        prompt: Sequence[int],
        asked: Asked,
        *,
        request_id: str,
        streaming: bool,
        deadline_seconds: float,
    ) -> "TritonRun":
        """See `Engine.start`."""
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(self._skeleton)
        request.model_name = tier.model
        request.id = request_id
        text = self._texts[tier.name]
        request.inputs[0].shape[1] = len(prompt)
        request.raw_input_contents.extend(
            (
                struct.pack(f"<{len(prompt)}i", *prompt),
                struct.pack("<i", len(prompt)),
                struct.pack("<i", asked.max_output_tokens),
                struct.pack("<i", text.end_id),
                struct.pack("<i", text.pad_id),
                b"\1" if streaming else b"\0",
                b"\1",
                b"\1",
                struct.pack("<f", asked.temperature or 1.0),
                # Greedy is the most likely token alone: TensorRT-LLM has no temperature of 0.
                struct.pack("<i", 1 if asked.temperature == 0 else asked.top_k),
                struct.pack("<f", asked.top_p),
                struct.pack("<Q", random.getrandbits(63) if asked.seed is None else asked.seed),
            )
        )
        if asked.stop:
            _add_words(request, "stop_words_list", [text.encode_plain(s) for s in asked.stop])
        if asked.shape is not None:
            kind, guide = asked.shape
            _add_text(request, "guided_decoding_guide_type", kind.value)
            _add_text(request, "guided_decoding_guide", guide)
        call = self._stream(address)(request, timeout=deadline_seconds, metadata=self._metadata)
        run = TritonRun(call, self._running)
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
        """Closes the channel to a replica that is gone."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            asyncio.get_running_loop().create_task(channel[0].close())

    async def close(self) -> None:
        """Closes all channels."""
        for channel, _ in self._channels.values():
            await channel.close()
        self._channels.clear()

    def _stream(self, address: str) -> Callable[..., Any]:
        found = self._channels.get(address)
        if found is None:
            channel = grpc.aio.insecure_channel(
                address,
                options=(
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.min_reconnect_backoff_ms", 100),
                    ("grpc.max_reconnect_backoff_ms", 1000),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.max_receive_message_length", -1),
                ),
            )
            # The method takes a stream; with one request in it, a call that sends one message and
            # half-closes at once is the same on the wire and a quarter cheaper here.
            method = channel.unary_stream(
                STREAM_METHOD,
                request_serializer=service_pb2.ModelInferRequest.SerializeToString,
                response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
            )
            found = self._channels[address] = (channel, method)
        return found[1]


class TritonRun:
    """One request on one replica.

    Attributes:
        limit: monotonic seconds at which the replica counts as silent.
    """

    def __init__(self, call: Any, running: "set[TritonRun]") -> None:
        self._call = call
        self._running = running
        self._gave_up: ReplicaFailed | None = None
        self.limit = math.inf

    async def read(self, timeout_seconds: float) -> EngineChunk:
        """See `EngineRun.read`."""
        self.limit = time.monotonic() + timeout_seconds
        try:
            message = await self._call.read()
        except asyncio.CancelledError:
            # A call that we cancel surfaces like the cancellation of the task that reads it.
            task = asyncio.current_task()
            if self._gave_up is None or (task is not None and task.cancelling()):
                raise
            raise self._gave_up from None
        except grpc.aio.AioRpcError as error:
            self._end()
            raise _from_status(error) from error
        if message is grpc.aio.EOF:
            self._end()
            raise ReplicaFailed("the replica ended the stream early", lost=True)
        if message.error_message:
            await self.finish()
            raise classify(message.error_message)
        response = message.infer_response
        final = response.parameters["triton_final_response"].bool_param
        outputs = {
            output.name: raw
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=False)
        }
        ids = outputs.get("output_ids", b"")
        length = _integer(outputs.get("sequence_length")) if ids else 0
        tokens = struct.unpack_from(f"<{length}i", ids) if length else ()
        return EngineChunk(tokens, final, _figures(outputs) if final else None)

    async def finish(self) -> None:
        """See `EngineRun.finish`. Cancelling after the end would upset Triton 2.51."""
        if not self._end():
            return
        try:
            async with asyncio.timeout(1.0):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
        except (TimeoutError, grpc.aio.AioRpcError):
            self._call.cancel()

    def cancel(self) -> None:
        """See `EngineRun.cancel`."""
        if self._end():
            self._call.cancel()

    def give_up(self, why: str) -> None:
        """Ends the run because its replica is lost; whoever reads it gets `ReplicaFailed`."""
        self._gave_up = ReplicaFailed(why, lost=True)
        self.cancel()

    def _end(self) -> bool:
        """Notes the end; False if it was noted before."""
        if self not in self._running:
            return False
        self._running.discard(self)
        return True


def _skeleton() -> service_pb2.ModelInferRequest:
    """What all requests have in common, built once."""
    request = service_pb2.ModelInferRequest()
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, datatype in INPUTS:
        _declare(request, name, datatype, (1, 1))
    for name in OUTPUTS:
        request.outputs.add().name = name
    return request


def _declare(request: Any, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    declared = request.inputs.add()
    declared.name = name
    declared.datatype = datatype
    declared.shape.extend(shape)


def _add_text(request: Any, name: str, text: str) -> None:
    _declare(request, name, "BYTES", (1, 1))
    data = text.encode()
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)


def _add_words(request: Any, name: str, words: Sequence[Sequence[int]]) -> None:
    """TensorRT-LLM's word list: all ids in one row, the end offset of each word in the other."""
    ids = [token for word in words for token in word]
    ends, end = [], 0
    for word in words:
        end += len(word)
        ends.append(end)
    ends += [-1] * (len(ids) - len(ends))
    _declare(request, name, "INT32", (1, 2, len(ids)))
    request.raw_input_contents.append(struct.pack(f"<{2 * len(ids)}i", *ids, *ends))


def _figures(outputs: Mapping[str, bytes]) -> EngineFigures:
    started = _long(outputs.get("first_scheduled_time_ns"))
    ended = _long(outputs.get("last_token_time_ns"))
    reused = outputs.get("kv_cache_reused_blocks")
    return EngineFigures(
        engine_seconds=(ended - started) / 1e9 if started and ended else None,
        reused_prompt_tokens=_integer(reused) * TOKENS_PER_BLOCK if reused else None,
    )


def _integer(raw: bytes | None) -> int:
    return cast("int", struct.unpack_from("<i", raw)[0]) if raw else 0


def _long(raw: bytes | None) -> int:
    return cast("int", struct.unpack_from("<q", raw)[0]) if raw else 0


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
