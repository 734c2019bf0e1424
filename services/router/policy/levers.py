"""Levers: each way of saving of a route, by name, and what the guardrail holds them to.

What is known of one, and how it is halted and released, is in `lever_record`.
"""

import math

from services.router.policy.guardrail import Guard
from services.router.policy.routes import JudgeKind, Quality, Route

TRIMMING = "trimming"
CACHE = "cache"
TOTAL = "total"
"""Not a lever: what all levers of a route lose together, watched where there are several."""

COMPARING = frozenset({JudgeKind.MATCH, JudgeKind.SIMILARITY})
"""Judges for whom the safest answer is the best there is: no lever's is ever better."""

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


def evidence_until(route: Route) -> float:
    """When the youngest evidence of the calibration in force was gathered, seconds since 1970.

    Returns:
        -inf where nobody knows, or no calibration is in force.
    """
    calibration = route.quality.calibration if route.quality else None
    return calibration.until if calibration else -math.inf


def is_judged(lever: str) -> bool:
    """Whether pairs say what a lever loses (`evidence.pairs`); without that nothing watches it."""
    return lever in {TRIMMING, CACHE} or lever.partition(":")[0] in {"tier", "precision"}


def guard_of(route: Route, lever: str) -> Guard | None:
    """What a route's lever is held to; None where nothing watches it.

    That is where the route asks nothing of its answers, or pairs do not judge the lever. What is
    allowed is what was promised: the tolerance, or the bound of a certificate that is above it. A
    judge that speaks other terms than the certificate sees a level of loss though all is well, and
    that much more is allowed; it was measured on what the tiers answer, so not for trimming.
    """
    if route.quality is None or not is_judged(lever):
        return None
    # Measured on what tiers answer; of no stored answer, nor of a trimmed prompt.
    spare = None if lever in {TRIMMING, CACHE} else _spare(route.quality)
    return _guard(route.quality, route.trimming.on, lever, spare)


def total_guard(route: Route) -> Guard | None:
    """What all levers of a route are held to together; None where there are not two to add up."""
    judged = [lever for lever in levers_of(route) if is_judged(lever)]
    if route.quality is None or len(judged) < 2:  # noqa: PLR2004 -- one alone is its own total
        return None
    spare = None if {TRIMMING, CACHE} & set(judged) else _spare(route.quality)
    return _guard(route.quality, route.trimming.on, TOTAL, spare)


def _spare(quality: Quality) -> float | None:
    return quality.calibration.spare if quality.calibration is not None else None


def _guard(
    quality: Quality,
    trims: bool,  # noqa: FBT001 -- see `Trimming.on`
    lever: str,
    spare: float | None,
) -> Guard:
    calibration, judge = quality.calibration, quality.evidence.judge.kind
    allowed, level = quality.tolerance, 0.0
    if calibration is not None:
        if calibration.certificate.certified:
            allowed = max(allowed, calibration.certificate.bound)
        if lever != TRIMMING:
            level = max(0.0, calibration.level or 0.0)
    allowed = min(allowed, MAX_ALLOWED)
    # Beside an answer to a trimmed prompt, one to the whole prompt is judged best: a tier's may be
    # better than the former, and none than the latter.
    never_better = judge in COMPARING and (lever in {TRIMMING, CACHE, TOTAL} or not trims)
    return Guard(
        tolerance=allowed,
        level=min(level, MAX_ALLOWED - allowed),
        run_length=quality.run_length,
        lowest_loss=0.0 if never_better else -1.0,
        # Losses of 0 and 1: their mean is the share of worse answers.
        spare=0.0 if judge is JudgeKind.MATCH and never_better else spare,
    )
