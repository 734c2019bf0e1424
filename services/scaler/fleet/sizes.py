"""How large pools are to be: asks the core at each tick, and keeps what it wants kept.

A pool without `scale` has the size of its file at once, whatever the ticks do. Leaves to `signals`
what is known of pools, to the core what follows from it, to the fleet that it comes to be so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from services.common.durations import bounded
from services.scaler.config import Scaling
from services.scaler.load.signals import PoolNow, Signals
from services.scaler.policy.sizing.capacity import Learned
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.signals import asked_by
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, SizeMemory, decide_all
from services.scaler.policy.sizing.spot import MixMemory
from services.scaler.policy.sizing.views import Decision, View
from services.scaler.policy.sizing.work import WorkMemory, fresh
from services.scaler.pools.pool import Pool
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
        self._memory = AllMemory()
        self._wanted: dict[str, int] = {}
        self._sized: dict[str, Sized] = {}
        self._undecided: set[str] = set()
        self._woken: set[str] = set()
        self._ticked: float | None = None
        self._scaling = scaling
        self.begin({})

    def begin(self, there: Mapping[str, int]) -> None:
        """Begins with what an earlier scaler left, which stays until it is known what is asked.

        Args:
            there: replicas by pool.
        """
        self._wanted = {}
        for name, pool in self._scaling.pools.items():
            if pool.scale is not None:
                self._wanted[name] = min(max(there.get(name, 0), pool.first), pool.scale.max)
        for spot in _spots(self._scaling):
            self._wanted[spot] = there.get(spot, 0)
        self._memory = _remembering(self._scaling, self._wanted, self._memory)

    def lasting(self) -> Lasting:
        """What the next scaler may `recall`."""
        memory = self._memory
        work = {
            (name, pool.model, pool.precision): memory.pools[name].work.lasting()
            for name, pool in self._scaling.pools.items()
            if name in memory.pools
        }
        return Lasting(memory.spent, work)

    def recall(self, lasting: Lasting) -> None:
        """Takes up what an earlier scaler has spent and learned; sizes stay as they are."""
        pools = dict(self._memory.pools)
        for name, model, precision in lasting.work:
            settings = self._scaling.pools.get(name)
            if (
                name in pools
                and settings
                and (settings.model, settings.precision) == (model, precision)
            ):
                pools[name] = replace(pools[name], work=lasting.work[name, model, precision])
        self._memory = replace(self._memory, pools=pools, spent=lasting.spent)

    def adopt(self, name: str, there: int) -> None:
        """Begins anew with what a pool has of which nothing could be decided until now.

        Args:
            name: of the pool.
            there: its replicas, those on their way included.
        """
        pool = self._scaling.pools[name]
        base = _spots(self._scaling).get(name, name)
        if pool.scale is not None:
            self._wanted[name] = min(max(there, pool.first), pool.scale.max)
        elif base != name:
            self._wanted[name] = there
        else:  # as its file has it
            return
        anew = _remembering(self._scaling, self._wanted, self._memory)
        mixes = {base: anew.mixes[base]} if base in anew.mixes else {}
        self._memory = replace(
            self._memory,
            pools={**self._memory.pools, base: anew.pools[base]},
            mixes={**self._memory.mixes, **mixes},
        )
        self._ticked = None

    def configure(self, scaling: Scaling, current: Mapping[str, int]) -> None:
        """Takes a changed policy; what is remembered stays, and the next tick is due.

        Args:
            scaling: the policy.
            current: replicas wanted of each pool until now.
        """
        before, after = _spots(self._scaling), _spots(scaling)
        self._scaling = scaling
        sized = {name for name, pool in scaling.pools.items() if pool.scale is not None}
        sized |= after.keys()
        self._wanted = {name: current.get(name, scaling.pools[name].first) for name in sized}
        self._sized = {name: one for name, one in self._sized.items() if name in scaling.pools}
        # Whose size is split now, or is no longer, begins anew with what there is.
        anew = _remembering(scaling, self._wanted, self._memory)
        other = {name for pair in before.items() ^ after.items() for name in pair}
        pools = {
            name: one
            for name, one in self._memory.pools.items()
            if name in scaling.pools and name not in other
        }
        mixes = {name: one for name, one in self._memory.mixes.items() if name in pools}
        self._memory = replace(
            self._memory, pools={**anew.pools, **pools}, mixes={**anew.mixes, **mixes}
        )
        self._undecided &= sized
        self._woken &= sized
        self._ticked = None

    def wanted(self, name: str, settings: Pool) -> int:
        """Replicas wanted of a pool that goes by these settings."""
        return self._wanted.get(name, settings.first)

    def sized(self, name: str) -> Sized | None:
        """What came of the pool's last tick; None: it has a fixed size, or there was none."""
        return self._sized.get(name)

    def learned(self, name: str) -> Learned:
        """What was learned of a pool's replicas; nothing, where nothing was."""
        memory = self._memory.pools.get(name)
        return Learned() if memory is None else memory.work.learned

    def troubles(self, name: str, settings: Pool, now: float) -> list[str]:
        """What keeps the pool from the right size, a sentence each."""
        undecided = [UNDECIDED] if name in self._undecided else []
        return [*undecided, *self._signals.troubles(name, settings, now)]

    def wake(self, name: str) -> None:
        """Somebody asks for a pool without replicas; the next tick is due."""
        self._woken.add(name)
        self._ticked = None

    def hurry(self) -> None:
        """The next tick is due: there is more room, or less."""
        self._ticked = None

    def due(self, now: float) -> bool:
        """Whether it is time for the next tick."""
        return self._ticked is None or now - self._ticked >= self._scaling.tick_seconds

    def woken(self, name: str) -> bool:
        """Whether somebody waits for its first replica."""
        return name in self._woken

    def tick(
        self,
        pools: Sequence[PoolNow],
        *,
        now: float,
        wall: float,
        held: Collection[str] = (),
    ) -> dict[str, Decision]:
        """Decides the sizes of all pools.

        Args:
            pools: all that are configured.
            held: pools of which nothing may be decided now.
            now: monotonic seconds.
            wall: the same in seconds since 1970.

        Returns:
            what was decided, by pool.
        """
        self._ticked, wall = now, bounded(wall)
        seen = self._signals.views(pools, now=now, wall=wall)
        policies, unread = self._policies(pools, wall)
        held = {*held, *unread}
        views = {name: view for name, view in seen.items() if name not in held}
        for one in pools:
            if one.ready:
                self._woken.discard(one.name)
        everything = self._decide(policies, views)
        self._undecided |= unread
        decided = {name: one for name, one in everything.items() if name not in held}
        for name, decision in decided.items():
            scale = policies[name].scale
            stale = () if scale is None else stale_signals(scale, views[name])
            self._sized[name] = Sized(decision, stale)
            if scale is None and decision.size == policies[name].size:
                self._wanted.pop(name, None)  # as its file has it, whenever that changes
            else:
                self._wanted[name] = decision.size
            if decision.size != decision.before:
                log.info(
                    "the size of a pool changes",
                    pool=name,
                    size=decision.size,
                    before=decision.before,
                    why=decision.why,
                )
            if self._decisions is not None:
                self._decisions.take(name, decision, wall)
        return decided

    def _policies(
        self, pools: Sequence[PoolNow], wall: float
    ) -> tuple[dict[str, PoolPolicy], set[str]]:
        """What each pool goes by, and those of which nobody can say what is set against it."""
        found: dict[str, PoolPolicy] = {}
        unread: set[str] = set()
        for one in pools:
            override = None
            try:
                if self._overrides is not None:
                    override = self._overrides.of(one.name, wall)
            except Exception:  # it holds up no other pool
                unread.add(one.name)
                if one.name not in self._undecided:
                    log.exception("an override cannot be read", pool=one.name)
            found[one.name] = PoolPolicy(one.pool.scale, one.pool.first, override)
        return found, unread

    def _decide(
        self, policies: Mapping[str, PoolPolicy], views: Mapping[str, View]
    ) -> dict[str, Decision]:
        """All sizes. A pool that cannot be decided keeps its own, and is no other's concern."""
        budgets, money = self._scaling.budgets, self._scaling.money
        undecided: set[str] = set()
        try:
            decided, memory = decide_all(policies, budgets, money, self._memory, views)
        except Exception:
            undecided = self._wrong(policies, views)
            if not undecided <= self._undecided:
                log.exception("sizes cannot be decided", pools=sorted(undecided))
            pools = {
                name: SizeMemory(one.size) if name in undecided else one
                for name, one in self._memory.pools.items()
            }  # what it remembered may be why
            seen = {name: view for name, view in views.items() if name not in undecided}
            try:
                before = replace(self._memory, pools=pools)
                decided, memory = decide_all(policies, budgets, money, before, seen)
            except Exception:
                log.exception("no size can be decided")
                spent = AllMemory(spent=self._memory.spent)
                decided, memory = {}, _remembering(self._scaling, self._wanted, spent)
                undecided = set(policies)
        self._undecided, self._memory = undecided, memory
        return decided

    def _wrong(self, policies: Mapping[str, PoolPolicy], views: Mapping[str, View]) -> set[str]:
        """Pools that cannot even be decided by themselves, those on spot with theirs."""
        found: set[str] = set()
        spots = _spots(self._scaling)
        bases = {base: spot for spot, base in spots.items()}
        for name in policies.keys() - spots.keys():
            some = {one for one in (name, bases.get(name, name)) if one in policies}
            alone = {one: policies[one] for one in some}
            try:
                decide_all(alone, {}, None, self._memory, {one: views[one] for one in some})
            except Exception:  # noqa: BLE001 -- whatever it is, it was told with the first one
                found |= some
        return found


def _spots(scaling: Scaling) -> dict[str, str]:
    """By pools on spot whose size follows from another's: that other."""
    return {
        pool.scale.spot.pool: name
        for name, pool in scaling.pools.items()
        if pool.scale is not None and pool.scale.spot is not None
    }


def _remembering(scaling: Scaling, wanted: Mapping[str, int], before: AllMemory) -> AllMemory:
    """What the core begins with where so many replicas are wanted of pools.

    What was spent and what was learned until now holds for it too.
    """
    sizes, mixes = dict(wanted), {}
    for spot, base in _spots(scaling).items():
        sizes[base] = wanted[base] + wanted[spot]
        mixes[base] = MixMemory(on_demand=wanted[base])
    known = {name: one.work.lasting() for name, one in before.pools.items()}
    pools = {
        name: SizeMemory(size, work=known.get(name, WorkMemory())) for name, size in sizes.items()
    }
    return AllMemory(pools, mixes, spent=before.spent)


def stale_signals(scale: Scale, view: View) -> tuple[str, ...]:
    """Signals of a policy that say nothing, by name."""
    traffic = fresh(view.traffic, view.now, scale.stale_seconds)
    missing = [DEMAND] if scale.work is not None and traffic is None else []
    asked = asked_by(scale, view, view.ready)
    return (*missing, *(one.name for one in asked if one.size is None))
