"""What each pool asks for before what is shared is given out: of a fixed size, by itself, on spot.

Pure. A pool that cannot be seen asks for what it had. A pool with a second one on spot capacity is
sized with it as one, and the size is then split between both.
"""

from dataclasses import dataclass

from services.scaler.policy.sizing.memory import SizeMemory
from services.scaler.policy.sizing.override import Override, OverrideKind, in_force, overridden
from services.scaler.policy.sizing.path import Wish, wished
from services.scaler.policy.sizing.settings import Scale, Spot
from services.scaler.policy.sizing.spot import Mix, MixMemory, mixed, together
from services.scaler.policy.sizing.views import Bound, Constraint, View

UNSEEN = "what replicas there are"


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """What is set for one pool.

    Attributes:
        scale: how its size follows what is asked of it; None: it does not.
        size: replicas of a pool without `scale`.
        override: what somebody set against it; None: nothing.
    """

    scale: Scale | None
    size: int = 0
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """A pool on its way to a decision.

    Attributes:
        wish: what it would have.
        memory: of its size; of a pool with one on spot, of the size of both.
        before: replicas it had wanted.
        mix: of the pool on demand, where one on spot goes with it.
    """

    wish: Wish
    memory: SizeMemory
    before: int
    mix: MixMemory | None = None


def asking_by_itself(
    policy: PoolPolicy, known: SizeMemory | None, view: View | None
) -> Asking | None:
    """What a pool asks for that has none on spot; None: it was never seen."""
    if policy.scale is None:
        before = known or SizeMemory(policy.size)
        return Asking(_fixed(policy, before.size, view), before, before.size)
    if view is None:
        return None if known is None else Asking(_unseen(known.size), known, known.size)
    before = known or SizeMemory(view.ready + view.starting)
    wish, after = wished(policy.scale, before, view, policy.override)
    return Asking(wish, after, before.size)


def asking_with_spot(
    policy: PoolPolicy,
    scale: Scale,
    split: Spot,
    *,
    of_spot: PoolPolicy,
    known: tuple[SizeMemory | None, SizeMemory | None, MixMemory | None],
    views: tuple[View | None, View | None],
) -> tuple[Asking | None, Asking | None]:
    """What a pool on demand and the one on spot that goes with it ask for.

    Args:
        policy: of the pool on demand.
        scale: of the same.
        split: which part goes on spot.
        of_spot: the policy of the pool on spot.
        known: memory of the size of both, of the size on spot, and of the mix; None: none yet.
        views: of both; None: it cannot be seen.
    """
    size, on_spot, mix = known
    view, spot_view = views
    if view is None or spot_view is None:
        # Half of a tier says nothing of the whole: both keep what they have.
        demand = None if size is None or mix is None else mix.on_demand
        return (
            None if size is None or demand is None else Asking(_unseen(demand), size, demand, mix),
            None if on_spot is None else Asking(_unseen(on_spot.size), on_spot, on_spot.size),
        )
    both = together(view, spot_view)
    size = size or SizeMemory(both.ready + both.starting)
    on_spot = on_spot or SizeMemory(spot_view.ready + spot_view.starting)
    mix = mix or MixMemory(on_demand=view.ready + view.starting)
    wish, after = wished(scale, size, both, policy.override)
    split_now, mix_after = mixed(
        split,
        mix,
        target=wish.size,
        ready=spot_view.ready,
        now=view.now,
        start_seconds=both.start_seconds,
    )
    demand_wish = _part(wish, split_now, split_now.on_demand, wish.least, view)
    of_least = max(wish.least - demand_wish.least, 0)
    spot_wish = _part(wish, split_now, split_now.spot, of_least, spot_view)
    spot_wish = _overruled(of_spot, spot_wish, on_spot.size, spot_view)
    return (
        Asking(demand_wish, after.sized(scale.behavior, wish.size), mix.on_demand, mix_after),
        Asking(spot_wish, on_spot, on_spot.size),
    )


def _part(wish: Wish, mix: Mix, size: int, least: int, view: View) -> Wish:
    """The wish of one of both pools."""
    said = f"of {wish.size} replicas {mix.on_demand} are to be on demand"
    constraints = [
        *wish.constraints,
        Constraint(Bound.SPOT, size, said, mix.serving, mix.spot),
    ]
    if view.fits is not None and size > view.fits:
        asked, size = size, max(view.fits, 0)
        constraints.append(Constraint(Bound.ROOM, size, value=asked, limit=view.fits))
    return Wish(size, min(least, size), tuple(constraints), wish.demand)


def _fixed(policy: PoolPolicy, before: int, view: View | None) -> Wish:
    fixed = Wish(
        policy.size, policy.size, (Constraint(Bound.FIXED, policy.size, limit=policy.size),)
    )
    return fixed if view is None else _overruled(policy, fixed, before, view)


def _overruled(policy: PoolPolicy, wish: Wish, before: int, view: View) -> Wish:
    """The wish under the pool's own override, and within the room there is."""
    given = in_force(policy.override, view.wall)
    if given is None:
        return wish
    size, constraint = overridden(given, wanted=wish.size, current=before)
    constraints = (*wish.constraints, constraint)
    if view.fits is not None and size > view.fits:
        asked, size = size, max(view.fits, 0)
        room = Constraint(Bound.ROOM, size, value=asked, limit=view.fits)
        constraints = (*constraints, room)
    kept = size if given.kind is not OverrideKind.NO_SCALE_DOWN else min(wish.least, size)
    return Wish(size, kept, constraints, wish.demand)


def _unseen(size: int) -> Wish:
    return Wish(size, size, (Constraint(Bound.STALE, size, UNSEEN),))
