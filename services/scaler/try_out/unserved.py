"""Tiers that a change of the scaling file would leave without any pool. Pure.

Routers have the names of tiers, which the scaler does not know: a name that was served until now
and is no more is either a slip or meant, and who means it says so.
"""

from difflib import get_close_matches

from services.scaler.config import Scaling


def unserved(before: Scaling, after: Scaling) -> str:
    """Which tiers no pool would serve any more, in one sentence; empty: none.

    Args:
        before: the file in force.
        after: the one that is to be.
    """
    served = {pool.tier for pool in after.pools.values()}
    fresh = sorted(served - {pool.tier for pool in before.pools.values()})
    gone = sorted({pool.tier for pool in before.pools.values()} - served)
    return "; ".join(_of_one(tier, fresh, after) for tier in gone)


def _of_one(tier: str, fresh: list[str], after: Scaling) -> str:
    said = f"no pool would serve tier {tier} any more, and its requests would fail"
    near = get_close_matches(tier, fresh, n=1)
    if not near:
        return said
    pools = [name for name, pool in after.pools.items() if pool.tier == near[0]]
    return f"{said}: did you mean {tier} where {', '.join(pools)} has {near[0]}?"
