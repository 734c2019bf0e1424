"""How large pools are to be: asks the core at each tick, and keeps what it wants kept.

A pool without `scale` has the size of its file at once, whatever the ticks do. Leaves to `signals`
what is known of pools, to the core what follows from it, to the fleet that it comes to be so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.scaler.config import Pool, Scaling
from services.scaler.load.signals import PoolNow, Signals
from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.signals import asked_by
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Decision, View
from services.scaler.policy.sizing.work import fresh
from services.scaler.ports import Decisions, Overrides

log = structlog.get_logger()

DEMAND = "demand"
"""What routers report, among the names of signals."""
UNDECIDED = "its size cannot be decided, it stays; the scaler's log has the details"


@dataclass(frozen=True)
class Sized:
    """What came of a pool's last tick.

    Attributes:
        decision: its size, and why.
        stale: signals of its policy that say nothing now.
    """

    decision: Decision
    stale: tuple[str, ...] = ()


class Sizes:
    """The sizes of all pools, and what the core remembers of them."""

    def __init__(
        self,
        scaling: Scaling,
        signals: Signals,
        *,
        decisions: Decisions | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        """Nothing is decided yet: every pool has the size it begins with.

        Args:
            scaling: the policy.
            signals: what is known of pools.
            decisions: where each decision goes; None: nowhere.
            overrides: what operators set against the policy; None: nothing.
        """
        self._signals = signals
        self._decisions = decisions
        self._overrides = overrides
        self._memories: dict[str, SizeMemory] = {}
        self._sized: dict[str, Sized] = {}
        self._undecided: set[str] = set()
        self._woken: set[str] = set()
        self._ticked: float | None = None
        self._scaling = scaling

    def begin(self, pool: str, there: int) -> None:
        """Takes how many replicas an earlier scaler left of a pool, before the first tick.

        They stay until it is known what is asked of them.
        """
        settings = self._scaling.pools.get(pool)
        if settings is not None and settings.scale is not None:
            size = min(max(there, settings.first), settings.scale.max)
            self._memories[pool] = SizeMemory(size)

    def configure(self, scaling: Scaling, current: Mapping[str, int]) -> None:
        """Takes a changed policy; what is remembered stays, and the next tick is due.

        Args:
            scaling: the policy.
            current: replicas wanted of each pool until now.
        """
        self._scaling = scaling
        for name in {*self._memories, *self._sized} - scaling.pools.keys():
            self._memories.pop(name, None)
            self._sized.pop(name, None)
        for name, pool in scaling.pools.items():
            if pool.scale is None:
                self._memories.pop(name, None)
                self._sized.pop(name, None)
            elif name not in self._memories and name in current:
                self._memories[name] = SizeMemory(current[name])
        self._undecided &= self._memories.keys()
        self._woken &= self._memories.keys()
        self._ticked = None

    def wanted(self, name: str, settings: Pool) -> int:
        """Replicas wanted of a pool that goes by these settings."""
        if settings.scale is None:
            return settings.first
        memory = self._memories.get(name)
        return settings.first if memory is None else memory.size

    def sized(self, name: str) -> Sized | None:
        """What came of the pool's last tick; None: it has a fixed size, or there was none."""
        return self._sized.get(name)

    def troubles(self, name: str, settings: Pool, now: float) -> list[str]:
        """What keeps the pool from the right size, a sentence each."""
        undecided = [UNDECIDED] if name in self._undecided else []
        return [*undecided, *self._signals.troubles(name, settings, now)]

    def wake(self, name: str) -> None:
        """Somebody asks for a pool without replicas; the next tick is due."""
        self._woken.add(name)
        self._ticked = None

    def due(self, now: float) -> bool:
        """Whether it is time for the next tick."""
        return self._ticked is None or now - self._ticked >= self._scaling.tick_seconds

    def woken(self, name: str) -> bool:
        """Whether somebody waits for its first replica."""
        return name in self._woken

    def tick(self, pools: Sequence[PoolNow], *, now: float, wall: float) -> dict[str, Decision]:
        """Decides the sizes of all pools.

        Args:
            pools: all that are configured.
            now: monotonic seconds.
            wall: the same in seconds since 1970.

        Returns:
            what was decided, by pool.
        """
        self._ticked = now
        views = self._signals.views(pools, now=now, wall=wall)
        decided: dict[str, Decision] = {}
        for one in pools:
            if one.ready:
                self._woken.discard(one.name)
            if one.pool.scale is None:
                continue
            view = views[one.name]
            decision = self._decide(one, one.pool.scale, view)
            if decision is None:
                continue
            decided[one.name] = decision
            self._sized[one.name] = Sized(decision, stale_signals(one.pool.scale, view))
            if self._decisions is not None:
                self._decisions.take(one.name, decision, wall)
        return decided

    def _decide(self, one: PoolNow, scale: Scale, view: View) -> Decision | None:
        """One pool's size; None: it could not be decided, which is no other pool's concern."""
        memory = self._memories.get(one.name) or SizeMemory(one.pool.first)
        override = None if self._overrides is None else self._overrides.of(one.name, view.wall)
        try:
            decision, memory = decide(scale, memory, view, override)
        except Exception:
            if one.name not in self._undecided:
                log.exception("a size cannot be decided", pool=one.name)
            self._undecided.add(one.name)
            self._memories[one.name] = SizeMemory(memory.size)  # what it remembered may be why
            return None
        self._undecided.discard(one.name)
        self._memories[one.name] = memory
        if decision.size != decision.before:
            log.info(
                "the size of a pool changes",
                pool=one.name,
                size=decision.size,
                before=decision.before,
                why=decision.why,
            )
        return decision


def stale_signals(scale: Scale, view: View) -> tuple[str, ...]:
    """Signals of a policy that say nothing, by name."""
    traffic = fresh(view.traffic, view.now, scale.stale_seconds)
    missing = [DEMAND] if scale.work is not None and traffic is None else []
    asked = asked_by(scale, view, view.ready)
    return (*missing, *(one.name for one in asked if one.size is None))
