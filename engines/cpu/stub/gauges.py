"""The metric families of TensorRT-LLM's backend, from this engine's own accounting.

Names and labels are those of the C++ backend, so one dashboard and one scaler read both. What
the CPU engine cannot know (memory of devices, disaggregated transfer) is not published.
"""

from __future__ import annotations

import time
from typing import Any

from engines.cpu.messages import Census
from engines.cpu.settings import Settings

_FAMILIES = {
    "nv_trt_llm_request_metrics": (
        "request_type",
        "Requests in the engine; waiting ones have no place in the batch yet",
        ("active", "max", "scheduled", "context", "waiting"),
    ),
    "nv_trt_llm_kv_cache_block_metrics": (
        "kv_cache_block_type",
        "KV-cache blocks; used ones are reserved by running requests, reused is an estimate",
        ("max", "free", "used", "tokens_per", "reused", "fraction"),
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        "The running batch; total_context_tokens are those of prompts that are being read",
        ("total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"),
    ),
    "nv_trt_llm_general_metrics": (
        "general_type",
        "When the engine last made a step, microseconds since 1970, and how many it made",
        ("timestamp", "iteration_counter"),
    ),
}
_LENGTHS = {
    "nv_llm_input_token_len": ("total_input_tokens", "Prompt tokens of requests that ended"),
    "nv_llm_output_token_len": (
        "total_output_tokens",
        "Tokens made for requests that ended, sent or not",
    ),
}
_LENGTH_BUCKETS = [10, 50, 100, 500, 1000]


class Gauges:
    """The metrics of one model. `backend` is Triton's `triton_python_backend_utils`."""

    def __init__(
        self, backend: Any, model: str, version: str, settings: Settings, block_size: int
    ) -> None:
        labels = {"model": model, "version": version}
        self._settings = settings
        self._families: list[Any] = []  # Triton drops the metrics of a family nobody holds
        self._metrics: dict[tuple[str, str], Any] = {}
        self._values: dict[tuple[str, str], float] = {}
        for name, (label, description, kinds) in _FAMILIES.items():
            family = backend.MetricFamily(
                name=name, description=description, kind=backend.MetricFamily.GAUGE
            )
            self._families.append(family)
            for kind in kinds:
                self._metrics[name, kind] = family.Metric(labels={**labels, label: kind})
        self._lengths = []
        for name, (kind, description) in _LENGTHS.items():
            family = backend.MetricFamily(
                name=name, description=description, kind=backend.MetricFamily.HISTOGRAM
            )
            self._families.append(family)
            self._lengths.append(
                family.Metric(
                    labels={**labels, "response_metric_type": kind}, buckets=_LENGTH_BUCKETS
                )
            )
        self._set("nv_trt_llm_request_metrics", max=settings.max_batch)
        self._set(
            "nv_trt_llm_kv_cache_block_metrics",
            max=settings.kv_cache_blocks,
            tokens_per=block_size,
        )
        self.publish(Census(), 0)

    def publish(self, census: Census, active: int) -> None:
        """Publish what changed. `active` counts all requests that have come and not ended."""
        blocks = self._settings.kv_cache_blocks
        scheduled = min(census.running, active)
        self._set(
            "nv_trt_llm_request_metrics",
            active=active,
            scheduled=scheduled,
            context=min(census.in_context, active),
            waiting=active - scheduled,
        )
        self._set(
            "nv_trt_llm_kv_cache_block_metrics",
            free=blocks - census.used_blocks,
            used=census.used_blocks,
            reused=census.reused_blocks,
            fraction=census.used_blocks / blocks,
        )
        self._set(
            "nv_trt_llm_inflight_batcher_metrics",
            total_context_tokens=census.context_tokens,
            generation_requests=census.running - census.in_context,
            micro_batch_id=0,  # there is one
            paused_requests=0,  # admission never lets the pipeline pause any
        )
        general = "nv_trt_llm_general_metrics"
        if census.iterations != self._values.get((general, "iteration_counter")):
            self._set(general, timestamp=int(time.time() * 1e6))
        self._set(general, iteration_counter=census.iterations)

    def observe(self, input_tokens: int, output_tokens: int) -> None:
        """Count the lengths of a request that ended."""
        for metric, tokens in zip(self._lengths, (input_tokens, output_tokens), strict=True):
            metric.observe(tokens)

    def _set(self, family: str, **values: float) -> None:
        # Each set is a round trip to the server with the interpreter lock held.
        for kind, value in values.items():
            if self._values.get((family, kind)) != value:
                self._values[family, kind] = value
                self._metrics[family, kind].set(value)
