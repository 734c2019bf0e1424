"""A decision and its reason, as data."""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a tier answers; names equal the proto's after its prefix."""

    FIXED_TIER = "fixed_tier"
    CACHED = "cached"


class CacheOutcome(Enum):
    """What the cache had to say; names equal the proto's after its prefix."""

    NOT_ASKED = "not_asked"
    MISS = "miss"
    EXACT = "exact"
    SHARED = "shared"
    UNAVAILABLE = "unavailable"


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
