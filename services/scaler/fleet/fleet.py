"""Keeps the fleet as it should be, wherever its replicas run.

Says how large pools are to be, drains who is to go against what routers report, and publishes each
change. Owns the published states, the revision and the watchers. Deciding never awaits, so nothing
can change between the snapshot and the recording of what was decided. What a target notices it
says the moment it happens, and that is published at once. Leaves starting and repairing replicas to
the target.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog

from services.common.errors import Unavailable
from services.scaler.config import Pool, Scaling
from services.scaler.fleet.members import Member, state_of
from services.scaler.fleet.watchers import Seen, Update, Watcher, Watchers
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import Action, Drain, Release, ReplicaState, decide
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.ports import PoolStatus, ReplicaStatus, Target

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


class Fleet:
    """The fleet on one target.

    `file` names where its configuration comes from, in logs. `clock` gives monotonic seconds,
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
        *,
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
        self._clock = clock
        self._decide_seconds = decide_seconds
        self._status: Mapping[str, PoolStatus] = {}
        self._seen = True
        self._started = clock()
        self._members: dict[str, Member] = {}
        self._released: set[str] = set()
        # Milliseconds since the epoch, so that it also grows over restarts of the scaler.
        self._revision = int(wall() * 1000)
        self._watchers = Watchers(on_drop=metrics.dropped_watchers.inc)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._exit_drain_seconds: float | None = None
        self._labelled: set[tuple[str, str]] = set()  # pools and tiers that gauges show

    async def adopt(self) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        await self._target.open(self._on_change)
        self._refresh(self._clock())

    def configure(self, scaling: Scaling) -> None:
        """Takes a changed configuration. The same once more tries again what was refused."""
        again = scaling == self._scaling
        self._scaling = scaling
        self._target.configure(scaling, again=again)
        self._forget_labels()
        self._wake.set()

    async def run(self) -> None:
        """Keeps the fleet until cancelled. Leaves the replicas running."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._target.run())
            while True:
                self._wake.clear()
                self._reconcile()
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
        whole = tuple(member.seen for member in self._members.values())
        return self._watchers.subscribe(Update(full=True, replicas=whole, revision=self._revision))

    def pools(self) -> list[PoolView]:
        """Every configured pool, by name."""
        return [self._view(name) for name in sorted(self._scaling.pools)]

    def _view(self, name: str) -> PoolView:
        status = self._status.get(name, _NOTHING)
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
        )

    def _on_change(self) -> None:
        self._refresh(self._clock())
        self._wake.set()

    # Nothing below awaits.

    def _reconcile(self) -> None:
        now = self._clock()
        self._refresh(now)
        if self._seen:
            for name in sorted({*self._scaling.pools, *self._status}):
                self._reconcile_pool(name, now)
            exiting = self._exit_drain_seconds is not None
            if exiting and all(
                status.empty for name, status in self._status.items() if self._ends(name)
            ):
                self._empty.set()
        self._count(now)

    def _reconcile_pool(self, name: str, now: float) -> None:
        status = self._status.get(name, _NOTHING)
        drain_seconds = self._drain_seconds(name)
        loaded = [member.loaded(self._loads, now) for member in self._of(name)]
        size = len(loaded) if status.held else self._size(name)
        for action in decide(size, loaded, drain_seconds=drain_seconds, now=now):
            self._act(action, now)
        if status.held:
            return
        draining = {
            member.replica.id for member in self._of(name) if member.state is ReplicaState.DRAINING
        }
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
        self._status = status
        found = {each.replica.id: each for pool in status.values() for each in pool.replicas}
        self._released &= found.keys()
        for replica_id in self._members.keys() - found.keys():
            self._forget(replica_id)
        for replica_id, replica in found.items():
            member = self._members.get(replica_id)
            if member is not None:
                self._update(member, replica, now)
            elif replica_id not in self._released:
                self._members[replica_id] = Member(replica, state_of(replica), now)
                self._publish(self._members[replica_id].seen)

    def _update(self, member: Member, status: ReplicaStatus, now: float) -> None:
        before, member.status = member.seen, status
        if (state := state_of(status, member.state)) is not member.state:
            member.state, member.since = state, now
        if member.seen != before:
            self._publish(member.seen)

    def _act(self, action: Action, now: float) -> None:
        member = self._members[action.replica]
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
        return settings.first if status.by_hand is None else status.by_hand

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
        return self._status.get(pool, _NOTHING).trouble if self._seen else UNSEEN

    def _of(self, pool: str) -> list[Member]:
        return [member for member in self._members.values() if member.replica.pool == pool]

    # Counting.

    def _labels(self, pool: str) -> tuple[str, str]:
        """Pool and tier. A pool that is no longer configured has no tier."""
        return pool, self._settings(pool).tier if pool in self._scaling.pools else ""

    def _forget_labels(self) -> None:
        """No longer shows what is not configured any more, or goes by another tier again."""
        labelled = {self._labels(pool) for pool in self._scaling.pools}
        for labels in self._labelled - labelled:
            self._metrics.forget(*labels, ReplicaState)
        self._labelled = labelled

    def _count(self, now: float) -> None:
        self._metrics.routers.set(self._loads.routers(now))
        self._metrics.watchers.set(len(self._watchers))
        self._forget_labels()
        for name in self._scaling.pools:
            labels, status = self._labels(name), self._status.get(name, _NOTHING)
            self._metrics.desired.labels(*labels).set(self._size(name))
            self._metrics.trouble.labels(*labels).set(bool(self._trouble(name)))
            self._metrics.settings_refused.labels(*labels).set(status.refused is not None)
            states = [member.state for member in self._of(name)]
            counts = {state: states.count(state) for state in ReplicaState}
            counts[ReplicaState.STARTING] += status.pending
            counts[ReplicaState.GONE] = status.ending
            for state, count in counts.items():
                self._metrics.replicas.labels(*labels, str(state)).set(count)
