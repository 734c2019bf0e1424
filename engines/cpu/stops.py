"""Stop sequences of several tokens, found while the tokens stream.

Single stop tokens are the pipeline's own business. A token that may be the beginning of a stop
sequence is held back until it is clear that it is not, so that no part of a stop sequence is
ever sent.

Sequences match as token ids, here as in TensorRT-LLM. A text that the model spells with other
tokens than its tokenizer would, or whose ends lie inside tokens, is not found: the request runs
on, and whoever reads the text ends it.

State per request.
"""

from __future__ import annotations

from collections.abc import Sequence

Word = tuple[int, ...]


class StopMatcher:
    """Looks for `words` in one answer, each a sequence of token ids."""

    def __init__(self, words: Sequence[Word]) -> None:
        self._words = tuple(words)
        self._held: list[int] = []

    def feed(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """Take the next tokens; return those safe to send and whether a stop sequence is complete.

        After that no more tokens may be fed.
        """
        safe: list[int] = []
        for token in tokens:
            self._held.append(token)
            for word in self._words:
                if len(word) <= len(self._held) and tuple(self._held[-len(word) :]) == word:
                    safe += self._held[: -len(word)]
                    self._held.clear()
                    return safe, True
            keep = self._open_tail()
            release = len(self._held) - keep
            safe += self._held[:release]
            del self._held[:release]
        return safe, False

    def flush(self) -> list[int]:
        """What is still held, once the answer is over for another reason."""
        held, self._held = self._held, []
        return held

    def _open_tail(self) -> int:
        """Length of the longest end of what is held that begins a stop sequence."""
        longest = 0
        for word in self._words:
            for length in range(min(len(word) - 1, len(self._held)), longest, -1):
                if tuple(self._held[-length:]) == word[:length]:
                    longest = length
                    break
        return longest
