"""A request's tensors, checked and turned into what the engine runs.

Pure: arrays in, a `Generation` or a `Stop` out. Everything that could upset the pipeline is
refused here, with a text that starts with `Invalid request: `; the pipeline fails whole
batches, not single requests.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from engines.cpu.stops import Word
from engines.cpu.tensors import REFUSED_INPUTS, REQUIRED_OUTPUTS

Tensors = Mapping[str, npt.NDArray[Any]]

INVALID_PREFIX = "Invalid request: "
Guide = tuple[str, str]
"""Kind and text of the form that an answer must have."""

GUIDE_TYPES = ("json", "json_schema", "regex", "ebnf_grammar")


@lru_cache(maxsize=64)  # one that waits is asked for again and again, and may be long
def guide_hash(guide: Guide) -> bytes:
    """By which a guide is known to be good, or bad."""
    return hashlib.sha256("\0".join(guide).encode(errors="surrogatepass")).digest()


@dataclass(frozen=True)
class Cost:
    """What a guide keeps in memory, in bytes, and what a token of its answers takes.

    `token_seconds` is of processor time, the mean of a long answer.
    """

    bytes: int
    token_seconds: float


class InvalidRequestError(ValueError):
    """The request cannot be run as it is; trying it elsewhere will not help."""

    def __init__(self, reason: str) -> None:
        super().__init__(INVALID_PREFIX + reason)


@dataclass(frozen=True)
class Limits:
    """What the loaded model allows: ids below `vocabulary`, tokens in all, KV-cache blocks."""

    vocabulary: int
    max_seq_len: int
    total_blocks: int
    block_size: int


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. `top_k` 0 means all tokens; `seed` None means a fresh one."""

    greedy: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    seed: int | None = None


@dataclass(frozen=True)
class Generation:
    """One answer to generate.

    `end_id` None means that no token ends it; `stop_words` are token sequences; `guide` is
    (type, text) of a grammar the answer must follow, `source` tells whose it is from others',
    `known_only` that the guide may run only if it has been tried already.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    end_id: int | None = None
    stop_words: tuple[Word, ...] = ()
    sampling: Sampling = Sampling()
    guide: Guide | None = None
    source: str = ""
    known_only: bool = False
    streaming: bool = False
    log_probs: bool = False
    perf_metrics: bool = False
    num_input_tokens: bool = False
    num_output_tokens: bool = False
    echo_prompt: bool = False


@dataclass(frozen=True)
class Stop:
    """Ends the running requests that carry the same request id."""


def parse(
    tensors: Tensors,
    requested_outputs: Collection[str],
    limits: Limits,
    *,
    exclude_input_by_default: bool = False,
) -> Generation | Stop:
    """Read a request's tensors as Triton hands them over. Raises `InvalidRequestError`.

    They have a leading batch dimension; scalars come as (1,).
    """
    read = _Reader(tensors)
    if read.flag("stop"):
        return Stop()

    for name in sorted(REFUSED_INPUTS.keys() & tensors.keys()):
        raise InvalidRequestError(f"{name} has no equivalent on the CPU engine")
    for name in ("return_context_logits", "return_generation_logits"):
        if read.flag(name):
            raise InvalidRequestError(f"{name}: logits cannot be had from the CPU engine")
    for name in ("beam_width", "num_return_sequences"):
        if read.integer(name, 1) != 1:
            raise InvalidRequestError(f"{name} must be 1 on the CPU engine")
    for name in REQUIRED_OUTPUTS:
        if name not in requested_outputs:
            raise InvalidRequestError(f"{name} must be among the requested outputs")

    prompt = _prompt(read, limits)
    end_id = _end_id(read, limits)
    guide = _guide(read)
    if guide and end_id is None:
        raise InvalidRequestError("guided_decoding_guide needs an end_id to end with")
    new_tokens = _new_tokens(read, len(prompt), limits)
    streaming = read.flag("streaming")
    excluded = read.flag("exclude_input_in_output", default=exclude_input_by_default)
    return Generation(
        prompt=prompt,
        max_new_tokens=new_tokens,
        end_id=end_id,
        stop_words=_stop_words(read, limits),
        sampling=_sampling(read),
        guide=guide,
        streaming=streaming,
        log_probs=read.flag("return_log_probs"),
        perf_metrics=read.flag("return_perf_metrics"),
        num_input_tokens=read.flag("return_num_input_tokens"),
        num_output_tokens=read.flag("return_num_output_tokens"),
        # A stream never repeats the prompt.
        echo_prompt=not streaming and not excluded,
    )


class _Reader:
    """Reads named tensors with a batch of one."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        for name, tensor in tensors.items():
            if tensor.shape and tensor.shape[0] != 1:
                raise InvalidRequestError(
                    f"{name}: the batch dimension must be 1, not {tensor.shape[0]}; "
                    "send one request for each prompt, they run as a batch"
                )

    def scalar(self, name: str) -> Any:
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        if tensor.size != 1:
            raise InvalidRequestError(f"{name} must be one value, not {tensor.size}")
        return tensor.reshape(-1)[0]

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.scalar(name)
        return default if value is None else bool(value)

    def integer(self, name: str, default: int, low: int | None = None) -> int:
        value = self.scalar(name)
        number = default if value is None else int(value)
        if low is not None and number < low:
            raise InvalidRequestError(f"{name} must be at least {low}, not {number}")
        return number

    def real(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        value = self.scalar(name)
        number = default if value is None else float(value)
        if not math.isfinite(number) or not low <= number <= high:
            raise InvalidRequestError(f"{name} must be from {low} to {high}, not {number}")
        return number


def _prompt(read: _Reader, limits: Limits) -> tuple[int, ...]:
    tensor = read.tensors.get("input_ids")
    if tensor is None or tensor.size == 0:
        raise InvalidRequestError("input_ids must hold at least one token")
    ids = tensor.reshape(-1)
    length = read.integer("input_lengths", 0, low=1)
    if length > ids.size:
        raise InvalidRequestError(f"input_lengths is {length}, input_ids holds {ids.size} tokens")
    ids = ids[:length]
    _check_ids("input_ids", ids, limits)
    return tuple(ids.tolist())


def _check_ids(name: str, ids: npt.NDArray[Any], limits: Limits) -> None:
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= limits.vocabulary:
        raise InvalidRequestError(
            f"{name} must be from 0 to {limits.vocabulary - 1}, "
            f"not {lowest if lowest < 0 else highest}"
        )


def _new_tokens(read: _Reader, prompt_tokens: int, limits: Limits) -> int:
    wanted = read.integer("request_output_len", 0, low=1)
    if prompt_tokens + wanted > limits.max_seq_len:
        raise InvalidRequestError(
            f"prompt length ({prompt_tokens}) plus request_output_len ({wanted}) exceeds "
            f"max_seq_len ({limits.max_seq_len})"
        )
    room = limits.total_blocks * limits.block_size
    if prompt_tokens + wanted > room:
        raise InvalidRequestError(
            f"prompt length ({prompt_tokens}) plus request_output_len ({wanted}) exceeds "
            f"the KV-cache ({room} tokens)"
        )
    return wanted


def _end_id(read: _Reader, limits: Limits) -> int | None:
    end_id = read.integer("end_id", -1, low=-1)
    if end_id >= limits.vocabulary:
        raise InvalidRequestError(
            f"end_id must be from -1 to {limits.vocabulary - 1}, not {end_id}"
        )
    return None if end_id == -1 else end_id


def _stop_words(read: _Reader, limits: Limits) -> tuple[Word, ...]:
    """[1, 2, N]: row 0 all words' ids in a row, row 1 where each word ends, padded with -1."""
    tensor = read.tensors.get("stop_words_list")
    if tensor is None or tensor.size == 0:
        return ()
    if tensor.shape[1:-1] != (2,):
        raise InvalidRequestError(
            f"stop_words_list must have the shape [1, 2, N], not {list(tensor.shape)}"
        )
    ids, ends = tensor[0]
    words: list[Word] = []
    start = 0
    for end in ends.tolist():
        if end < 0:
            break
        if not start < end <= ids.size:
            raise InvalidRequestError(
                f"stop_words_list: word {len(words)} ends at {end}, it starts at {start} "
                f"and there are {ids.size} ids"
            )
        _check_ids("stop_words_list", ids[start:end], limits)
        words.append(tuple(ids[start:end].tolist()))
        start = end
    return tuple(words)


def _sampling(read: _Reader) -> Sampling:
    """How tokens are drawn, as TensorRT-LLM reads it.

    Without top-k and top-p the best token wins; top-k 0 means all tokens, top-p 0 unset.
    """
    top_k = read.integer("runtime_top_k", 0, low=0)
    top_p = read.real("runtime_top_p", 0.0, 0.0, 1.0)
    temperature = read.real("temperature", 1.0, 0.0)
    drawn = (top_k > 1 or (top_k == 0 and top_p > 0.0)) and temperature > 0.0
    seed = read.scalar("seed")
    return Sampling(
        greedy=not drawn,
        temperature=temperature if drawn else 1.0,
        top_k=top_k,
        top_p=top_p or 1.0,
        repetition_penalty=read.real("repetition_penalty", 1.0, 1e-6),
        presence_penalty=read.real("presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=read.real("frequency_penalty", 0.0, -2.0, 2.0),
        min_tokens=read.integer("min_tokens", 0, low=0),
        seed=None if seed is None else int(seed),
    )


def _guide(read: _Reader) -> Guide | None:
    kind, text = (
        _string(name, read.scalar(name))
        for name in ("guided_decoding_guide_type", "guided_decoding_guide")
    )
    if kind is None and text is None:
        return None
    if kind not in GUIDE_TYPES:
        raise InvalidRequestError(
            f"guided_decoding_guide_type must be one of {', '.join(GUIDE_TYPES)}, not {kind!r}"
        )
    if kind != "json" and not text:
        raise InvalidRequestError("guided_decoding_guide must not be empty")
    if text and "\0" in text:  # what compiles it would end there
        raise InvalidRequestError("guided_decoding_guide must not hold the character NUL")
    return kind, text or ""


def _string(name: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{name} must be UTF-8") from None
