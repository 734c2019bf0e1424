"""Answers that are kept back until they are known to stand."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.router.policy import cascade
from services.router.policy.certainty import Certainty, certainty_of
from services.router.policy.forms import validate
from services.router.policy.routes import Hold, Quality
from services.router.request.journey import Journey

LONG_CHECK = 200_000
"""Characters of an answer times those of its form above which its form is checked in a thread: it
would hold up the rest."""


@dataclass(slots=True)
class Held:
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

    def is_ripe(self, tokens: int, *, ended: bool) -> bool:
        """Whether enough has come to judge it."""
        return ended or (self.first_tokens is not None and tokens >= self.first_tokens)


def held_for(journey: Journey, turn: cascade.Step) -> Held | None:
    """How the answer of this tier is kept back; None if it stands unchecked."""
    quality = journey.checked.route.quality
    if not turn.checked or quality is None:
        return None
    # What a caller wants checked can be checked on the whole answer only.
    whole = quality.hold is Hold.ANSWER or bool(journey.checked.validators)
    return Held(None if whole else first_k(quality))


def first_k(quality: Quality) -> int:
    """Tokens that `Certainty.first_k` looks at: those of the calibration in force."""
    calibration = quality.calibration
    return calibration.judgement.first_k if calibration is not None else quality.first_tokens


def certainty(journey: Journey, log_probs: Sequence[float] | None, tokens: int) -> Certainty | None:
    """How sure the model was of so many tokens; None unless each has its log-probability."""
    quality = journey.checked.route.quality
    if quality is None or log_probs is None or not 0 < tokens <= len(log_probs):
        return None
    return certainty_of(log_probs[:tokens], first_k(quality))


async def has_form(journey: Journey, text: str) -> bool:
    """Whether an answer passes every validator of the request."""
    checks = journey.checked.validators
    if not checks:
        return True
    if len(text) * sum(check.cost for check in checks) > LONG_CHECK:
        return await asyncio.to_thread(validate, text, checks)
    return validate(text, checks)
