"""A pair, and how the ledger keeps it; `calibrate.evidence` reads it there."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.router.policy.difficulty import features
from services.router.policy.routes import EvidencePolicy, Route
from services.router.request.hold import first_k
from services.router.request.journey import Attempt, Journey


@dataclass(frozen=True)
class Pair:
    """One request and what every tier made of it.

    Attributes:
        answers: texts that are compared; the last is the safest setting's.
        attempts: of the tiers, cheapest first; of a stored answer, the top tier's alone.
        answered: number of the answer that the caller got.
        compared: by lever that acted or could have, the answers that its loss is between: that of
            the safer setting, and the one given.
        shadow_micro_usd: what was run for this alone.
    """

    answers: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    answered: int
    compared: Mapping[str, tuple[int, int]]
    shadow_micro_usd: int


def record_of(
    journey: Journey,
    pair: Pair,
    digests: Sequence[str],
    qualities: Sequence[float] | None,
    evidence: EvidencePolicy,
) -> dict[str, Any]:
    """The pair as the ledger keeps it: numbers, and texts only where the route wants them."""
    checked, way = journey.checked, journey.climb
    route = checked.route
    told = way.features if way is not None else features(checked.written, checked.signals)
    record: dict[str, Any] = {
        "kind": "pair" if way is not None else "cached_pair",
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "request_id": journey.request_id,
        "tenant": journey.tenant,
        "route": route.name,
        "policy_version": checked.policies.version,
        "calibration_version": way.calibration_version if way is not None else "",
        "propensity": journey.propensity,
        "uniform": True,  # which depends on the time, and on nothing of the request
        "judge": evidence.judge.kind.value,
        "answered": route.ladder[pair.answered].name if way is not None else "",
        "features": told,
        "first_k": first_k(route.quality) if route.quality is not None else None,
        "tiers": [
            _tier_record(route, attempt, None if qualities is None else qualities[at])
            for at, attempt in enumerate(pair.attempts, 0 if way is not None else 1)
        ],
        "qualities": qualities,
        "digests": digests,
        "trimmed": journey.trimmed,
        "shadow_micro_usd": pair.shadow_micro_usd,
    }
    if evidence.keep_text:
        record["text"] = {
            "turns": [[turn.role, turn.content] for turn in checked.asked.turns],
            "answers": pair.answers,
        }
    return record


def _tier_record(route: Route, attempt: Attempt, quality: float | None) -> dict[str, Any]:
    tier, sure = route.ladder[attempt.rung], attempt.certainty
    return {
        "tier": tier.name,
        "model": tier.model,
        "precision": tier.precision,
        "version": tier.version,
        "quality": quality,
        "certainty": sure and {"mean": sure.mean, "minimum": sure.minimum, "first_k": sure.first_k},
        "valid": attempt.valid,
        "micro_usd": attempt.micro_usd,
        "engine_ms": None
        if attempt.engine_seconds is None
        else round(attempt.engine_seconds * 1e3, 4),
    }
