"""What a person set against the policy: pause, pin, no scale-down; each until a time.

Pure. It is applied after everything else but what the hardware and the pool's `max` allow. Leaves
to others who may set one, and where it is kept.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from services.scaler.policy.sizing.views import Bound, Constraint, Decision
from services.scaler.policy.sizing.why import sentences

_BY = " by "


class OverrideKind(StrEnum):
    """What is set."""

    PAUSE = "pause"
    """The size stays as it is."""
    PIN = "pin"
    """The size is a given one."""
    NO_SCALE_DOWN = "no_scale_down"
    """The size may only grow."""


@dataclass(frozen=True, slots=True)
class Override:
    """One of them.

    Attributes:
        kind: what is set.
        until: when it ends, in seconds since 1970.
        size: of a pin.
        author: who set it.
        reason: why.
    """

    kind: OverrideKind
    until: float
    size: int = 0
    author: str = ""
    reason: str = ""


def in_force(override: Override | None, wall: float) -> Override | None:
    """The override, unless there is none or it has ended."""
    return override if override is not None and wall < override.until else None


def overridden(override: Override, *, wanted: int, current: int) -> tuple[int, Constraint]:
    """The size under an override that is in force, and what to say of it.

    The constraint stands even where it changes nothing, so that nobody wonders.
    """
    match override.kind:
        case OverrideKind.PAUSE:
            size = current
        case OverrideKind.PIN:
            size = override.size
        case OverrideKind.NO_SCALE_DOWN:
            size = max(wanted, current)
    by = _BY + override.author if override.author else ""
    said = named(override.kind, override.size) + by
    return size, Constraint(Bound.OVERRIDE, size, said, limit=override.until)


def unsigned(decision: Decision) -> Decision:
    """The decision without who set an override, for those who are not to know."""
    constraints = tuple(
        replace(one, detail=one.detail.partition(_BY)[0]) if one.bound is Bound.OVERRIDE else one
        for one in decision.constraints
    )
    if constraints == decision.constraints:
        return decision
    why, fewer, more = sentences(decision.size, constraints)
    return replace(
        decision, constraints=constraints, why=why, why_not_fewer=fewer, why_not_more=more
    )


def named(kind: OverrideKind, size: int) -> str:
    """What is set, as people call it everywhere; the size is a pin's."""
    return f"pin at {size}" if kind is OverrideKind.PIN else kind.value.replace("_", " ")
