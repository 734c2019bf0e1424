"""How many replicas a pool should have: what is measured and what the policy says go in.

Pure: the same memory and view give the same decision. `decide` is for one pool by itself. It takes
what the file says (`Scale`), what it kept at the tick before (`SizeMemory`, at first
`SizeMemory(size)`) and what is seen now (`View`), and gives back a `Decision` and what to keep.
Call it once a tick, every 5 to 15 seconds.
"""

from dataclasses import replace

from services.scaler.policy.sizing import limits, why
from services.scaler.policy.sizing.memory import SizeMemory
from services.scaler.policy.sizing.override import Override
from services.scaler.policy.sizing.path import Wish, wished
from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.views import Decision, View

__all__ = ["SizeMemory", "decide"]


def decide(
    scale: Scale, memory: SizeMemory, view: View, override: Override | None = None
) -> tuple[Decision, SizeMemory]:
    """The size of one pool now, and what to keep.

    Args:
        scale: how its size follows what is asked of it.
        memory: what was kept at the tick before.
        view: the pool.
        override: what somebody set against the policy; None: nothing.
    """
    wish, after = wished(scale, memory, view, override)
    return concluded(scale, wish, after, view)


def concluded(
    scale: Scale, wish: Wish, memory: SizeMemory, view: View
) -> tuple[Decision, SizeMemory]:
    """The decision in words and money, and the memory with the size in it."""
    size, before = wish.size, memory.size
    price = view.usd_per_hour if 0 < view.usd_per_hour < 1e9 else 0.0  # noqa: PLR2004 - a bound
    demand = None if wish.demand is None else wish.demand.rate / wish.demand.usable
    decision = Decision(
        size=size,
        before=before,
        constraints=wish.constraints,
        usd_per_hour_before=before * price,
        usd_per_hour=size * price,
        demand=demand,
        why=why.why(size, wish.constraints),
        why_not_fewer=why.why_not_fewer(size, wish.constraints),
        why_not_more=why.why_not_more(size, wish.constraints),
    )
    past = limits.changed(scale.behavior, memory.past, view.now, size - before)
    return decision, replace(memory, size=size, past=past)
