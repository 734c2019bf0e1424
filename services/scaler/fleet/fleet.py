"""Keeps the fleet as it should be, wherever its replicas run.

Says how large pools are to be, drains who is to go against what routers report, and publishes each
change. Owns the published states, the revision and the watchers. Deciding never awaits, so nothing
can change between the snapshot and the recording of what was decided. What a target notices it
says the moment it happens, and that is published at once, or with the next round where looking
takes long and much happens. Leaves starting and repairing replicas to the target.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog

from services.common.errors import Unavailable
from services.scaler.config import Scaling
from services.scaler.fleet.gauges import Counted, Gauges
from services.scaler.fleet.members import Member, Members, state_of
from services.scaler.fleet.sizes import Sizes
from services.scaler.fleet.watchers import Seen, Update, Watcher, Watchers
from services.scaler.fleet.wishes import WishBoard
from services.scaler.load.loads import Loads
from services.scaler.load.signals import PoolNow
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import Action, Drain, Release, ReplicaState, decide
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.policy.sizing.settings import Query
from services.scaler.policy.sizing.views import Decision
from services.scaler.pools.pool import Pool
from services.scaler.ports import PoolStatus, ReplicaStatus, Target, Wish

log = structlog.get_logger()

DECIDE_SECONDS = 0.2
ORPHANS_DRAIN_SECONDS = 30.0
"""How long replicas of pools that are no longer configured may finish what they have."""
END_SECONDS = 30.0
"""How long replicas that have drained may take to end when the scaler ends."""
UNSEEN = "the replicas cannot be observed"
WHOLE_SECONDS = 30.0
"""How long watchers are put off after the start while it is not known what a pool has: a part of
the fleet would have them forget the rest. Then what is known is better than nothing."""
_NOTHING = PoolStatus()


@dataclass(frozen=True)
class PoolView:
    """A pool as `ListPools` shows it.

    Attributes:
        pool: the settings it goes by.
        capacity: most replicas that fit; None: not known.
        refused: why these are not those of the file; None: they are.
        held: why nothing is decided of it now; empty: something is.
        decision: why it has this size; None: it is fixed, or nothing was decided yet.
        start_spread: standard deviation of the logarithm of starts; 0: not known.
    """

    name: str
    pool: Pool
    desired: int
    replicas: tuple[Seen, ...]
    capacity: int | None
    trouble: str
    typical_start_seconds: float | None
    refused: SettingsRefusal | None = None
    held: str = ""
    decision: Decision | None = None
    start_spread: float = 0.0


class Fleet:
    """The fleet on one target.

    `sizes` says how large pools are to be, `wishes` hears of it. `file` names where its
    configuration comes from, in logs. `clock` gives monotonic seconds,
    `wall` seconds since the epoch; it decides at the latest `decide_seconds` after it decided last.

    Use: ``await adopt()``, then ``run()`` in a task of its own; ``await end_all()`` before that
    task is cancelled, if no replica shall stay.
    """

    def __init__(
        self,
        scaling: Scaling,
        target: Target,
        loads: Loads,
        metrics: Metrics,
        sizes: Sizes,
        *,
        wishes: WishBoard | None = None,
        file: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        decide_seconds: float = DECIDE_SECONDS,
    ) -> None:
        self._scaling = scaling
        self._file = file
        self._target = target
        self._loads = loads
        self._metrics = metrics
        self._sizes = sizes
        self._wishes = wishes or WishBoard()
        self._gauges = Gauges(metrics)
        self._clock = clock
        self._wall = wall
        self._decide_seconds = decide_seconds
        self._status: Mapping[str, PoolStatus] = {}
        self._seen = True
        self._started = clock()
        self._rested = self._started
        self._held: set[str] = set()  # pools of which nothing may be decided
        self._members = Members()
        self._released: set[str] = set()
        # Milliseconds since the epoch, so that it also grows over restarts of the scaler.
        self._revision = int(wall() * 1000)
        self._watchers = Watchers(on_drop=metrics.dropped_watchers.inc)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._exit_drain_seconds: float | None = None

    async def adopt(self) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        await self._target.open(self._on_change)
        self._refresh(self._clock())
        states = {name: [one.state for one in self._of(name)] for name in self._scaling.pools}
        draining = ReplicaState.DRAINING
        self._sizes.begin(
            {name: len(found) - found.count(draining) for name, found in states.items()}
        )
        self._take_held()

    def configure(self, scaling: Scaling) -> None:
        """Takes a changed configuration. The same once more tries again what was refused."""
        again = scaling == self._scaling
        current = {name: self._size(name) for name in self._scaling.pools}
        self._scaling = scaling
        self._target.configure(scaling, again=again)
        self._sizes.configure(scaling, current)
        self._gauges.keep(self._tiers())
        self._wishes.keep(scaling.pools)
        self._wake.set()

    async def run(self) -> None:
        """Keeps the fleet until cancelled. Leaves the replicas running."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._target.run())
            while True:
                self._wake.clear()
                begun = self._clock()
                self._reconcile()
                await asyncio.sleep(self._rest(begun))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._decide_seconds):
                        await self._wake.wait()

    async def end_all(self, drain_seconds: float) -> None:
        """Drains and ends every replica on this host; draining takes at most `drain_seconds`.

        What cannot be ended within `END_SECONDS` more is left to the next scaler.
        """
        self._exit_drain_seconds = drain_seconds
        self._wake.set()
        try:
            async with asyncio.timeout(drain_seconds + END_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            log.error("some replicas could not be ended; they are on record")  # noqa: TRY400

    def close(self) -> None:
        """Ends the watchers' streams: the scaler is going away."""
        self._watchers.close()

    def watch(self) -> AbstractContextManager[Watcher]:
        """A subscription: the whole fleet, then each change.

        Raises:
            Unavailable: it is not known yet what pools have.
        """
        unknown = [name for name, status in self._status.items() if not status.known]
        if unknown and self._clock() - self._started < WHOLE_SECONDS:
            raise Unavailable(
                f"it is not known yet what pool {unknown[0]} has; watch anew",
                reason="FLEET_NOT_KNOWN",
                retry_after_seconds=1.0,
            )
        whole = tuple(member.seen for member in self._members)
        return self._watchers.subscribe(Update(full=True, replicas=whole, revision=self._revision))

    def wake(self, tier: str) -> float | None:
        """Somebody waits for a tier that has no replica.

        Returns:
            in about how many seconds one is ready; 0: one is; None: none will come.
        """
        names = [name for name, pool in self._scaling.pools.items() if pool.tier == tier]
        if any(one.state is ReplicaState.READY for name in names for one in self._of(name)):
            return 0.0
        if not any(self._size(name) for name in names):
            asleep = [one for one in self._pools_now() if one.name in names and _may_wake(one)]
            if asleep and self._exit_drain_seconds is None:
                first = min(asleep, key=lambda one: (one.pool.usd_per_hour, one.name))
                if not self._sizes.woken(first.name):
                    self._sizes.wake(first.name)
                    self._reconcile()
        coming = [name for name in names if self._size(name)]
        return min((self._start_seconds(name) for name in coming), default=None)

    @property
    def configured(self) -> Mapping[str, Pool]:
        """The pools of the file in force."""
        return self._scaling.pools

    def metrics_pages(self) -> Iterator[tuple[str, str]]:
        """Id and host:port of the metrics page of each replica that is ready and has one."""
        for member in self._members:
            if member.state is ReplicaState.READY and member.status.metrics_address:
                yield member.replica.id, member.status.metrics_address

    def queries(self) -> dict[tuple[str, str], Query]:
        """The queries of all pools, by pool and name."""
        return {
            (name, query): asked
            for name in self._scaling.pools
            if (scale := self._settings(name).scale) is not None
            for query, asked in scale.queries.items()
        }

    def pools(self) -> list[PoolView]:
        """Every configured pool, by name."""
        return [self._view(name) for name in sorted(self._scaling.pools)]

    def _view(self, name: str) -> PoolView:
        status, sized = self._status.get(name, _NOTHING), self._sizes.sized(name)
        return PoolView(
            name=name,
            pool=self._settings(name),
            desired=self._size(name),
            replicas=tuple(member.seen for member in self._of(name)),
            capacity=status.capacity,
            trouble=self._trouble(name),
            typical_start_seconds=status.typical_start_seconds,
            refused=status.refused,
            held=status.held if self._seen else UNSEEN,
            decision=None if sized is None else sized.decision,
            start_spread=status.start_spread,
        )

    def _on_change(self) -> None:
        now = self._clock()
        if now >= self._rested:
            self._refresh(now)
            self._rest(now)
        self._wake.set()

    def _rest(self, begun: float) -> float:
        """Rests as long as something took: looks and rounds have half of the time at most.

        Returns:
            for how many seconds.
        """
        ended = self._clock()
        self._rested = ended + (ended - begun)
        return ended - begun

    # Nothing below awaits.

    def _reconcile(self) -> None:
        now = self._clock()
        self._refresh(now)
        if self._seen:
            self._take_held()
            self._decide_sizes(now)
            for name in sorted({*self._scaling.pools, *self._status}):
                self._reconcile_pool(name, now)
            exiting = self._exit_drain_seconds is not None
            if exiting and all(
                status.empty for name, status in self._status.items() if self._ends(name)
            ):
                self._empty.set()
        self._count(now)

    def _take_held(self) -> None:
        """Takes of which pools nothing may be decided. One that is free begins with what it has."""
        before, status = self._held, self._status
        self._held = {name for name in self._scaling.pools if status.get(name, _NOTHING).held}
        for name in (before & self._scaling.pools.keys()) - self._held:
            serving = [one for one in self._of(name) if one.state is not ReplicaState.DRAINING]
            self._sizes.adopt(name, len(serving) + status.get(name, _NOTHING).pending)

    def _decide_sizes(self, now: float) -> None:
        if self._exit_drain_seconds is not None or not self._sizes.due(now):
            return
        wall = self._wall()
        decided = self._sizes.tick(self._pools_now(), now=now, wall=wall, held=self._held)
        for name, decision in decided.items():
            self._gauges.decided(name, self._settings(name).tier, decision, now)

    def _pools_now(self) -> list[PoolNow]:
        return [self._pool_now(name) for name in self._scaling.pools]

    def _pool_now(self, name: str) -> PoolNow:
        """The pool for the sizes. While it is rolled out those of before still count."""
        members, status = self._of(name), self._status.get(name, _NOTHING)
        ready = [one for one in members if one.state is ReplicaState.READY and one.stays]
        starting = status.pending + sum(
            one.state is ReplicaState.STARTING and not one.status.outdated for one in members
        )
        return PoolNow(
            name,
            self._settings(name),
            ready=tuple(one.replica.id for one in ready),
            starting=min(starting, max(self._size(name) - len(ready), 0)),
            fits=status.capacity,
            start_seconds=self._start_seconds(name),
            woken=self._sizes.woken(name),
        )

    def _start_seconds(self, name: str) -> float:
        """How long a start takes, as measured; before any was, the longest that it may."""
        typical = self._status.get(name, _NOTHING).typical_start_seconds
        return self._settings(name).start_seconds if typical is None else typical

    def _reconcile_pool(self, name: str, now: float) -> None:
        status = self._status.get(name, _NOTHING)
        drain_seconds = self._drain_seconds(name)
        members = {member.replica.id: member for member in self._of(name)}
        loaded = [member.loaded(self._loads, now) for member in members.values()]
        size = len(loaded) if status.held else self._size(name)
        for action in decide(size, loaded, drain_seconds=drain_seconds, now=now):
            self._act(members[action.replica], action, now)
        if status.held:
            if name in self._scaling.pools:
                self._wishes.note(name, None)
            return
        draining = {
            member.replica.id for member in self._of(name) if member.state is ReplicaState.DRAINING
        }
        if name in self._scaling.pools:
            wall = self._wall()
            self._wishes.note(name, Wish(size + len(draining), active=size > 0, since=wall))
        there = {each.replica.id for each in status.replicas}
        self._target.resize(name, size, draining=draining, drained=self._released & there)

    def _refresh(self, now: float) -> None:
        """Takes and publishes what the target says. What it cannot see stays as it was known."""
        status = self._target.observe()
        if (status is not None) is not self._seen:
            log.warning("replicas seen again" if status is not None else UNSEEN)
            self._seen = status is not None
        if status is None:
            return
        for name, pool in status.items():
            if pool.refused is not None and pool.refused != self._refused(name):
                self._tell(name, pool.refused)
        if _room(status) != _room(self._status):
            self._sizes.hurry()
        self._status = status
        found = {each.replica.id: each for pool in status.values() for each in pool.replicas}
        self._released &= found.keys()
        for replica_id in set(self._members.ids) - found.keys():
            self._forget(replica_id)
        for replica_id, replica in found.items():
            member = self._members.get(replica_id)
            if member is not None:
                self._update(member, replica, now)
            elif replica_id not in self._released:
                member = Member(replica, state_of(replica), now)
                self._members.add(member)
                self._publish(member.seen)

    def _update(self, member: Member, status: ReplicaStatus, now: float) -> None:
        before, member.status = member.seen, status
        if (state := state_of(status, member.state)) is not member.state:
            member.state, member.since = state, now
        if member.seen != before:
            self._publish(member.seen)

    def _act(self, member: Member, action: Action, now: float) -> None:
        match action:
            case Drain(replica_id, reason):
                log.info("draining", replica=replica_id, reason=reason)
                member.state, member.since = ReplicaState.DRAINING, now
                self._publish(member.seen)
            case Release(replica_id, reason):
                log.info("releasing", replica=replica_id, reason=reason)
                if member.state is ReplicaState.DRAINING:
                    labels = self._labels(member.replica.pool)
                    self._metrics.drain_seconds.labels(*labels).observe(now - member.since)
                self._released.add(replica_id)
                self._forget(replica_id)

    def _forget(self, replica_id: str) -> None:
        member = self._members.pop(replica_id)
        self._publish(Seen(member.replica, ReplicaState.GONE))

    def _publish(self, seen: Seen) -> None:
        self._revision += 1
        self._watchers.publish(Update(full=False, replicas=(seen,), revision=self._revision))

    def _size(self, pool: str) -> int:
        """Replicas wanted. A pool that is no longer configured wants none."""
        if pool not in self._scaling.pools or (
            self._exit_drain_seconds is not None and self._ends(pool)
        ):
            return 0
        status, settings = self._status.get(pool, _NOTHING), self._settings(pool)
        if settings.external is not None:  # as many as somebody else runs
            return len(status.replicas)
        wanted = self._sizes.wanted(pool, settings)
        return wanted if status.by_hand is None else status.by_hand

    def _ends(self, pool: str) -> bool:
        """Whether its replicas end with us; those of a cluster and of others do not."""
        configured = self._scaling.pools.get(pool)
        return configured is None or bool(configured.slots)

    def _settings(self, pool: str) -> Pool:
        """What a configured pool goes by: its file, or where that is refused the last good ones."""
        return self._status.get(pool, _NOTHING).in_force or self._scaling.pools[pool]

    def _refused(self, pool: str) -> SettingsRefusal | None:
        return self._status.get(pool, _NOTHING).refused

    def _tell(self, pool: str, refused: SettingsRefusal) -> None:
        log.error(
            "the new settings of a pool are refused; it goes on with the last good ones",
            file=self._file,
            pool=pool,
            reason=refused.reason,
            changed={change.key: change.value for change in refused.changes},
            in_force={change.key: change.before for change in refused.changes},
        )

    def _drain_seconds(self, pool: str) -> float:
        configured = pool in self._scaling.pools
        seconds = self._settings(pool).drain_seconds if configured else ORPHANS_DRAIN_SECONDS
        at_exit = self._exit_drain_seconds
        return seconds if at_exit is None else min(seconds, at_exit)

    def _trouble(self, pool: str) -> str:
        if not self._seen:
            return UNSEEN
        said = [self._status.get(pool, _NOTHING).trouble]
        if pool in self._scaling.pools:
            said += self._sizes.troubles(pool, self._settings(pool), self._clock())
        return "; ".join(filter(None, said))

    def _of(self, pool: str) -> list[Member]:
        return self._members.of(pool)

    # Counting.

    def _labels(self, pool: str) -> tuple[str, str]:
        """Pool and tier. A pool that is no longer configured has no tier."""
        return pool, self._settings(pool).tier if pool in self._scaling.pools else ""

    def _tiers(self) -> dict[str, str]:
        return dict(map(self._labels, self._scaling.pools))

    def _count(self, now: float) -> None:
        self._metrics.routers.set(self._loads.routers(now))
        self._metrics.silent_routers.set(len(self._loads.silent(now)))
        self._metrics.watchers.set(len(self._watchers))
        self._gauges.keep(self._tiers())
        for name in self._scaling.pools:
            status, settings = self._status.get(name, _NOTHING), self._settings(name)
            counted = Counted(
                tier=settings.tier,
                desired=self._size(name),
                states=[member.state for member in self._of(name)],
                pending=status.pending,
                ending=status.ending,
                troubled=bool(self._trouble(name)),
                refused=status.refused is not None,
                usd_per_hour=settings.usd_per_hour,
                sized=self._sizes.sized(name),
            )
            self._gauges.show(name, counted)


def _room(status: Mapping[str, PoolStatus]) -> dict[str, tuple[int | None, int]]:
    """Most replicas that fit in each pool, and how many of those there are to be taken away."""
    return {
        name: (pool.capacity, sum(bool(one.notice) for one in pool.replicas))
        for name, pool in status.items()
    }


def _may_wake(one: PoolNow) -> bool:
    """Whether a pool without replicas may have one when somebody asks for it."""
    scale = one.pool.scale
    return scale is not None and scale.zero is not None and one.fits != 0
