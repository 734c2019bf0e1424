"""What steps take that follow no guide, learnt from those that do not: the rest is the guides'.

State per engine; times are nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

_SHORT = 4
"""A step that reads less than this part of what it may tells no more than one that reads that."""

_MARGIN = 2
"""So many times what reading took may it take, and what answering took."""

_KEPT = 0.9
"""Of what reading took at most, after each step that tells anew."""

_LATEST = 16
"""Over about so many steps goes the mean of what answering takes."""


class Reading:
    """What reading prompts takes of a step, learnt from steps that follow no guide.

    `at_once` tokens are read in a step at most; `first_ns` is taken for what that takes until more
    is known, `most_ns` bounds it.
    """

    def __init__(self, at_once: int, first_ns: int, most_ns: int) -> None:
        self._at_once = at_once
        self._full_ns = float(first_ns)
        self._most_ns = most_ns

    def learn(self, step_ns: int, tokens: int) -> None:
        """A step took so long that read so many tokens and followed no guide."""
        full = step_ns * self._at_once / max(tokens, self._at_once / _SHORT)
        self._full_ns = min(self._most_ns, max(full, self._full_ns * _KEPT))

    def allowed(self, tokens: int) -> int:
        """What a step may take for reading so many tokens."""
        return int(_MARGIN * self._full_ns * min(1.0, tokens / self._at_once))


class Answering:
    """What a step takes that makes a token for each of `answers`, which look back on `context`.

    That is no more than proportional to both, so each step says something of every other. Those
    that follow guides, or choose their tokens in ways that take more, say how much it is at most.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[int, int], float] = {}  # by the sizes of answers and context
        self._most: dict[tuple[int, int], int] = {}

    def learn(self, step_ns: int, answers: int, context: int) -> None:
        """A step took so long that read no prompt and did nothing else."""
        cell = answers.bit_length(), context.bit_length()
        mean = self._means.get(cell, step_ns)
        self._means[cell] = mean + (step_ns - mean) / _LATEST

    def bound(self, step_ns: int, answers: int, context: int) -> None:
        """A step took so long that read no prompt and did something else as well."""
        cell = answers.bit_length(), context.bit_length()
        self._most[cell] = min(step_ns, self._most.get(cell, step_ns))

    def allowed(self, answers: int, context: int) -> int:
        """What such a step may take; 0 where nothing is known of any."""
        return self._allowed(answers, context, {**self._most, **self._means})

    def usual(self, answers: int, context: int) -> int:
        """What it may take by those alone that did nothing else; 0 where there were none."""
        return self._allowed(answers, context, self._means)

    def _allowed(self, answers: int, context: int, known: Mapping[tuple[int, int], float]) -> int:
        cell = answers.bit_length(), context.bit_length()
        mean = self._means.get(cell)
        if mean is None:
            mean = min((ns * _times(cell, other) for other, ns in known.items()), default=0.0)
        return int(_MARGIN * mean)


def _times(cell: tuple[int, int], other: tuple[int, int]) -> int:
    """How many times as much a step of one size takes as one of another, at most."""
    return 1 << max(0, cell[0] - other[0], cell[1] - other[1])
