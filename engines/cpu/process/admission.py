"""Who may run: first come, first served, each with all the KV-cache it could ever need.

The pipeline itself preempts and stalls when its cache runs full, and fails whole batches when
one request cannot fit. So a request enters only once its worst case is reserved, and the
pipeline never sees pressure. A request at the head that does not fit yet holds back the ones
behind it: small requests cannot starve a large one.

State per engine, no I/O, no time.
"""

from __future__ import annotations

from collections import OrderedDict


class QueueFullError(Exception):
    """As many requests wait as may. The text is TensorRT-LLM's own."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"Maximum queue size of {limit} has been reached, please try again later")


def failure(key: int, reason: object) -> str:
    """TensorRT-LLM's words for a request that the executor could not run."""
    # The pipeline's errors are several lines, where in its source first, the reason last.
    last_line = str(reason).strip().rpartition("\n")[2] or "unknown"
    return f"Executor failed process requestId {key} due to the following error: {last_line}"


def blocks_needed(prompt_tokens: int, new_tokens: int, block_size: int) -> int:
    """KV-cache blocks that a request fills when it runs to its last token."""
    return -(-(prompt_tokens + new_tokens) // block_size)


class Admission:
    """Places and KV-cache blocks of one engine.

    `total_blocks` and `max_batch` bound what runs, `max_queue_size` what waits (0: no bound).
    """

    def __init__(self, total_blocks: int, max_batch: int, max_queue_size: int) -> None:
        self.total_blocks = total_blocks
        self.max_batch = max_batch
        self.max_queue_size = max_queue_size
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._running: dict[int, int] = {}
        self._used = 0

    @property
    def used_blocks(self) -> int:
        """Blocks reserved by what runs."""
        return self._used

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._running)

    def offer(self, key: int, blocks: int) -> None:
        """Lines a request up. Raises `QueueFullError`, or `ValueError` if it can never fit."""
        if key in self._waiting or key in self._running:
            raise ValueError(f"request {key} is here already")
        if blocks > self.total_blocks:
            raise ValueError(f"needs {blocks} KV-cache blocks, the engine has {self.total_blocks}")
        # Whoever could start at once is not queued, whatever the bound.
        starts_now = not self._waiting and self._fits(blocks)
        if not starts_now and 0 < self.max_queue_size <= len(self._waiting):
            raise QueueFullError(self.max_queue_size)
        self._waiting[key] = blocks

    def admit(self) -> list[int]:
        """Moves from the head of the line what fits now; returns it in order."""
        admitted = []
        while self._waiting:
            key, blocks = next(iter(self._waiting.items()))
            if not self._fits(blocks):
                break
            del self._waiting[key]
            self._running[key] = blocks
            self._used += blocks
            admitted.append(key)
        return admitted

    def withdraw(self, key: int) -> bool:
        """Takes a request out of the line; false if it does not wait."""
        return self._waiting.pop(key, None) is not None

    def release(self, key: int) -> None:
        """Gives back the place and the blocks of a request that ran. Raises `KeyError`."""
        self._used -= self._running.pop(key)

    def _fits(self, blocks: int) -> bool:
        return len(self._running) < self.max_batch and self._used + blocks <= self.total_blocks
