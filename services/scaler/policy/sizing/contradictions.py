"""What of scaling.yaml contradicts itself: rules over several keys, each with the place it is said.

Pure. Rules over one key stand with it in `settings`.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.scaler.policy.sizing.schedule import problem_of
from services.scaler.policy.sizing.settings import (
    Budget,
    Direction,
    Measure,
    Money,
    RateType,
    Rule,
    Scale,
    Schedule,
    Select,
)

Place = tuple[str | int, ...]
Problem = tuple[Place, str]

HOURS_A_DAY = 24
PERCENT = 100
SHARES = (Measure.RUNNING, Measure.KV)
"""Measures from 0 to 1: a target above is one that nothing ever reaches."""
MEASURES = frozenset(map(str, Measure))
ROUNDING = 1e-9


@dataclass(frozen=True)
class Described:
    """A pool, as far as its size is concerned.

    Attributes:
        tier: that it serves.
        model: its name and precision.
        spot: it is on spot capacity.
        room: most replicas that fit; None: not known.
        size: that the file gives it; None: none.
        least: fewest replicas that it may come to have.
        scale: how its size follows demand; None: it does not.
        usd_per_hour: of one replica; 0: not known.
    """

    tier: str
    model: tuple[str, str]
    spot: bool
    room: int | None
    size: int | None
    least: int
    scale: Scale | None = None
    usd_per_hour: float = 0.0


def contradictions(
    pools: Mapping[str, Described],
    budgets: Mapping[str, Budget],
    money: Money,
    *,
    queries: bool | None = None,
) -> Iterator[Problem]:
    """What is wrong.

    Args:
        pools: by name.
        budgets: by name.
        money: the most that all may cost.
        queries: whether somebody answers Prometheus queries; None: not known.

    Yields:
        the place and the rule, where there is one with ", got " and the value at its end.
    """
    followers = {
        pool.scale.spot.pool
        for pool in pools.values()
        if pool.scale is not None and pool.scale.spot is not None
    }
    for name, pool in pools.items():
        place: Place = ("pools", name)
        if pool.scale is not None:
            yield from _of_scale((*place, "scale"), pool, pool.scale, queries=queries)
            yield from _sizes(place, pool, pool.scale)
        elif pool.size is None and name not in followers:
            yield (*place, "size"), "is missing; only a pool with `scale` needs none"
    yield from _spots(pools)
    for name, budget in budgets.items():
        yield from _of_budget(("budgets", name), budget, pools)
    yield from _of_money(money, pools, followers)


def _sizes(place: Place, pool: Described, scale: Scale) -> Iterator[Problem]:
    bounds: Place = (*place, "scale")
    if scale.min > scale.max:
        yield (*bounds, "min"), f"must be at most max, {scale.max}, got {scale.min}"
        return
    if pool.room is not None and scale.max > pool.room:
        rule = f"must not exceed the number of slots, {pool.room}"
        yield (*bounds, "max"), f"{rule}, got {scale.max}"
    if scale.zero is not None and scale.min > 0:
        yield (*bounds, "min"), f"must be 0 where zero is set, got {scale.min}"


def _of_scale(
    place: Place, pool: Described, scale: Scale, *, queries: bool | None
) -> Iterator[Problem]:
    follows = scale.work, scale.signals, scale.queries, scale.rules, scale.schedule
    if not any(follows):
        yield (
            place,
            "must follow something: one of work, signals, queries, rules and schedule is needed",
        )
    for query in scale.queries:
        at: Place = (*place, "queries", query)
        if query in MEASURES:
            yield at, f"must not have the name of a measure, got {query}"
        if queries is False:
            yield at, "needs the setting PENNYWEIGHT_SCALER_PROMETHEUS, which is empty"
    for measure in SHARES:
        signal = scale.signals.get(measure)
        if signal is not None and signal.target > 1:
            meant = f"; did you mean {signal.target / 100:g}?" if signal.target <= PERCENT else ""
            said = f"must be at most 1, as {measure} goes from 0 to 1{meant}"
            yield (*place, "signals", measure, "target"), f"{said}, got {signal.target:g}"
    for index, rule in enumerate(scale.rules):
        yield from _of_rule((*place, "rules", index), rule, scale)
    yield from _opposed((*place, "rules"), scale.rules)
    behavior: Place = (*place, "behavior")
    up, down = scale.behavior.scale_up, scale.behavior.scale_down
    if up.select_policy is Select.DISABLED and down.select_policy is Select.DISABLED:
        yield (
            (*behavior, "scale_down", "select_policy"),
            "must not be Disabled where scale_up is too: the size could never change",
        )
    if pool.least == 0 and _keeps_at_zero(up):
        said = "must have a rate of type Pods: of no replicas any percent are none"
        yield (*behavior, "scale_up", "policies"), said
    yield from _of_schedules((*place, "schedule"), scale)


def _keeps_at_zero(up: Direction) -> bool:
    """Whether its rates never let a pool of none begin."""
    if not up.policies or up.select_policy is Select.DISABLED:
        return False
    percent = [rate.type is RateType.PERCENT for rate in up.policies]
    return any(percent) if up.select_policy is Select.MIN else all(percent)


def _of_rule(place: Place, rule: Rule, scale: Scale) -> Iterator[Problem]:
    measured = rule.signal in MEASURES
    if not measured and rule.signal not in scale.queries:
        known = ", ".join([*Measure, *scale.queries])
        yield (
            (*place, "signal"),
            f"must be a measure or a query of this pool ({known}), got {rule.signal}",
        )
    if rule.above is None and rule.below is None:
        yield place, "must have above or below"
    elif rule.above is not None and rule.below is not None:
        yield (*place, "below"), "must not stand beside above: a rule has one of them"
    elif rule.change == 0:
        yield (*place, "change"), "must not be 0"
    elif measured and (rule.change > 0) != (rule.above is not None):
        way = "more than 0 with above" if rule.above is not None else "less than 0 with below"
        yield (
            (*place, "change"),
            f"must be {way}: every measure grows with what is asked, got {rule.change}",
        )


def _opposed(place: Place, rules: Sequence[Rule]) -> Iterator[Problem]:
    """Rules of one signal that go opposite ways at some value: there the size never rests."""
    for index, rule in enumerate(rules):
        for first, other in enumerate(rules[:index]):
            opposite = rule.signal == other.signal and rule.change * other.change < 0
            if opposite and _above(rule, other) < _below(rule, other):
                key = "above" if rule.above is not None else "below"
                said = f"must leave out what rule {first} acts on, which goes the other way"
                yield (*place, index, key), f"{said}, got {getattr(rule, key):g}"


def _above(*rules: Rule) -> float:
    """Above which all of them may act."""
    return max((rule.above for rule in rules if rule.above is not None), default=-math.inf)


def _below(*rules: Rule) -> float:
    """Below which all of them may act."""
    return min((rule.below for rule in rules if rule.below is not None), default=math.inf)


def _of_schedules(place: Place, scale: Scale) -> Iterator[Problem]:
    for index, schedule in enumerate(scale.schedule):
        at: Place = (*place, index)
        if (problem := problem_of(schedule)) is not None:
            key, said = problem
            yield (*at, key), f"{said}, got {getattr(schedule, key)}"
        least, most = _bounds(schedule, scale)
        if schedule.min is None and schedule.max is None:
            yield at, "must have min or max or both"
        elif least > most:
            kind, rule = ("max", "least") if schedule.min is None else ("min", "most")
            bound, value = (least, most) if schedule.min is None else (most, least)
            yield (*at, kind), f"must be at {rule} {bound} there, got {value}"
    yield from _disagreeing(place, scale.schedule)


def _bounds(schedule: Schedule, scale: Scale) -> tuple[int, int]:
    return (
        scale.min if schedule.min is None else schedule.min,
        scale.max if schedule.max is None else schedule.max,
    )


def _disagreeing(place: Place, schedules: Sequence[Schedule]) -> Iterator[Problem]:
    """Schedules of the same times that want different sizes: one of them is never heard."""
    seen: dict[tuple[str, str], int] = {}
    for index, schedule in enumerate(schedules):
        times = (" ".join(schedule.cron.split()), schedule.time_zone)
        first = seen.setdefault(times, index)
        if first != index:
            rule = "must begin at other times than"
            yield (*place, index, "cron"), f"{rule} schedule {first} does, got {schedule.cron}"


def _spots(pools: Mapping[str, Described]) -> Iterator[Problem]:
    used: dict[str, str] = {}
    for name, pool in pools.items():
        if pool.scale is None or (spot := pool.scale.spot) is None:
            continue
        place: Place = ("pools", name, "scale", "spot")
        other = pools.get(spot.pool)
        if other is None or other is pool:
            known = ", ".join(one for one in pools if one != name) or "of which there is none"
            yield (*place, "pool"), f"must be another pool ({known}), got {spot.pool}"
            continue
        if not other.spot:
            yield (*place, "pool"), f"must be a pool of capacity spot, got {spot.pool}"
        if other.scale is not None:
            rule = "must be a pool without scale of its own: its size follows from this one's"
            yield (*place, "pool"), f"{rule}, got {spot.pool}"
        if (other.tier, other.model) != (pool.tier, pool.model):
            rule = f"must serve the same model of the same tier, {pool.tier} {' '.join(pool.model)}"
            yield (*place, "pool"), f"{rule}, got {spot.pool}"
        if spot.pool in used:
            rule = f"must be a pool of its own, pool {used[spot.pool]} has it too"
            yield (*place, "pool"), f"{rule}, got {spot.pool}"
        used.setdefault(spot.pool, name)
        if spot.min_on_demand > pool.scale.max:
            rule = f"must be at most max, {pool.scale.max}"
            yield (*place, "min_on_demand"), f"{rule}, got {spot.min_on_demand}"


def _of_budget(place: Place, budget: Budget, pools: Mapping[str, Described]) -> Iterator[Problem]:
    needed = 0.0
    for name, share in budget.pools.items():
        pool = pools.get(name)
        if pool is None:
            known = ", ".join(pools)
            yield (*place, "pools", name), f"must be a pool ({known}), got {name}"
        else:
            needed += share.each * pool.least
    if not budget.pools:
        yield (*place, "pools"), "must have at least one pool"
    if needed > budget.limit + ROUNDING:
        rule = f"must be at least {needed:g}, which the least sizes of its pools take"
        yield (*place, "limit"), f"{rule}, got {budget.limit:g}"


def _of_money(
    money: Money, pools: Mapping[str, Described], followers: Collection[str]
) -> Iterator[Problem]:
    limits = {
        "usd_per_hour": (money.usd_per_hour, 1),
        "usd_per_day": (money.usd_per_day, HOURS_A_DAY),
    }
    needed = sum(pool.usd_per_hour * pool.least for pool in pools.values())
    # What is somebody else's has no size here, and what it costs is theirs.
    unpriced = [
        name
        for name, pool in pools.items()
        if not pool.usd_per_hour and (pool.scale is not None or pool.size or name in followers)
    ]
    for key, (limit, hours) in limits.items():
        if limit is None:
            continue
        if unpriced:
            said = f"needs usd_per_hour at each pool: {', '.join(unpriced)} would cost nothing"
            yield ("money", key), said
        elif needed * hours > limit + ROUNDING:
            rule = f"must be at least {needed * hours:g}, which the least sizes cost"
            yield ("money", key), f"{rule}, got {limit:g}"
