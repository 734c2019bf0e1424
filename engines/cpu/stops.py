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
    """Looks for `words` in one answer, each a sequence of token ids.

    A token takes a few steps for each word, however long words are and however much of them has
    come (Knuth, Morris, Pratt): its time is that of all answers of the engine.
    """

    def __init__(self, words: Sequence[Word]) -> None:
        self._words = [(word, _borders(word)) for word in words]
        self._come = [0] * len(words)  # how much of each word the tokens so far end with
        self._held: list[int] = []

    def feed(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """Take the next tokens; return those safe to send and whether a stop sequence is complete.

        After that no more tokens may be fed.
        """
        safe: list[int] = []
        come, held = self._come, self._held
        for token in tokens:
            held.append(token)
            for index, (word, borders) in enumerate(self._words):
                length = come[index]
                while length and word[length] != token:
                    length = borders[length - 1]
                length += word[length] == token
                if length == len(word):
                    safe += held[:-length]
                    held.clear()
                    return safe, True
                come[index] = length
            release = len(held) - max(come, default=0)
            safe += held[:release]
            del held[:release]
        return safe, False

    def flush(self) -> list[int]:
        """What is still held, once the answer is over for another reason."""
        held, self._held = self._held, []
        return held


def _borders(word: Word) -> tuple[int, ...]:
    """Of each beginning of a word: the longest shorter beginning that it ends with."""
    borders, length = [0], 0
    for token in word[1:]:
        while length and word[length] != token:
            length = borders[length - 1]
        length += word[length] == token
        borders.append(length)
    return tuple(borders)
