"""Answers that are kept back until they are known to stand."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.router.policy.cascade import Step
from services.router.policy.forms import Validator, validate
from services.router.policy.routes import Hold, Quality

LONG_CHECK = 200_000
"""Characters of an answer times those of its form above which its form is checked in a thread: it
would hold up the rest."""


@dataclass(slots=True)
class HoldBack:
    """What has come of an answer that may not be told yet.

    Attributes:
        first_tokens: how many tokens it is judged by; None for the whole answer.
        pieces: text and the tokens it stands for.
    """

    first_tokens: int | None
    pieces: list[tuple[str, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What has come."""
        return "".join([text for text, _ in self.pieces])

    def is_ready(self, tokens: int, *, complete: bool) -> bool:
        """Whether enough has come to judge it."""
        return complete or (self.first_tokens is not None and tokens >= self.first_tokens)


def hold_back_for(
    step: Step, quality: Quality | None, validators: Sequence[Validator]
) -> HoldBack | None:
    """How the answer of this tier is kept back; None if it stands unchecked."""
    if not step.checked or quality is None:
        return None
    # What a caller wants checked can be checked on the whole answer only.
    whole = quality.hold is Hold.ANSWER or bool(validators)
    return HoldBack(None if whole else quality.first_k)


async def has_form(text: str, validators: Sequence[Validator]) -> bool:
    """Whether an answer passes every validator."""
    if not validators:
        return True
    if len(text) * sum(validator.cost for validator in validators) > LONG_CHECK:
        return await asyncio.to_thread(validate, text, validators)
    return validate(text, validators)
