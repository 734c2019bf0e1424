"""Levers: each way of saving of a route, by name, and what the guardrail holds them to.

What is known of one, and how it is halted and released, is in `lever_record`.
"""

from services.router.policy.guardrail import Guard
from services.router.policy.routes import Route

TRIMMING = "trimming"
CACHE = "cache"

MAX_ALLOWED = 0.99
"""Mean loss that tolerance and level together may allow: at 1 nothing could halt a lever."""


def lever_of_tier(route: Route, rung: int) -> str:
    """Name of the lever that lets a lower tier answer.

    ``precision:<tier>`` where the tier above serves the same model in another precision, else
    ``tier:<tier>``.
    """
    tier, above = route.ladder[rung], route.ladder[rung + 1]
    return f"{'precision' if tier.model == above.model else 'tier'}:{tier.name}"


def levers_of(route: Route) -> tuple[str, ...]:
    """Every lever of a route, safest setting last: lower tiers, then trimming and cache if used."""
    tiers = [lever_of_tier(route, rung) for rung in range(len(route.ladder) - 1)]
    if route.fixed_tier is not None:  # those below are no lever: nothing sends a request there
        tiers = tiers[route.ladder.index(route.fixed_tier) :]
    trimming = [TRIMMING] if route.trimming.on else []
    return (*tiers, *trimming, *([CACHE] if route.cache.use else []))


def calibration_version(route: Route) -> str:
    """Version of the calibration in force, which a halt of the guardrail belongs to; or empty."""
    calibration = route.quality.calibration if route.quality else None
    return calibration.version if calibration else ""


def is_judged(lever: str) -> bool:
    """Whether pairs say what a lever loses (`evidence.pairs`); without that nothing watches it."""
    return lever in {TRIMMING, CACHE} or lever.partition(":")[0] in {"tier", "precision"}


def guard_of(route: Route, lever: str) -> Guard | None:
    """What a route's lever is held to; None where nothing watches it.

    That is where the route asks nothing of its answers, or pairs do not judge the lever. The level
    is the loss that was measured at calibration, where that was above 0.
    """
    quality = route.quality
    if quality is None or not is_judged(lever):
        return None
    level = quality.calibration.level if quality.calibration else 0.0
    room = max(0.0, MAX_ALLOWED - quality.tolerance)
    return Guard(
        tolerance=quality.tolerance,
        level=min(max(0.0, level), room),
        run_length=quality.run_length,
    )
