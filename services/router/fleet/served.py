"""What pools and policies do not agree on: tiers that no replica serves, replicas of no tier.

A replica serves a tier by name, model and precision. A typo in one of them, in either file, leaves
a tier without replicas while everything else looks well. Pure.
"""

from collections.abc import Collection, Iterable

from services.router.fleet.replica import Replica, State
from services.router.policy.routes import Tier

SHOWN = 3
"""Pools that are named at most."""

SERVING = (State.STARTING, State.READY)


def unserved(tier: Tier, replicas: Iterable[Replica]) -> str:
    """That no replica serves the tier, in words; empty where one does or is about to.

    Args:
        tier: as it is described in the policies in force.
        replicas: that are known.
    """
    served = any(one.state in SERVING and _kind(one) == _described(tier) for one in replicas)
    return "" if served else "no replica serves it"


def strangers(
    tier: Tier, tiers: Collection[Tier], replicas: Collection[Replica], *, every: bool
) -> str:
    """Pools whose replicas serve no tier, in words; empty where there are none.

    Args:
        tier: the pools might have been meant for it.
        tiers: all of the policies in force.
        replicas: that are known.
        every: tell of all such pools; else of those that have the tier's name or model.
    """
    described = {_described(one) for one in tiers}
    found = sorted(
        {
            f"pool {one.pool or 'without a name'} serves {one.tier} ({one.model} {one.precision})"
            for one in replicas
            if one.state in SERVING
            and _kind(one) not in described
            and (every or one.tier == tier.name or one.model == tier.model)
        }
    )
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join([*found[:SHOWN], *more])


def _kind(replica: Replica) -> tuple[str, str, str]:
    return replica.tier, replica.model, replica.precision


def _described(tier: Tier) -> tuple[str, str, str]:
    return tier.name, tier.model, tier.precision
