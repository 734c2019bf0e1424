"""A tier in two scaling files: which pools serve it, whether it can be tried, with which others.

Pools that share a budget or money have to be tried together, and so do those of one tier.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.scaler.config import Scaling
from services.scaler.policy.recorded import RecordedMinute
from services.scaler.policy.sizing.settings import Money
from services.scaler.pools.pool import Pool
from services.scaler.simulator.trial import Replica
from services.scaler.try_out.pools import (
    UNKNOWN_REPLICAS,
    Measured,
    not_tried,
    replica_of,
    scale_of,
)

LEAST_MINUTES = 30
"""On record; fewer say nothing of days."""

LEAST_ARRIVALS = 100


@dataclass(frozen=True)
class Tier:
    """One tier in both files.

    Attributes:
        name: its name.
        live, given: its pools in the file in force and in the other; empty: it has none there.
        minutes: what came to it.
        untried: why it cannot be tried; empty: it can.
    """

    name: str
    live: Mapping[str, Pool]
    given: Mapping[str, Pool]
    minutes: Sequence[RecordedMinute]
    untried: str

    @property
    def label(self) -> str:
        """Its pools, as they are named in sentences."""
        return " and ".join(sorted({*self.live, *self.given}))

    @property
    def recorded(self) -> bool:
        """Whether enough of its load is on record to say something of it."""
        return not _unknown(self.name, self.minutes)

    @property
    def same(self) -> bool:
        """Whether both files say the same of each pool."""
        return {name: _policy(one) for name, one in self.live.items()} == {
            name: _policy(one) for name, one in self.given.items()
        }


def tiers_of(
    before: Scaling,
    after: Scaling,
    minutes: Sequence[RecordedMinute],
    measured: Callable[[str], Measured],
) -> list[Tier]:
    """The tiers of both files, by the names of their pools.

    Args:
        before: the file in force.
        after: the other.
        minutes: the recorded load.
        measured: what is known of a pool's replicas.
    """
    pools = [*before.pools.values(), *after.pools.values()]
    found = []
    for name in {pool.tier for pool in pools}:
        of = [one for one in minutes if one.tier == name]
        live, given = _of_tier(name, before), _of_tier(name, after)
        untried = (
            _moved({*live, *given}, before, after)
            or _idle(live)
            or _idle(given)
            or _unknown(name, of)
            or _untried(live, measured)
            or _untried(given, measured)
        )
        found.append(Tier(name, live, given, of, untried))
    return sorted(found, key=lambda one: one.label)


def coupled(tiers: Sequence[Tier], before: Scaling, after: Scaling) -> list[list[Tier]]:
    """The tiers in groups that share nothing with each other."""
    groups = [[tier] for tier in tiers]
    if any(file.money != Money() for file in (before, after)):
        return [list(tiers)]
    for file in (before, after):
        for budget in file.budgets.values():
            sharing = {file.pools[name].tier for name in budget.pools if name in file.pools}
            joined = [group for group in groups if sharing & {one.name for one in group}]
            groups = [group for group in groups if group not in joined]
            groups.append([tier for group in joined for tier in group])
    return groups


def serving(pools: Mapping[str, Pool]) -> list[str]:
    """Names of those that ever have a replica, the one whose figures are the tier's first."""
    spots = spot_parts(pools)
    able = [name for name, one in pools.items() if one.scale or one.first or name in spots]
    return sorted(able, key=lambda name: (name in spots, name))


def spot_parts(pools: Mapping[str, Pool]) -> dict[str, str]:
    """By the pool that is the spot part of another: that one."""
    return {
        one.scale.spot.pool: name for name, one in pools.items() if one.scale and one.scale.spot
    }


def replica_in(
    name: str, pools: Mapping[str, Pool], measured: Callable[[str], Measured]
) -> Replica | None:
    """What serves in a pool; a spot part is like the pool that it is of. None: it is not known."""
    found = replica_of(pools[name], measured(name))
    base = spot_parts(pools).get(name)
    if found is not None or base is None:
        return found
    like = replica_of(pools[base], measured(base))
    own = pools[name]
    return like and replace(like, places=own.max_in_flight, usd_per_hour=own.usd_per_hour or None)


def _of_tier(tier: str, file: Scaling) -> dict[str, Pool]:
    return {name: one for name, one in file.pools.items() if one.tier == tier}


def _moved(names: Collection[str], before: Scaling, after: Scaling) -> str:
    """Why one pool's load is that of two tiers; empty: it is not."""
    for name in names:
        live, given = before.pools.get(name), after.pools.get(name)
        if live is not None and given is not None and live.tier != given.tier:
            return f"it changes from tier {live.tier} to {given.tier}"
    return ""


def _idle(pools: Mapping[str, Pool]) -> str:
    """Why the tier's pools serve nothing; empty: they do, or it has none."""
    if not pools or serving(pools) or any(one.external for one in pools.values()):
        return ""
    return "its size is 0, so that it serves nothing"


def _unknown(tier: str, minutes: Sequence[RecordedMinute]) -> str:
    """Why too little is on record; empty: enough is."""
    if len(minutes) < LEAST_MINUTES:
        count = len(minutes)
        there = (
            f"{count} minute of its load is" if count == 1 else f"{count} minutes of its load are"
        )
        return f"only {there} on record, least are {LEAST_MINUTES}"
    if sum(one.arrivals for one in minutes) < LEAST_ARRIVALS:
        return f"fewer than {LEAST_ARRIVALS} requests of tier {tier} are on record"
    return ""


def _untried(pools: Mapping[str, Pool], measured: Callable[[str], Measured]) -> str:
    """Why its pools cannot be tried; empty: they can."""
    for name, pool in pools.items():
        if pool.external is not None:
            return f"how many servers of {name} there were is not on record"
        if why := not_tried(pool):
            return why
    if any(replica_in(name, pools, measured) is None for name in serving(pools)):
        return UNKNOWN_REPLICAS
    return ""


def _policy(pool: Pool) -> tuple[Any, ...]:
    """What the course of a pool depends on."""
    return scale_of(pool), pool.tier, pool.max_in_flight, pool.usd_per_hour, len(pool.slots)
