"""TensorRT-LLM's `tensorrt_llm` model as tensors: what a request sends and what comes back.

Token ids in, delta token ids out, ended by the parameter ``triton_final_response``. The contract,
quirks included, is that of TensorRT-LLM 1.2; this file knows no connection (see `triton`).
"""

import hashlib
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from tritonclient.grpc import service_pb2

from services.common.errors import BadRequest, InternalError, Overloaded, Violation
from services.common.lengths import is_length_refusal
from services.router.policy.routes import Tier
from services.router.ports import (
    EngineFigures,
    EngineRequest,
    ReplicaFailed,
    TierText,
)

FULL = ("Exceeds maximum queue size", "Maximum queue size of", "guides cannot be tried now")
"""Messages that say: no room now, though nothing is wrong; another replica may have some."""

DOUBTED = ("its guide may be why",)
"""Messages that say: not here, where it may be what makes others wait."""

NOT_READY = ("Server is stopping", "not at ready state", "no available versions")
"""Messages that say: this replica takes no work; another one may do."""

LOST = ("shutting down",)
"""Messages that say: this replica is in trouble, in the middle of its work or before it."""

SILENT = ("is not healthy", "the engine said nothing")
"""Messages that say: what computes there does not answer, and may not have for long."""

DIED = ("Stub process", "engine process")
"""Messages that say: what computes there has died."""

_FAILURES: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = (
    (FULL, {"lost": False}),
    (DOUBTED, {"lost": False, "lasting": True}),
    (NOT_READY, {"lost": True, "refused": True}),
    (SILENT, {"lost": True, "silent": True}),
    (DIED, {"lost": True, "died": True}),
    (LOST, {"lost": True}),
)

FORMS = "wait for their guides"
"""Message that says: the tenant has too many new forms under way, here and so elsewhere."""

BAD_INPUT = ("Invalid request", "INVALID_ARGUMENT", "unexpected shape", "unexpected datatype")
"""Messages that say: no replica can serve this request."""

_GUIDE = "guided_decoding_guide"
SOURCE = "pennyweight_source"
"""Parameter that tells requests of one tenant from those of others; not TensorRT-LLM's."""

_SOURCE_DIGITS = 16

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

LOG_PROBS = "output_log_probs"

TOKENS_PER_BLOCK = 32
"""KV block size that engines are built with unless told otherwise."""


def classify(message: str) -> Exception:
    """Our error for a message of Triton's or the engine's."""
    for messages, kind in _FAILURES:
        if any(known in message for known in messages):
            return ReplicaFailed(message, **kind)
    if is_length_refusal(message):
        # Nothing is sent that its tier does not promise to take: the replica keeps no promise.
        why = f"the replica takes less than its tier: {message[:200]}"
        return ReplicaFailed(why, lost=False, lasting=True)
    if FORMS in message:
        return Overloaded(
            "too many requests of this tenant wait for an engine to try their forms",
            reason="NEW_FORMS",
            retry_after_seconds=1.0,
        )
    if any(known in message for known in BAD_INPUT):
        where = "prompt.response_format" if _GUIDE in message else "prompt"
        return BadRequest.of(Violation(where, f"the engine refuses it: {message[:200]}"))
    return InternalError(f"the replica failed: {message[:200]}", reason="ENGINE_FAILED")


class Encoder:
    """Makes requests for a tier's replicas."""

    def __init__(self, tier: Tier, text: TierText) -> None:
        self._skeleton = _skeleton(tier.model)
        self._ends = struct.pack("<i", text.end_id), struct.pack("<i", text.pad_id)

    def request(self, wanted: EngineRequest, name: str) -> service_pb2.ModelInferRequest:
        """The tensors of a request; `name` is its id on the replica."""
        prompt, asked = wanted.prompt.tokens, wanted.asked
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(self._skeleton)
        request.id = name
        request.inputs[0].shape[1] = len(prompt)
        request.raw_input_contents.extend(
            (
                struct.pack(f"<{len(prompt)}i", *prompt),
                struct.pack("<i", len(prompt)),
                struct.pack("<i", wanted.max_output_tokens),
                *self._ends,
                b"\1" if wanted.streaming else b"\0",
                b"\1",
                b"\1",
                struct.pack("<f", asked.temperature or 1.0),
                # Greedy is the most likely token alone: TensorRT-LLM has no temperature of 0.
                struct.pack("<i", 1 if asked.temperature == 0 else asked.top_k),
                struct.pack("<f", asked.top_p),
                struct.pack("<Q", random.getrandbits(63) if asked.seed is None else asked.seed),
            )
        )
        if wanted.log_probs:
            _declare(request, "return_log_probs", "BOOL", (1, 1))
            request.raw_input_contents.append(b"\1")
            request.outputs.add().name = LOG_PROBS
        if asked.stop:
            words = [wanted.text.encode_plain(stop) for stop in asked.stop]
            _add_words(request, "stop_words_list", words)
        if asked.guide is not None:
            # Engines determinise expressions in the loop that serves all, and keep half a schema.
            _add_text(request, f"{_GUIDE}_type", "ebnf_grammar")
            _add_text(request, _GUIDE, asked.grammar)
            source = hashlib.sha256(wanted.tenant.encode()).hexdigest()[:_SOURCE_DIGITS]
            request.parameters[SOURCE].string_param = source
        return request

    def stop(self, request_id: str) -> service_pb2.ModelInferRequest:
        """The request that ends a running one of that id on the same replica."""
        request = service_pb2.ModelInferRequest(model_name=self._skeleton.model_name, id=request_id)
        for name in ("input_ids", "input_lengths", "request_output_len"):
            _declare(request, name, "INT32", (1, 1))
            request.raw_input_contents.append(struct.pack("<i", 1))
        _declare(request, "stop", "BOOL", (1, 1))
        request.raw_input_contents.append(b"\1")
        for name in OUTPUTS[:2]:
            request.outputs.add().name = name
        return request


class Chunk(NamedTuple):
    """What one message brings.

    Attributes:
        tokens: new ones.
        final: nothing comes after this.
        figures: at the end.
        log_probs: of all tokens of the answer so far as they came, where they were asked for.
        bare: it has no tensors at all, as the reply to a ``stop``.
    """

    tokens: Sequence[int]
    final: bool
    figures: EngineFigures | None = None
    log_probs: bytes | None = None
    bare: bool = False


def decode(message: service_pb2.ModelStreamInferResponse) -> Chunk:
    """What a message brings.

    Raises:
        ReplicaFailed: an error after which another replica may be tried.
        ServiceError: any other error. Both end the request.
    """
    if message.error_message:
        raise classify(message.error_message)
    response = message.infer_response
    final = response.parameters["triton_final_response"].bool_param
    ids = log_probs = None
    length = 0
    others: dict[str, bytes] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        name = output.name
        if name == "output_ids":
            ids = raw
        elif name == "sequence_length":
            length = _integer(raw)
        elif name == LOG_PROBS:
            log_probs = raw
        else:
            others[name] = raw
    tokens = struct.unpack_from(f"<{length}i", ids) if ids and length else ()
    if not final:
        return Chunk(tokens, final=False, log_probs=log_probs)
    return Chunk(
        tokens,
        final=True,
        figures=_figures(others),
        log_probs=log_probs,
        bare=not response.outputs,
    )


def unpack_log_probs(raw: bytes, most: int) -> Sequence[float] | None:
    """The first log-probabilities of a list as it came; None where it has fewer.

    Unpacked only when somebody asks: each message brings the whole list so far.
    """
    if len(raw) < 4 * most:
        return None
    return struct.unpack_from(f"<{most}f", raw)


def _skeleton(model: str) -> service_pb2.ModelInferRequest:
    """What all requests to a model have in common, built once."""
    request = service_pb2.ModelInferRequest(model_name=model)
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


_INT32 = struct.Struct("<i")


def _integer(raw: bytes | None) -> int:
    return cast("int", _INT32.unpack_from(raw)[0]) if raw else 0


def _long(raw: bytes | None) -> int:
    return cast("int", struct.unpack_from("<q", raw)[0]) if raw else 0
