"""A decision and its reason, as data."""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a tier answers; names equal the proto's after its prefix."""

    FIXED_TIER = "fixed_tier"
    CACHED = "cached"
    CALIBRATED = "calibrated"
    ESCALATED = "escalated"
    SKIPPED = "skipped"
    UNCALIBRATED = "uncalibrated"
    HALTED = "halted"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"


class CacheOutcome(Enum):
    """What the cache had to say; names equal the proto's after its prefix."""

    NOT_ASKED = "not_asked"
    MISS = "miss"
    EXACT = "exact"
    SHARED = "shared"
    UNAVAILABLE = "unavailable"


class Verdict(Enum):
    """What became of one tier of the ladder; names equal the proto's after its prefix."""

    CHOSEN = "chosen"
    SKIPPED = "skipped"
    UNSURE = "unsure"
    INVALID = "invalid"
    HALTED = "halted"
    LIMITED = "limited"
    UNUSED = "unused"
    NOT_REACHED = "not_reached"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tier of the ladder as the decision weighed it.

    Attributes:
        tier: its name.
        verdict: what became of it.
        predicted_gain: of the top tier over this one, in [-1, 1]; None where not predicted.
        skip_above_gain: it is skipped above; None where it is never skipped for its gain.
        certainty: of its answer, a log-prob; None where it did not run, or is unknown.
        accept_at_certainty: its answer stands at it or above; None where any will do.
    """

    tier: str
    verdict: Verdict
    predicted_gain: float | None = None
    skip_above_gain: float | None = None
    certainty: float | None = None
    accept_at_certainty: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen for one request.

    Attributes:
        route: the route asked for.
        policy_version: version of the policies that decided.
        tier: tier that answers, or that wrote the stored answer.
        model: its model.
        precision: precision of the model's weights.
        replica: replica that answers; empty for a stored answer.
        reason: why this tier.
        explanation: the same in one sentence for a person.
        cache: what the cache had to say.
        fleet_stale: the last known fleet was used.
        candidates: every tier of the ladder, cheapest first.
        calibration_version: of the calibration that decided; empty where none did.
        propensity: probability with which such a request is drawn as evidence.
        halted: the route's levers that are halted now.
    """

    route: str
    policy_version: str
    tier: str
    model: str
    precision: str
    replica: str
    reason: Reason
    explanation: str
    cache: CacheOutcome
    fleet_stale: bool
    candidates: tuple[Candidate, ...] = ()
    calibration_version: str = ""
    propensity: float = 0.0
    halted: tuple[str, ...] = ()
