"""Answers that are kept back until they are known to stand."""

from functools import partial

from services.router.admission.long_work import ANSWER, LongWork
from services.router.policy.cascade import Step
from services.router.policy.forms import validate
from services.router.policy.line import Priority
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


class Checks:
    """Checks answers by what their callers want; state of the process.

    What takes long runs in threads of which there are few, tenants in turns.
    """

    def __init__(self, work: LongWork) -> None:
        self._work = work

    async def has_form(
        self, text: str, context: RequestContext, until: float, priority: Priority
    ) -> bool:
        """Whether an answer passes every validator of a request.

        Args:
            text: the answer.
            context: of the request.
            until: when nobody waits for it any more, by the clock.
            priority: standing among the tenant's own.

        Raises:
            Overloaded: too many answers of the tenant's, or of all tenants', wait already.
            DeadlineExceeded: `until` passed before its turn.
        """
        validators = context.checked.validators
        if len(text) * sum([validator.cost for validator in validators]) <= LONG_CHECK:
            return validate(text, validators)
        return await self._work.run(
            partial(validate, text, validators),
            len(text),
            tenant=context.tenant,
            priority=priority,
            until=until,
            kind=ANSWER,
        )


async def judge(state: RequestState, attempt: Attempt, checks: Checks, until: float) -> bool:
    """Judges what is held back of a checked tier's answer, and says whether it stands.

    One that falls has found its ending, and the next tier has its turn in the cascade.
    `until` is when nobody waits for it any more, by the clock.

    Raises:
        Overloaded, DeadlineExceeded: see `Checks.has_form`.
    """
    context, cascade, hold = state.context, state.cascade, attempt.hold
    assert cascade is not None  # noqa: S101 -- a checked step comes from a cascade
    assert hold is not None  # noqa: S101 -- it is what is judged
    quality = context.route.quality
    sure = attempt.certainty(quality.first_k) if quality is not None else None
    whole = hold.first_tokens is None
    attempt.valid = not whole or await checks.has_form(
        hold.text, context, until, attempt.plan.priority
    )
    stands = cascade.stands(sure, valid=attempt.valid)
    if not stands:
        attempt.ending = Ending.UNSURE if attempt.valid else Ending.INVALID
    return stands
