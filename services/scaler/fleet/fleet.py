"""Keeps the fleet as it should be, wherever its replicas run.

Says how large pools are to be, and drains who is to go against what routers report. Deciding never
awaits, so nothing can change between the snapshot and the recording of what was decided. What a
target notices it says the moment it happens, and that is published at once, or with the next round
where looking takes long and much happens. Leaves starting and repairing replicas to the target, to
`published` what watchers hear, to `pools` what is known of each.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import structlog

from services.common.durations import wall_clock
from services.common.errors import Unavailable
from services.scaler.config import Scaling
from services.scaler.fleet.gauges import Counted, Gauges
from services.scaler.fleet.members import Member
from services.scaler.fleet.pools import Pools, PoolView
from services.scaler.fleet.published import Published
from services.scaler.fleet.sizes import Sizes
from services.scaler.fleet.watchers import Watcher
from services.scaler.fleet.wishes import WishBoard
from services.scaler.load.loads import Loads
from services.scaler.load.signals import PoolNow
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import Action, Drain, Release, ReplicaState, decide
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.settings import Query
from services.scaler.pools.pool import Pool
from services.scaler.ports import Target, Wish

log = structlog.get_logger()

DECIDE_SECONDS = 0.2
END_SECONDS = 30.0
"""How long replicas that have drained may take to end when the scaler ends."""
WHOLE_SECONDS = 30.0
"""How long watchers are put off after the start while it is not known what a pool has: a part of
the fleet would have them forget the rest. Then what is known is better than nothing."""


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
        wall: Callable[[], float] = wall_clock,
        decide_seconds: float = DECIDE_SECONDS,
    ) -> None:
        self._target = target
        self._loads = loads
        self._metrics = metrics
        self._sizes = sizes
        self._wishes = wishes or WishBoard()
        self._gauges = Gauges(metrics)
        self._clock = clock
        self._wall = wall
        self._decide_seconds = decide_seconds
        self._pools = Pools(scaling, sizes, clock, file)
        self._started = clock()
        self._rested = self._started
        self._held: set[str] = set()  # pools of which nothing may be decided
        # Milliseconds since the epoch, so that it also grows over restarts of the scaler.
        self._published = Published(
            revision=int(wall() * 1000), on_drop=metrics.dropped_watchers.inc
        )
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()

    async def adopt(self) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        await self._target.open(self._on_change)
        self._refresh(self._clock())
        states = {name: [one.state for one in self._of(name)] for name in self._pools.configured}
        draining = ReplicaState.DRAINING
        self._sizes.begin(
            {name: len(found) - found.count(draining) for name, found in states.items()}
        )
        self._take_held()

    def lasting(self) -> Lasting:
        """What the next scaler may `recall`."""
        return replace(self._sizes.lasting(), starts=self._pools.lasting_starts())

    def recall(self, lasting: Lasting) -> None:
        """Takes up what an earlier scaler has spent and learned; sizes stay as they are."""
        self._sizes.recall(lasting)
        self._pools.recall(lasting.starts)

    def configure(self, scaling: Scaling) -> None:
        """Takes a changed configuration. The same once more tries again what was refused."""
        again = scaling == self._pools.scaling
        current = {name: self._pools.size(name) for name in self._pools.configured}
        self._pools.scaling = scaling
        self._target.configure(scaling, again=again)
        self._sizes.configure(scaling, current)
        self._gauges.keep(self._pools.tiers())
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
        self._pools.exit_drain_seconds = drain_seconds
        self._wake.set()
        try:
            async with asyncio.timeout(drain_seconds + END_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            log.error("some replicas could not be ended; they are on record")  # noqa: TRY400

    def close(self) -> None:
        """Ends the watchers' streams: the scaler is going away."""
        self._published.close()

    def watch(self, caller: str = "") -> AbstractContextManager[Watcher]:
        """A subscription of a caller: the whole fleet, then each change.

        Raises:
            Overloaded: there are too many.
            Unavailable: it is not known yet what pools have.
        """
        unknown = [name for name, status in self._pools.status.items() if not status.known]
        if unknown and self._clock() - self._started < WHOLE_SECONDS:
            raise Unavailable(
                f"it is not known yet what pool {unknown[0]} has; watch anew",
                reason="FLEET_NOT_KNOWN",
                retry_after_seconds=1.0,
            )
        return self._published.watch(caller)

    def wake(self, tier: str) -> float | None:
        """Somebody waits for a tier that has no replica.

        Returns:
            in about how many seconds one is ready; 0: one is; None: none will come.
        """
        names = [name for name, pool in self._pools.configured.items() if pool.tier == tier]
        if any(one.state is ReplicaState.READY for name in names for one in self._of(name)):
            return 0.0
        if not any(self._pools.size(name) for name in names):
            asleep = [one for one in self._pools_now() if one.name in names and _may_wake(one)]
            if asleep and self._pools.exit_drain_seconds is None:
                first = min(asleep, key=lambda one: (one.pool.usd_per_hour, one.name))
                if not self._sizes.woken(first.name):
                    self._sizes.wake(first.name)
                    self._reconcile()
        coming = [name for name in names if self._pools.size(name)]
        return min((self._pools.start_seconds(name) for name in coming), default=None)

    @property
    def configured(self) -> Mapping[str, Pool]:
        """The pools of the file in force."""
        return self._pools.configured

    def metrics_pages(self) -> Iterator[tuple[str, str]]:
        """Id and host:port of the metrics page of each replica that is ready and has one."""
        for member in self._published.members:
            if member.state is ReplicaState.READY and member.status.metrics_address:
                yield member.replica.id, member.status.metrics_address

    def queries(self) -> dict[tuple[str, str], Query]:
        """The queries of all pools, by pool and name."""
        return self._pools.queries()

    def pools(self) -> list[PoolView]:
        """Every configured pool, by name."""
        return [self._pools.view(name, self._of(name)) for name in sorted(self._pools.configured)]

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
        if self._pools.seen:
            self._take_held()
            self._decide_sizes(now)
            for name in sorted({*self._pools.configured, *self._pools.status}):
                self._reconcile_pool(name, now)
            if self._pools.exit_drain_seconds is not None and self._pools.ended():
                self._empty.set()
        self._count(now)

    def _take_held(self) -> None:
        """Takes of which pools nothing may be decided. One that is free begins with what it has."""
        before = self._held
        self._held = {name for name in self._pools.configured if self._pools.status_of(name).held}
        for name in (before & self._pools.configured.keys()) - self._held:
            serving = [one for one in self._of(name) if one.state is not ReplicaState.DRAINING]
            self._sizes.adopt(name, len(serving) + self._pools.status_of(name).pending)

    def _decide_sizes(self, now: float) -> None:
        if self._pools.exit_drain_seconds is not None or not self._sizes.due(now):
            return
        wall = self._wall()
        decided = self._sizes.tick(self._pools_now(), now=now, wall=wall, held=self._held)
        for name, decision in decided.items():
            self._gauges.decided(name, self._pools.settings(name).tier, decision, now)

    def _pools_now(self) -> list[PoolNow]:
        return [self._pools.now(name, self._of(name)) for name in self._pools.configured]

    def _reconcile_pool(self, name: str, now: float) -> None:
        status = self._pools.status_of(name)
        drain_seconds = self._pools.drain_seconds(name)
        members = {member.replica.id: member for member in self._of(name)}
        loaded = [member.loaded(self._loads, now) for member in members.values()]
        size = len(loaded) if status.held else self._pools.size(name)
        for action in decide(size, loaded, drain_seconds=drain_seconds, now=now):
            self._act(members[action.replica], action, now)
        if status.held:
            if name in self._pools.configured:
                self._wishes.note(name, None)
            return
        draining = {
            member.replica.id for member in self._of(name) if member.state is ReplicaState.DRAINING
        }
        if name in self._pools.configured:
            wall = self._wall()
            self._wishes.note(name, Wish(size + len(draining), active=size > 0, since=wall))
        there = {each.replica.id for each in status.replicas}
        self._target.resize(name, size, draining=draining, drained=self._published.released & there)

    def _refresh(self, now: float) -> None:
        """Takes and publishes what the target says. What it cannot see stays as it was known."""
        status = self._target.observe()
        if self._pools.take(status):
            self._sizes.hurry()
        if status is not None:
            found = {each.replica.id: each for pool in status.values() for each in pool.replicas}
            self._published.take(found, now)

    def _act(self, member: Member, action: Action, now: float) -> None:
        match action:
            case Drain(replica_id, reason):
                log.info("draining", replica=replica_id, reason=reason)
                self._published.drain(member, now)
            case Release(replica_id, reason):
                log.info("releasing", replica=replica_id, reason=reason)
                if member.state is ReplicaState.DRAINING:
                    labels = self._pools.labels(member.replica.pool)
                    self._metrics.drain_seconds.labels(*labels).observe(now - member.since)
                self._published.release(member)

    def _of(self, pool: str) -> list[Member]:
        return self._published.members.of(pool)

    # Counting.

    def _count(self, now: float) -> None:
        self._metrics.routers.set(self._loads.routers(now))
        self._metrics.silent_routers.set(len(self._loads.silent(now)))
        self._metrics.watchers.set(self._published.watchers)
        self._gauges.keep(self._pools.tiers())
        for name in self._pools.configured:
            status, settings = self._pools.status_of(name), self._pools.settings(name)
            counted = Counted(
                tier=settings.tier,
                desired=self._pools.size(name),
                states=[member.state for member in self._of(name)],
                pending=status.pending,
                ending=status.ending,
                troubled=bool(self._pools.trouble(name)),
                refused=status.refused is not None,
                usd_per_hour=settings.usd_per_hour,
                sized=self._sizes.sized(name),
            )
            self._gauges.show(name, counted)


def _may_wake(one: PoolNow) -> bool:
    """Whether a pool without replicas may have one when somebody asks for it."""
    scale = one.pool.scale
    return scale is not None and scale.zero is not None and one.fits != 0
