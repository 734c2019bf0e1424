"""What config.pbtxt says about the engine: the `parameters` of a model folder, read once.

Every parameter is a string there. A value that does not parse stops the load with its key,
the rule and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any


class SettingsError(ValueError):
    """A parameter of config.pbtxt is missing or has no meaning."""


@dataclass(frozen=True)
class Settings:
    """Parameters of config.pbtxt; names and defaults are these.

    `model`: folder with an OpenVINO IR (absolute, or relative to the model's folder), or a
    Hugging Face name such as `org/name`.
    `num_threads`: threads of the pipeline; one replica is one slot of that many cores.
    `kv_cache_blocks`: KV-cache size in blocks of 32 tokens; memory is touched as it is used.
    `max_batch`: requests that run at the same time; others wait for a place.
    `max_queue_size`: requests that may wait; 0 means no bound, as in TensorRT-LLM.
    `max_seq_len`: longest prompt plus answer, tokens; 0 means what the model was made for.
    `max_batched_tokens`: tokens per step, so a long prompt is read in pieces of at most this.
    `inference_precision`: `f32` keeps seeded answers the same in any batch; `bf16` is faster
    where the processor has matrix units, empty lets OpenVINO choose.
    `kv_cache_precision`: `u8`, `f16`, `bf16`, `f32`, or empty for OpenVINO's choice.
    `enable_kv_cache_reuse`: keep the KV-cache of earlier prompts for requests that start alike.
    `exclude_input_in_output`: the default for requests that do not send that tensor.
    `normalize_log_probs`: only false; the engine gives log-probs over the whole vocabulary.
    `cancellation_check_period_ms`: how often each request is checked for a caller who left.
    `stats_check_period_ms`: how often the metrics are published while requests run.
    `max_guide_ms`: processor time that compiling a guide may take; 1 % of it is what a token of a
    long answer may on average, a fifth what any may. Guides that take more are refused. 1 % is
    also what all guides of a step may take together: others wait; where one's tokens take 5 % in
    earnest, its answers are ended, and so are some where steps take half of it on average. A step
    of 2.5 times more ends the engine process. A source whose guides took 5 times as much beyond
    that 1 % in ten minutes has no new ones tried.
    `max_guide_memory_mb`: what compiled guides may keep in memory, in MiB, an eighth of it each;
    then the engine process is replaced, while the old one ends what it runs. A source that filled
    more than half of it in ten minutes has no new ones tried, by the next process neither.
    `max_silence_ms`: an engine process that says nothing for so long, as in a step that reads a
    long prompt, is killed and replaced; after a quarter of it the replica is not taken for ready.
    `max_responses_per_second`: when more would be due, tokens travel together instead.
    """

    model: str
    num_threads: int = 1
    kv_cache_blocks: int = 1024
    max_batch: int = 64
    max_queue_size: int = 0
    max_seq_len: int = 0
    max_batched_tokens: int = 256
    inference_precision: str = "f32"
    kv_cache_precision: str = ""
    enable_kv_cache_reuse: bool = True
    exclude_input_in_output: bool = False
    normalize_log_probs: bool = False
    cancellation_check_period_ms: int = 50
    stats_check_period_ms: int = 100
    max_guide_ms: int = 1000
    max_guide_memory_mb: int = 256
    max_silence_ms: int = 20_000
    max_responses_per_second: int = 1000


_MINIMUM = {
    "num_threads": 1,
    "kv_cache_blocks": 1,
    "max_batch": 1,
    "max_queue_size": 0,
    "max_seq_len": 0,
    "max_batched_tokens": 32,
    "cancellation_check_period_ms": 1,
    "stats_check_period_ms": 10,
    "max_guide_ms": 10,
    "max_guide_memory_mb": 32,
    "max_silence_ms": 8000,
    "max_responses_per_second": 1,
}
_CHOICES = {
    "inference_precision": ("", "f32", "bf16", "f16"),
    "kv_cache_precision": ("", "u8", "f16", "bf16", "f32"),
}


def from_parameters(parameters: Mapping[str, str]) -> Settings:
    """Settings from the `parameters` of config.pbtxt, as key to string. Raises `SettingsError`."""
    known = {field.name: field.type for field in fields(Settings)}
    for key in parameters:
        if key not in known:
            raise SettingsError(f"parameters[{key!r}] is not a parameter of this engine")
    if not parameters.get("model"):
        raise SettingsError("parameters['model'] must name a folder or a Hugging Face model")
    readers: dict[str, Callable[[str, str], Any]] = {"int": _integer, "bool": _boolean}
    values = {
        key: readers.get(str(known[key]), _text)(key, text.strip())
        for key, text in parameters.items()
    }
    settings = Settings(**values)
    if settings.normalize_log_probs:
        raise SettingsError(
            "parameters['normalize_log_probs'] must be false: the engine cannot normalise"
        )
    return settings


def _integer(key: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise SettingsError(f"parameters[{key!r}] must be a whole number, not {text!r}") from None
    if value < _MINIMUM[key]:
        raise SettingsError(f"parameters[{key!r}] must be at least {_MINIMUM[key]}, not {value}")
    return value


def _boolean(key: str, text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise SettingsError(f"parameters[{key!r}] must be true or false, not {text!r}")


def _text(key: str, text: str) -> str:
    if key in _CHOICES and text not in _CHOICES[key]:
        raise SettingsError(f"parameters[{key!r}] must be one of {_CHOICES[key]}, not {text!r}")
    return text
