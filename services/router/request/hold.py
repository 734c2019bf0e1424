"""Answers that are kept back until they are known to stand."""

import asyncio
from collections.abc import Sequence

from services.router.policy.cascade import Step
from services.router.policy.forms import Validator, validate
from services.router.policy.routes import Hold
from services.router.request.attempt import Attempt, Ending
from services.router.request.context import RequestContext, RequestState
from services.router.request.plan import HoldBack

LONG_CHECK = 10_000
"""Characters of an answer times those of its form above which its form is checked in a thread: it
would hold up the rest."""


def hold_back_for(step: Step, context: RequestContext) -> HoldBack | None:
    """How the answer of this tier is kept back; None if it stands unchecked."""
    quality = context.route.quality
    if not step.checked or quality is None:
        return None
    # What a caller wants checked can be checked on the whole answer only.
    whole = quality.hold is Hold.ANSWER or bool(context.checked.validators)
    return HoldBack(None if whole else quality.first_k)


async def has_form(text: str, validators: Sequence[Validator]) -> bool:
    """Whether an answer passes every validator."""
    if not validators:
        return True
    if len(text) * sum(validator.cost for validator in validators) > LONG_CHECK:
        return await asyncio.to_thread(validate, text, validators)
    return validate(text, validators)


async def judge(state: RequestState, attempt: Attempt) -> bool:
    """Judges what is held back of a checked tier's answer, and says whether it stands.

    One that falls has found its ending, and the next tier has its turn in the cascade.
    """
    context, cascade, hold = state.context, state.cascade, attempt.hold
    assert cascade is not None  # noqa: S101 -- a checked step comes from a cascade
    assert hold is not None  # noqa: S101 -- it is what is judged
    quality = context.route.quality
    sure = attempt.certainty(quality.first_k) if quality is not None else None
    whole = hold.first_tokens is None
    attempt.valid = not whole or await has_form(hold.text, context.checked.validators)
    stands = cascade.stands(sure, valid=attempt.valid)
    if not stands:
        attempt.ending = Ending.UNSURE if attempt.valid else Ending.INVALID
    return stands
