"""How the tokens of answers are chosen, and what that takes of a step at most.

What else answers take is learnt (`unguided`). This cannot be: it is many times as much where the
model finds many tokens alike, so who asks for answers decides about it, from one answer to the
next. A small figure would be taught before and somebody's guide be blamed for the rest. So it is
measured once, where all tokens are alike.

Times are nanoseconds of processor time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from statistics import median
from typing import Protocol

from engines.cpu.request import Generation, Sampling

_MARGIN = 1.5
"""So many times what it took when it was measured may it take: the processor may be busier."""

_FEW = 50
"""Choosing among so many of the likeliest tokens takes little more than finding those."""

_ALIKE = 1e4
"""The temperature at which all tokens are as likely."""

_STEPS = 5
_ANSWERS = 4
"""So many steps of so many answers are measured."""


class Choice(Enum):
    """How a token is chosen, by what that takes."""

    BEST = auto()
    """It is the likeliest."""

    WEIGHED = auto()
    """All are gone through: it is drawn, its log-probability asked for, some are penalised."""

    SORTED = auto()
    """Many are put in order, to find the likeliest that make up `top_p`, or very many of those."""


class Handle(Protocol):
    """One request inside the pipeline."""

    def read(self) -> object:
        """Take what was made since the last call."""

    def running(self) -> bool:
        """Whether more tokens can come."""


class Pipeline(Protocol):
    """What generates, as the engine knows it."""

    def add(self, key: int, generation: Generation) -> Handle:
        """Put a request into the batch."""

    def step(self) -> None:
        """Advance every request."""


class Choosing:
    """What choosing tokens may take of a step; `each_ns` is what one takes at most, by choice."""

    def __init__(self, each_ns: Mapping[Choice, int]) -> None:
        self._each_ns = each_ns

    def allowed(self, choices: Iterable[Choice]) -> int:
        """What a step may take that chooses tokens so, beyond one that takes the likeliest."""
        return int(_MARGIN * sum(self._each_ns.get(choice, 0) for choice in choices))


def choice_of(generation: Generation) -> Choice:
    """How the tokens of an answer are chosen."""
    sampling = generation.sampling
    narrowed = sampling.top_k > 0 or sampling.top_p < 1
    if not sampling.greedy and narrowed and not 0 < sampling.top_k <= _FEW:
        return Choice.SORTED
    plain = Sampling(seed=sampling.seed, top_k=sampling.top_k, top_p=sampling.top_p)
    return Choice.BEST if sampling == plain and not generation.log_probs else Choice.WEIGHED


def measured(pipeline: Pipeline, answers: int, worked: Callable[[], int]) -> dict[Choice, int]:
    """What choosing a token takes at most, beyond taking the likeliest.

    Nothing else runs; at most `answers` may at once. `worked` is the process's processor time.
    """
    answers = min(answers, _ANSWERS)
    best = _step_ns(pipeline, _dearest(Choice.BEST), answers, worked)
    return {
        choice: max(0, _step_ns(pipeline, _dearest(choice), answers, worked) - best) // answers
        for choice in (Choice.WEIGHED, Choice.SORTED)
    }


def _step_ns(
    pipeline: Pipeline, generation: Generation, answers: int, worked: Callable[[], int]
) -> int:
    handles = [pipeline.add(key, generation) for key in range(answers)]
    took: list[int] = []
    while any(handle.running() for handle in handles):
        before = worked()
        pipeline.step()
        took.append(worked() - before)
        for handle in handles:
            handle.read()
    return int(median(took[1:]))  # the first one reads prompts


def _dearest(choice: Choice) -> Generation:
    """An answer whose tokens take the most that are chosen so."""
    tokens = _STEPS + 1
    if choice is Choice.BEST:
        return Generation(prompt=(0,), max_new_tokens=tokens)
    sampling = Sampling(
        greedy=False,
        temperature=_ALIKE,
        top_k=0 if choice is Choice.SORTED else _FEW,
        top_p=0.9,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        min_tokens=tokens,
        seed=0,
    )
    return Generation(
        prompt=(0,), max_new_tokens=tokens, end_id=0, sampling=sampling, log_probs=True
    )
