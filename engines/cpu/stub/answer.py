"""What has been generated for a request and not been sent: merged until it is due.

Triton's Python backend carries a few thousand responses a second, fewer than small models make
tokens. So tokens that have piled up travel together, while the first one of an answer and its
end never wait.

State per request; time is an argument, in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cpu.messages import End, Progress
from engines.cpu.request import Generation

Payload = Mapping[str, npt.NDArray[Any]]


class Answer:
    """One answer on its way. `arrival_ns` is when the request came, monotonic nanoseconds."""

    def __init__(self, generation: Generation, arrival_ns: int) -> None:
        self.generation = generation
        self.output_tokens = 0
        self.end: End | None = None
        self._arrival_ns = arrival_ns
        self._tokens: list[int] = []
        self._log_probs = _LogProbs()
        self._sent_at = 0.0

    def add(self, progress: Progress) -> None:
        """Take what the engine generated."""
        self._tokens += progress.tokens
        self._log_probs.add(progress.log_probs)
        self.output_tokens += len(progress.tokens)
        self.end = progress.end

    @property
    def refused(self) -> bool:
        """Whether it ended with an error before anything of it ran."""
        return (
            self.end is not None and self.end.error is not None and not self.end.first_scheduled_ns
        )

    def due_at(self, interval: float) -> float | None:
        """When to send; None while there is nothing to.

        `interval` is the least time between two responses of one answer.
        """
        if self.end:
            return 0.0
        if not self._tokens or not self.generation.streaming:
            return None
        return self._sent_at + interval if self._sent_at else 0.0

    def take(self, now: float) -> Payload:
        """The tensors of the next response, in wire shapes, a batch of one in front."""
        generation = self.generation
        tokens, self._tokens = self._tokens, []
        self._sent_at = now
        shown = [*generation.prompt, *tokens] if generation.echo_prompt else tokens
        payload: dict[str, npt.NDArray[Any]] = {
            "output_ids": np.array([[shown]], np.int32),
            "sequence_length": np.array([[len(shown)]], np.int32),
        }
        if generation.log_probs:
            # Tokens are those of this response, log-probs of all so far: as TensorRT-LLM has it.
            payload["output_log_probs"] = self._log_probs.so_far()
            payload["cum_log_probs"] = np.array([[self._log_probs.total]], np.float32)
        if generation.num_input_tokens:
            payload["num_input_tokens"] = np.array([[len(generation.prompt)]], np.int32)
        if generation.num_output_tokens:
            # Of this response, not in all: as TensorRT-LLM counts.
            payload["num_output_tokens"] = np.array([[len(tokens)]], np.int32)
        if generation.perf_metrics and self.end:
            payload |= self._figures(self.end)
        return payload

    def _figures(self, end: End) -> Payload:
        """When things happened and how many blocks it took; what never happened is left out."""
        times = {
            "arrival_time_ns": self._arrival_ns,
            "first_scheduled_time_ns": end.first_scheduled_ns,
            "first_token_time_ns": end.first_token_ns,
            "last_token_time_ns": end.last_token_ns,
        }
        blocks = {
            "kv_cache_alloc_new_blocks": max(0, end.total_blocks - end.reused_blocks),
            "kv_cache_reused_blocks": end.reused_blocks,
            "kv_cache_alloc_total_blocks": end.total_blocks,
        }
        figures = {name: np.array([[at]], np.int64) for name, at in times.items() if at}
        if end.first_scheduled_ns:
            figures |= {name: np.array([[count]], np.int32) for name, count in blocks.items()}
        return figures


class _LogProbs:
    """The log-probs of all tokens so far, each turned into a number of the tensor's once."""

    def __init__(self) -> None:
        self.total = 0.0
        self._count = 0
        self._values = np.empty(0, np.float32)

    def add(self, fresh: Sequence[float]) -> None:
        """Append those of the next tokens."""
        count = self._count + len(fresh)
        if count > len(self._values):
            # Copied, not resized in place: a view that was given away keeps what it had.
            grown = np.empty(max(64, 2 * count), np.float32)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : count] = fresh
        self._count = count
        self.total += sum(fresh)

    def so_far(self) -> npt.NDArray[np.float32]:
        """All of them, [1, 1, tokens]: a view, which later ones do not change."""
        return self._values[: self._count].reshape(1, 1, -1)
