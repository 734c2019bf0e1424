"""A pair, and how the ledger keeps it; `calibrate.evidence` reads it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pennyweight.ledger.schema import (
    CertaintyRecord,
    MessageRecord,
    PairRecord,
    TextRecord,
    TierRecord,
    time_text,
)
from services.router.policy.difficulty import features
from services.router.policy.prompts import Message
from services.router.policy.routes import EvidencePolicy, Route
from services.router.request.attempt import Attempt
from services.router.request.context import RequestState
from services.router.request.plan import Cause


@dataclass(frozen=True)
class Pair:
    """One request and what every tier made of it.

    Attributes:
        answers: texts that are compared; the last is the safest setting's.
        attempts: of the tiers, cheapest first; of a stored answer, the top tier's alone.
        answered: number of the answer that the caller got.
        compared: by lever that acted or could have, the answers that its loss is between: that of
            the safer setting, and the one given.
    """

    answers: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    answered: int
    compared: Mapping[str, tuple[int, int]]


def record_of(
    state: RequestState,
    pair: Pair,
    digests: Sequence[str],
    qualities: Sequence[float] | None,
    evidence: EvidencePolicy,
    *,
    question: str,
    unix_seconds: float,
) -> PairRecord:
    """The pair as the ledger keeps it: numbers, and texts only where the route wants them.

    Of a settled request: an attempt whose answer is complete may still be charged for what its
    engine makes until it has stopped.

    `question` is the digest of what was asked, `unix_seconds` the time of the record.
    """
    context, cascade = state.context, state.cascade
    checked = context.checked
    route = checked.route
    cached = cascade is None
    return PairRecord(
        kind="cached_pair" if cached else "pair",
        time=time_text(unix_seconds),
        request_id=context.request_id,
        tenant=context.tenant,
        route=route.name,
        policy_version=checked.policy_version,
        calibration_version="" if cascade is None else cascade.calibration_version,
        propensity=context.propensity,
        uniform=True,  # which depends on the time, and on nothing of the request
        judge=evidence.judge.kind.value,
        answered="" if cached else route.ladder[pair.answered].name,
        question=question,
        features=features(checked.written, checked.signals)
        if cascade is None
        else cascade.features,
        first_k=route.quality.first_k if route.quality is not None else None,
        tiers=tuple(
            _tier_record(route, attempt, None if qualities is None else qualities[at])
            for at, attempt in enumerate(pair.attempts, 1 if cached else 0)
        ),
        qualities=None if qualities is None else tuple(qualities),
        digests=tuple(digests),
        trimmed=context.trimmed,
        shadow_micro_usd=sum(
            attempt.micro_usd for attempt in state.attempts if attempt.cause is Cause.EVIDENCE
        ),
        text=_texts(checked.asked.messages, pair.answers) if evidence.keep_text else None,
    )


def _tier_record(route: Route, attempt: Attempt, quality: float | None) -> TierRecord:
    tier, policy, engine = attempt.plan.step.tier, route.quality, attempt.engine_seconds
    sure = attempt.certainty(policy.first_k) if policy is not None else None
    return TierRecord(
        tier=tier.name,
        model=tier.model,
        precision=tier.precision,
        version=tier.version,
        quality=quality,
        certainty=None
        if sure is None
        else CertaintyRecord(mean=sure.mean, minimum=sure.minimum, first_k=sure.first_k),
        valid=attempt.valid,
        micro_usd=attempt.micro_usd,
        engine_ms=None if engine is None else round(engine * 1e3, 4),
    )


def _texts(messages: Sequence[Message], answers: Sequence[str]) -> TextRecord:
    return TextRecord(
        messages=tuple(
            MessageRecord(role=message.role, content=message.content) for message in messages
        ),
        answers=tuple(answers),
    )
