"""How many replicas a pool should have: what is measured and what the policy says go in.

Pure: the same memory and views give the same decisions. `decide` is for one pool by itself. It
takes what the file says (`Scale`), what it kept at the tick before (`SizeMemory`, at first
`SizeMemory(size)` with the replicas that are there or on their way) and what is seen now (`View`),
and gives back a `Decision` and what to keep. `decide_all` is for all pools: those of a fixed size
and those on spot too, with the budgets and the money that they share. Call either once a tick,
every 5 to 15 seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.scaler.policy.sizing import budget
from services.scaler.policy.sizing.asking import (
    Asking,
    PoolPolicy,
    asking_by_itself,
    asking_with_spot,
)
from services.scaler.policy.sizing.memory import SizeMemory
from services.scaler.policy.sizing.money import Spent, ceilings, spent, startable
from services.scaler.policy.sizing.override import Override
from services.scaler.policy.sizing.path import Wish, wished
from services.scaler.policy.sizing.settings import Budget, Money, Scale
from services.scaler.policy.sizing.spot import MixMemory
from services.scaler.policy.sizing.views import Decision, View
from services.scaler.policy.sizing.why import sentences

__all__ = ["AllMemory", "PoolPolicy", "SizeMemory", "decide", "decide_all"]

PRICE_MOST = 1e9


@dataclass(frozen=True, slots=True)
class AllMemory:
    """What is kept of all pools from one tick to the next; at first `AllMemory()`.

    Attributes:
        pools: by name. Of a pool that has one on spot beside it, it is the size of both together.
        mixes: by the name of the pool on demand.
        prices: of a replica an hour, as last known.
        spent: what was spent today.
    """

    pools: Mapping[str, SizeMemory] = field(default_factory=dict)
    mixes: Mapping[str, MixMemory] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)


def decide(
    scale: Scale,
    memory: SizeMemory,
    view: View,
    override: Override | None = None,
    *,
    worded: bool = True,
) -> tuple[Decision, SizeMemory]:
    """The size of one pool now, and what to keep.

    Args:
        scale: how its size follows what is asked of it.
        memory: what was kept at the tick before.
        view: the pool.
        override: what somebody set against the policy; None: nothing.
        worded: with its reasons as sentences; trials of many days do without.
    """
    wish, after = wished(scale, memory, view, override)
    decision = _decision(wish, wish.size, memory.size, _price(view), worded=worded)
    return decision, after.sized(scale.behavior, wish.size)


def decide_all(
    policies: Mapping[str, PoolPolicy],
    budgets: Mapping[str, Budget],
    money: Money | None,
    memory: AllMemory,
    views: Mapping[str, View],
    *,
    worded: bool = True,
) -> tuple[dict[str, Decision], AllMemory]:
    """The sizes of all pools now, and what to keep.

    A pool that was never seen has no decision. One that cannot be seen now keeps its size, and
    what it takes of the budgets.

    Args:
        policies: by pool.
        budgets: what pools share, by name.
        money: what all may cost; None: anything.
        memory: what was kept at the tick before.
        views: the pools that can be seen.
        worded: with their reasons as sentences; trials of many days do without.
    """
    asking = _asking(policies, memory, views)
    prices = {
        name: _price(views[name]) if name in views else memory.prices.get(name, 0.0)
        for name in asking
    }
    now_spent, grants = _granted(
        budgets, money, memory.spent, asking=asking, prices=prices, views=views
    )
    decisions: dict[str, Decision] = {}
    pools: dict[str, SizeMemory] = {}
    mixes: dict[str, MixMemory] = {}
    for name, one in asking.items():
        wish, size = one.wish, one.wish.size
        for grant in (of_pools[name] for of_pools in grants if name in of_pools):
            if grant.short is not None:
                size = grant.size
                wish = replace(wish, constraints=(*wish.constraints, grant.short))
        decisions[name] = _decision(wish, size, one.before, prices[name], worded=worded)
        if one.mix is not None:
            mixes[name] = replace(one.mix, on_demand=size)
            pools[name] = one.memory
        else:
            scale = policies[name].scale
            pools[name] = (
                replace(one.memory, size=size)
                if scale is None
                else one.memory.sized(scale.behavior, size)
            )
    return decisions, AllMemory(pools, mixes, prices, now_spent)


def _asking(
    policies: Mapping[str, PoolPolicy], memory: AllMemory, views: Mapping[str, View]
) -> dict[str, Asking]:
    """What each pool asks for."""
    found: dict[str, Asking | None] = {}
    splits = {
        name: policy.scale.spot
        for name, policy in policies.items()
        if policy.scale is not None
        and policy.scale.spot is not None
        and policy.scale.spot.pool in policies
        and policy.scale.spot.pool != name
    }
    of_others = {split.pool for split in splits.values()}
    for name, policy in policies.items():
        split = splits.get(name)
        if split is not None and policy.scale is not None:
            found[name], found[split.pool] = asking_with_spot(
                policy,
                policy.scale,
                split,
                of_spot=policies[split.pool],
                known=(
                    memory.pools.get(name),
                    memory.pools.get(split.pool),
                    memory.mixes.get(name),
                ),
                views=(views.get(name), views.get(split.pool)),
            )
        elif name not in of_others:
            found[name] = asking_by_itself(policy, memory.pools.get(name), views.get(name))
    return {name: one for name, one in found.items() if one is not None}


def _granted(
    budgets: Mapping[str, Budget],
    money: Money | None,
    before: Spent,
    *,
    asking: Mapping[str, Asking],
    prices: Mapping[str, float],
    views: Mapping[str, View],
) -> tuple[Spent, Sequence[Mapping[str, budget.Grant]]]:
    """What was spent by now, and what each pool gets of what is shared, in turn."""
    limits = budget.limits_of(budgets)
    now_spent = before
    # One that cannot be seen now runs as before.
    kept = {
        name: views[name].ready + views[name].starting if name in views else one.before
        for name, one in asking.items()
    }
    running = sum(
        prices[name] * (kept[name] + (views[name].leaving if name in views else 0))
        for name in asking
    )
    if views:
        now = max(view.now for view in views.values())
        wall = max(view.wall for view in views.values())
        now_spent = spent(before, running, now=now, wall=wall)
        if money is not None:
            least = sum(prices[name] * one.wish.least for name, one in asking.items())
            limits += ceilings(money, now_spent, wall, prices, least)
    if not limits:
        return now_spent, ()
    claims = {name: budget.Claim(one.wish.size, one.wish.least) for name, one in asking.items()}
    priorities = budget.priorities_of(budgets)
    grants = budget.granted(claims, limits, priorities)
    if money is None or money.usd_per_hour is None:
        return now_spent, (grants,)
    claims = {
        name: budget.Claim(grants[name].size, min(claim.least, grants[name].size))
        for name, claim in claims.items()
    }
    startable_now = startable(
        money.usd_per_hour,
        running,
        claims=claims,
        kept=kept,
        prices=prices,
        priorities=priorities,
    )
    return now_spent, (grants, startable_now)


def _decision(wish: Wish, size: int, before: int, price: float, *, worded: bool = True) -> Decision:
    """The decision in words and money."""
    constraints = wish.constraints
    return Decision(
        size,
        before,
        constraints,
        before * price,
        size * price,
        None if wish.demand is None else wish.demand.rate / wish.demand.usable,
        *(sentences(size, constraints) if worded else ("", "", "")),
    )


def _price(view: View) -> float:
    return view.usd_per_hour if 0 < view.usd_per_hour < PRICE_MOST else 0.0
