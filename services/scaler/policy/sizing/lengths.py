"""How long prompts and answers are lately, and how many requests a tick brings.

Pure. Means of lengths are those of about the last two minutes; while next to nothing comes, the
last known ones hold.
"""

import math
from typing import NamedTuple

from services.scaler.policy.sizing.views import Traffic

LENGTH_SECONDS = 120.0
ARRIVALS_HALF_LIFE_SECONDS = 6 * 3600.0
USUAL_OUTPUT, USUAL_PROMPT = 256.0, 512.0
"""Tokens, before any were seen."""


class Lengths(NamedTuple):
    """Decayed sums and what follows from them.

    Attributes:
        answers, answer_tokens: that ended lately.
        prompts, prompt_tokens: that arrived lately.
        output: mean tokens of an answer.
        prompt: mean tokens of a prompt.
        arrivals: mean by tick, over hours.
        ticks: that say so.
    """

    answers: float = 0.0
    answer_tokens: float = 0.0
    prompts: float = 0.0
    prompt_tokens: float = 0.0
    output: float = USUAL_OUTPUT
    prompt: float = USUAL_PROMPT
    arrivals: float = 0.0
    ticks: float = 0.0


def counted(before: Lengths, traffic: Traffic) -> Lengths:
    """With the traffic of one tick more."""
    kept = math.exp(-traffic.seconds / LENGTH_SECONDS)
    answers = kept * before.answers + traffic.finished
    answer_tokens = kept * before.answer_tokens + traffic.output_tokens
    prompts = kept * before.prompts + traffic.arrivals
    prompt_tokens = kept * before.prompt_tokens + traffic.prompt_tokens
    ticks = 0.5 ** (traffic.seconds / ARRIVALS_HALF_LIFE_SECONDS) * before.ticks + 1
    return Lengths(
        answers,
        answer_tokens,
        prompts,
        prompt_tokens,
        max(answer_tokens / answers, 1.0) if answers >= 1 else before.output,
        prompt_tokens / prompts if prompts >= 1 else before.prompt,
        before.arrivals + (traffic.arrivals - before.arrivals) / ticks,
        ticks,
    )
