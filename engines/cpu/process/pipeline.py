"""OpenVINO GenAI behind the engine's `Pipeline` port; what guides need of it is `guided.py`'s."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from engines.cpu.process.choosing import measured
from engines.cpu.process.guided import (
    NoVocabularyError,
    structured_output,
    tokenizer_of,
)
from engines.cpu.process.probe import Probe
from engines.cpu.request import Generation, Guide, Limits
from engines.cpu.settings import Settings

BLOCK_TOKENS = 32  # the CPU plugin's paged attention knows no other block

_RUNNING = genai.GenerationStatus.RUNNING
_IGNORED = genai.GenerationStatus.IGNORED


class LoadError(Exception):
    """The model cannot be served; the text names the folder and the reason."""


class OpenVinoHandle:
    """A request inside the continuous-batching pipeline."""

    def __init__(self, handle: Any, *, log_probs: bool) -> None:
        self._handle = handle
        self._log_probs = log_probs

    def read(self) -> tuple[list[int], list[float]]:
        """Tokens since the last call and their log-probs.

        Those are the model's own: over the whole vocabulary, before temperature, penalties and
        guides. OpenVINO reckons them in single precision, so that one within about 2e-6 of
        certain comes as 0.0; a 0.0 never stands for one that is not known.
        """
        tokens: list[int] = []
        log_probs: list[float] = []
        # read() blocks for ever when there is nothing to read.
        while self._handle.can_read():
            for output in self._handle.read().values():
                tokens += output.generated_ids
                if self._log_probs:
                    log_probs += output.generated_log_probs
        return tokens, log_probs

    def running(self) -> bool:
        """Whether more tokens can come."""
        return bool(self._handle.get_status() == _RUNNING)

    def failed(self) -> bool:
        """Whether the pipeline gave the request up for want of KV-cache."""
        return bool(self._handle.get_status() == _IGNORED)

    def cancel(self) -> None:
        """End it."""
        self._handle.cancel()


class OpenVinoPipeline:
    """A loaded model. Raises `LoadError`.

    Attributes:
        limits: what it allows.
        no_guides: why it can follow none; empty if it can.
        choosing_ns: what choosing a token takes at most, beyond taking the likeliest.
    """

    def __init__(self, weights: Path, settings: Settings) -> None:
        config = _read_json(weights / "config.json")
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": settings.num_threads,
            # Pinned threads of two replicas with one thread each land on the same core.
            "ENABLE_CPU_PINNING": False,
        }
        if settings.inference_precision:
            properties["INFERENCE_PRECISION_HINT"] = settings.inference_precision
        if settings.kv_cache_precision:
            properties["KV_CACHE_PRECISION"] = settings.kv_cache_precision
        scheduler = _scheduler(settings)
        self.no_guides = ""
        self._tokenizer: Any = None
        try:
            try:
                self._tokenizer = tokenizer_of(weights)
                self._pipeline = genai.ContinuousBatchingPipeline(
                    str(weights), self._tokenizer, scheduler, "CPU", **properties
                )
            except NoVocabularyError as error:
                self.no_guides = f"guided decoding cannot use the model's tokenizer: {error}"
                self._pipeline = genai.ContinuousBatchingPipeline(
                    str(weights), scheduler, "CPU", properties
                )
            self._vocabulary = int(config.get("vocab_size") or _vocabulary_of(weights))
        except Exception as error:
            raise LoadError(f"{weights}: OpenVINO cannot load it: {error}") from error
        positions = int(config.get("max_position_embeddings") or 0)
        self.limits = Limits(
            vocabulary=self._vocabulary,
            max_seq_len=_max_seq_len(settings, positions),
            total_blocks=settings.kv_cache_blocks,
            block_size=BLOCK_TOKENS,
        )
        self._probe: Probe | None = None
        try:
            self._warm_up()
            self.choosing_ns = measured(self, settings.max_batch, time.process_time_ns)
        except Exception as error:
            raise LoadError(f"{weights}: it loads but cannot run: {error}") from error

    def _warm_up(self) -> None:
        """Generate a little, so that the first caller does not wait for kernels to be made."""
        handle = self.add(0, Generation(prompt=(0,) * BLOCK_TOKENS, max_new_tokens=2))
        while handle.running():
            self.step()
            handle.read()

    def add(self, key: int, generation: Generation) -> OpenVinoHandle:
        """Put a request into the batch; its guide is compiled. Raises what OpenVINO raises."""
        config = _generation_config(generation)
        if generation.guide:
            config.structured_output_config = structured_output(generation.guide)
        prompt = ov.Tensor(np.array([generation.prompt], dtype=np.int64))
        handle = self._pipeline.add_request(key, prompt, config)
        return OpenVinoHandle(handle, log_probs=generation.log_probs)

    def compile(self, guide: Guide) -> None:
        """Compile a guide, in any one thread beside the loop. Raises `InvalidRequestError`."""
        if self._probe is None:
            self._probe = Probe(self._tokenizer, self._vocabulary)
        self._probe.compile(guide)

    def step(self) -> None:
        """Advance every request by a token, or by a piece of its prompt."""
        self._pipeline.step()


def _scheduler(settings: Settings) -> Any:
    scheduler = genai.SchedulerConfig()
    # Room beyond what admission gives away: a request that starts inside a shared block needs a
    # copy of it for a moment.
    scheduler.num_kv_blocks = settings.kv_cache_blocks + settings.max_batch
    scheduler.max_num_seqs = settings.max_batch
    scheduler.max_num_batched_tokens = max(settings.max_batched_tokens, settings.max_batch)
    # Without it the pipeline crashes when its cache runs full.
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = settings.enable_kv_cache_reuse
    return scheduler


def _generation_config(generation: Generation) -> Any:
    sampling = generation.sampling
    config = genai.GenerationConfig(max_new_tokens=generation.max_new_tokens)
    config.apply_chat_template = False
    config.logprobs = 1 if generation.log_probs else 0
    config.repetition_penalty = sampling.repetition_penalty
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    config.min_new_tokens = sampling.min_tokens
    config.do_sample = not sampling.greedy
    if not sampling.greedy:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k:
            config.top_k = sampling.top_k
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        config.rng_seed = seed

    ends = {word[0] for word in generation.stop_words if len(word) == 1}
    if generation.end_id is not None:
        ends.add(generation.end_id)
    if ends:
        # The end token must be one of them, or the model's own default comes back.
        end_id = generation.end_id
        config.eos_token_id = min(ends) if end_id is None else end_id
        config.stop_token_ids = ends
    else:
        config.ignore_eos = True
    return config


def _max_seq_len(settings: Settings, positions: int) -> int:
    """The configured length, never more than the model's positions; the cache without either."""
    wanted = settings.max_seq_len or positions or settings.kv_cache_blocks * BLOCK_TOKENS
    return min(wanted, positions) if positions else wanted


def _vocabulary_of(weights: Path) -> int:
    model = ov.Core().read_model(weights / "openvino_model.xml")
    return int(model.output("logits").partial_shape[2].get_length())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path}: cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise LoadError(f"{path}: is not a JSON object")
    return loaded
