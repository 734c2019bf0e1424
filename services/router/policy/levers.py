"""Levers: each way of saving of a route, by name."""

from services.router.policy.routes import Route

TRIMMING = "trimming"
CACHE = "cache"


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
