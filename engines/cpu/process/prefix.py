"""Which part of a prompt the pipeline finds in its KV-cache: an estimate.

OpenVINO GenAI reuses cached blocks but does not say how many. This keeps track of what the
pipeline would keep: a hash for each block that covers all tokens up to its end, the last block
also when it is only partly full, least recently used out first. It has matched timing in
sequential runs, but it does not know which physical block was overwritten under pressure, so
its counts are estimates and are published as such.

State per engine, no I/O, no time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixEstimate:
    """What a prefix cache of `capacity` blocks of `block_size` tokens would hold."""

    def __init__(self, capacity: int, block_size: int) -> None:
        self._capacity = capacity
        self._block_size = block_size
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def reused_blocks(self, prompt: Sequence[int]) -> int:
        """How many blocks of the prompt are cached, a partly filled last one included."""
        reused = 0
        chain = 0
        for start in range(0, len(prompt), self._block_size):
            block = tuple(prompt[start : start + self._block_size])
            whole = hash((chain, block))
            if len(block) == self._block_size and whole in self._blocks:
                self._blocks.move_to_end(whole)
                reused += 1
                chain = whole
                continue
            return reused + self._tail_is_cached(chain, block)
        return reused

    def _tail_is_cached(self, chain: int, block: tuple[int, ...]) -> int:
        for length in range(len(block), 0, -1):
            tail = hash((chain, block[:length]))
            if tail in self._blocks:
                self._blocks.move_to_end(tail)
                return 1
        return 0

    def remember(self, tokens: Sequence[int]) -> None:
        """Notes that the KV-cache of these tokens, from the first one, now exists."""
        chain = 0
        for start in range(0, len(tokens), self._block_size):
            chain = hash((chain, tuple(tokens[start : start + self._block_size])))
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
