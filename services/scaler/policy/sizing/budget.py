"""What pools share: hardware and money, given out replica by replica.

Pure. Limits whose pools' wishes fit are done with. Of one that is short, every pool first gets its
least, those of a higher priority first; then, again by priority, what each wishes beyond that. Of
equal priority they take turns, one replica each. A pool in several limits needs room in all of
them, and has the highest of its priorities. No limit is ever exceeded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from services.scaler.policy.sizing.settings import Budget
from services.scaler.policy.sizing.views import Bound, Constraint

SLACK = 1e-9
"""Of a limit: sums of fractions are not exact."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a pool asks for.

    Attributes:
        wished: replicas.
        least: of these, those it gets before others get more.
    """

    wished: int
    least: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What there is of something.

    Attributes:
        bound: its kind.
        name: which one.
        limit: how much there is.
        each: what a replica takes, by pool; others take nothing.
    """

    bound: Bound
    name: str
    limit: float
    each: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a pool gets; `short`: what kept it from more, if anything did."""

    size: int
    short: Constraint | None = None


def limits_of(budgets: Mapping[str, Budget]) -> list[Limit]:
    """The budgets of the policy."""
    return [
        Limit(
            Bound.BUDGET,
            name,
            budget.limit,
            {pool: share.each for pool, share in budget.pools.items()},
        )
        for name, budget in budgets.items()
    ]


def priorities_of(budgets: Mapping[str, Budget]) -> dict[str, int]:
    """The highest priority of each pool."""
    highest: dict[str, int] = {}
    for budget in budgets.values():
        for pool, share in budget.pools.items():
            highest[pool] = max(highest.get(pool, 0), share.priority)
    return highest


def granted(
    claims: Mapping[str, Claim], limits: Sequence[Limit], priorities: Mapping[str, int]
) -> dict[str, Grant]:
    """What each pool gets of what is shared."""
    wished = {limit.name: _taken(limit, claims) for limit in limits}
    short = [
        limit for limit in limits if wished[limit.name] > limit.limit + SLACK * abs(limit.limit)
    ]
    if not short:
        return {pool: Grant(claim.wished) for pool, claim in claims.items()}
    touched = {pool for limit in short for pool, each in limit.each.items() if each > 0}
    sizes = {pool: 0 if pool in touched else claim.wished for pool, claim in claims.items()}
    left = {limit.name: limit.limit * (1 + SLACK) for limit in short}
    order = sorted(touched & claims.keys(), key=lambda pool: (-priorities.get(pool, 0), pool))
    stuck: dict[str, Limit] = {}
    for part in ("least", "wished"):
        for _, group in groupby(order, key=lambda pool: priorities.get(pool, 0)):
            goals = {pool: getattr(claims[pool], part) for pool in group}
            _in_turns(goals, sizes, short, left, stuck)
    return {
        pool: Grant(size, _constraint(size, stuck[pool], wished) if pool in stuck else None)
        for pool, size in sizes.items()
    }


def _in_turns(
    goals: Mapping[str, int],
    sizes: dict[str, int],
    limits: Sequence[Limit],
    left: dict[str, float],
    stuck: dict[str, Limit],
) -> None:
    """One replica each, until nobody can or wants to go on."""
    waiting = [pool for pool in goals if pool not in stuck]
    of_pool: Callable[[str], list[tuple[Limit, float]]] = lambda pool: [  # noqa: E731 - its type
        (limit, limit.each[pool]) for limit in limits if limit.each.get(pool, 0.0) > 0
    ]
    needs = {pool: of_pool(pool) for pool in waiting}
    while waiting:
        going = []
        for pool in waiting:
            if sizes[pool] >= goals[pool]:
                continue
            full = next((limit for limit, each in needs[pool] if each > left[limit.name]), None)
            if full is not None:
                stuck[pool] = full
                continue
            for limit, each in needs[pool]:
                left[limit.name] -= each
            sizes[pool] += 1
            going.append(pool)
        waiting = going


def _taken(limit: Limit, claims: Mapping[str, Claim]) -> float:
    return sum(each * claims[pool].wished for pool, each in limit.each.items() if pool in claims)


def _constraint(size: int, limit: Limit, wished: Mapping[str, float]) -> Constraint:
    return Constraint(limit.bound, size, limit.name, wished[limit.name], limit.limit)
