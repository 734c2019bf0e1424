"""Keeps the fleet as it should be: observes, decides (`policy`), acts (through a target).

Owns the replicas' states, the revision and the watchers. Deciding never awaits, so nothing can
change between the snapshot and the recording of what was decided; what takes time runs in tasks
beside it. Deaths are told by the target the moment they happen and published at once.
"""

import asyncio
import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import structlog

from services.scaler.config import Pool, Scaling
from services.scaler.fleet.members import Member, adopted, new_id
from services.scaler.fleet.watchers import Seen, Update, Watcher, Watchers
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy import replicas as policy
from services.scaler.policy.replicas import (
    Action,
    Drain,
    Failures,
    Goal,
    Observed,
    Start,
    State,
    Stop,
)
from services.scaler.ports import StartFailed, Target

log = structlog.get_logger()

DECIDE_SECONDS = 0.2
PAUSE_SECONDS = 5.0
READY_PROBE_SECONDS = 0.5
OTHER_PROBE_SECONDS = 0.1
_ORPHANS = Goal(size=0, slots=0, start_seconds=0.0, drain_seconds=30.0)
"""For adopted replicas of pools that are no longer configured."""


@dataclass(frozen=True)
class PoolView:
    """A pool as `ListPools` shows it."""

    name: str
    pool: Pool
    desired: int
    replicas: tuple[Seen, ...]
    trouble: str
    typical_start_seconds: float | None


class Fleet:
    """The fleet of one configuration on one target. `clock` gives monotonic seconds.

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = scaling.pools
        self._patience = policy.Patience(
            first_seconds=scaling.restart.first_seconds,
            cap_seconds=scaling.restart.cap_seconds,
            quarantine_after=scaling.restart.quarantine_after,
        )
        self._target = target
        self._loads = loads
        self._metrics = metrics
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._failures: dict[str, dict[int, Failures]] = {}
        self._trouble: dict[str, str] = {}
        self._starts: dict[str, deque[float]] = {}
        # Milliseconds since the epoch, so that it also grows over restarts of the scaler.
        self._revision = time.time_ns() // 1_000_000
        self._watchers = Watchers(on_drop=metrics.dropped_watchers.inc)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._exit_drain_seconds: float | None = None
        self._tasks = asyncio.TaskGroup()

    async def adopt(self) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        for found in await self._target.adopt(self._on_death):
            name = found.replica.pool
            member = adopted(found, self._pools.get(name), self._clock())
            self._members[member.id] = member
            if member.present:
                self._metrics.adoptions.labels(*self._labels(name)).inc()
                log.info("adopted", replica=member.id, address=found.replica.address)

    async def run(self) -> None:
        """Keeps the fleet until cancelled. Leaves the replicas running."""
        async with self._tasks:
            for member in self._members.values():
                member.care = self._tasks.create_task(self._look_after(member))
            decided = self._clock()
            while True:
                self._forgive(self._clock() - decided)
                decided = self._clock()
                self._wake.clear()
                self._reconcile()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DECIDE_SECONDS):
                        await self._wake.wait()

    def _forgive(self, pause: float) -> None:
        """Discounts a pause of ours: a scaler that was stopped or starved heard nobody in it."""
        if pause > PAUSE_SECONDS:
            log.warning("the scaler itself paused", seconds=round(pause, 1))
            for member in self._members.values():
                member.answered_at += pause

    async def end_all(self, drain_seconds: float) -> None:
        """Drains and ends every replica; draining takes at most `drain_seconds`."""
        self._exit_drain_seconds = drain_seconds
        self._wake.set()
        await self._empty.wait()

    def close(self) -> None:
        """Ends the watchers' streams: the scaler is going away."""
        self._watchers.close()

    def watch(self) -> AbstractContextManager[Watcher]:
        """A subscription: the whole fleet, then each change."""
        whole = tuple(
            Seen(member.replica, member.state)
            for member in self._members.values()
            if member.replica is not None and member.present
        )
        return self._watchers.subscribe(Update(full=True, replicas=whole, revision=self._revision))

    def pools(self) -> list[PoolView]:
        """Every configured pool, by name."""
        return [
            PoolView(
                name,
                pool,
                self._goal(name).size,
                tuple(
                    Seen(member.replica, member.state)
                    for member in self._of(name)
                    if member.replica is not None and member.present
                ),
                self._trouble.get(name, ""),
                statistics.median(self._starts[name]) if name in self._starts else None,
            )
            for name, pool in sorted(self._pools.items())
        ]

    # Deciding: nothing below awaits until the tasks it starts.

    def _reconcile(self) -> None:
        now = self._clock()
        for name in sorted({*self._pools, *(one.pool for one in self._members.values())}):
            goal, failures = self._goal(name), self._failures.setdefault(name, {})
            actions = policy.decide(goal, self._observe(name, now), failures, self._patience, now)
            for action in actions:
                self._act(name, action, now)
            left = policy.trouble(goal, self._observe(name, now), failures, actions, now)
            self._say(name, left)
        self._count(now)
        if self._exit_drain_seconds is not None and not self._members:
            self._empty.set()

    def _goal(self, name: str) -> Goal:
        pool = self._pools.get(name)
        goal = _ORPHANS
        if pool is not None:
            goal = Goal(pool.size, len(pool.slots), pool.start_seconds, pool.drain_seconds)
        if self._exit_drain_seconds is None:
            return goal
        drain_seconds = min(goal.drain_seconds, self._exit_drain_seconds)
        return replace(goal, size=0, drain_seconds=drain_seconds)

    def _of(self, pool: str) -> list[Member]:
        return [member for member in self._members.values() if member.pool == pool]

    def _observe(self, pool: str, now: float) -> list[Observed]:
        settings = self._pools.get(pool)
        return [member.observe(settings, self._loads, now) for member in self._of(pool)]

    def _say(self, pool: str, trouble: str) -> None:
        """Keeps the pool's trouble; logs it when it is another one, not as its time passes."""
        before = self._trouble.get(pool, "").partition(policy.NEXT_TRY)[0]
        self._trouble[pool] = trouble
        if trouble and trouble.partition(policy.NEXT_TRY)[0] != before:
            log.warning("pool in trouble", pool=pool, trouble=trouble)
        elif before and not trouble:
            log.info("pool out of trouble", pool=pool)

    def _act(self, pool: str, action: Action, now: float) -> None:
        match action:
            case Start(slot, reason):
                member = Member(new_id(pool, slot), pool, slot, State.STARTING, now, started=now)
                self._members[member.id] = member
                log.info("starting", replica=member.id, reason=reason)
                member.care = self._tasks.create_task(self._start(member))
            case Drain(replica_id, reason):
                member = self._members[replica_id]
                log.info("draining", replica=replica_id, reason=reason)
                self._become(member, State.DRAINING)
            case Stop(replica_id):
                member = self._members[replica_id]
                if member.replica is not None:  # else its process is just being started
                    self._stop(member, action, now)

    def _stop(self, member: Member, stop: Stop, now: float) -> None:
        log.info("stopping", replica=member.id, reason=stop.reason, failed=stop.failed)
        if stop.failed:
            self._failed(member, stop.reason, now)
        if member.state is State.DRAINING:
            took = now - member.since
            self._metrics.drain_seconds.labels(*self._labels(member.pool)).observe(took)
        if member.present:
            self._become(member, State.ENDING)
        member.state = State.ENDING
        if member.care is not None:
            member.care.cancel()
        member.care = self._tasks.create_task(self._end(member, gently=not stop.failed))

    def _failed(self, member: Member, why: str, now: float) -> None:
        failures = self._failures.setdefault(member.pool, {})
        served = now - member.ready_at if member.ready_at is not None else 0.0
        failures[member.slot] = policy.after_failure(
            failures.get(member.slot), served, self._patience, now, why
        )
        self._metrics.failures.labels(*self._labels(member.pool)).inc()

    # A replica's life.

    async def _start(self, member: Member) -> None:
        self._metrics.starts.labels(*self._labels(member.pool)).inc()
        try:
            member.replica = await self._target.start(
                member.id, member.pool, self._pools[member.pool], member.slot
            )
        except StartFailed as error:
            log.warning("could not be started", replica=member.id, reason=str(error))
            self._failed(member, str(error), self._clock())
            del self._members[member.id]
            self._wake.set()
            return
        if member.present:
            self._publish(member)
        await self._look_after(member)

    async def _look_after(self, member: Member) -> None:
        """Asks the replica how it is for as long as it is present."""
        while member.present:
            ready = await self._target.is_ready(member.id)
            if ready and member.present:
                member.answered_at = self._clock()
                if member.state is State.STARTING:
                    self._is_ready(member)
            if member.state is State.DRAINING:
                member.engine_requests = await self._target.running_requests(member.id)
                self._wake.set()
            calm = member.state is State.READY
            await asyncio.sleep(READY_PROBE_SECONDS if calm else OTHER_PROBE_SECONDS)

    def _is_ready(self, member: Member) -> None:
        member.ready_at = member.answered_at
        self._become(member, State.READY)
        log.info("ready", replica=member.id)
        if member.started is not None:
            took = member.ready_at - member.started
            self._starts.setdefault(member.pool, deque(maxlen=20)).append(took)
            self._metrics.start_seconds.labels(*self._labels(member.pool)).observe(took)

    async def _end(self, member: Member, *, gently: bool) -> None:
        await self._target.end(member.id, gently=gently)
        del self._members[member.id]
        self._wake.set()

    def _on_death(self, replica_id: str, what: str) -> None:
        member = self._members.get(replica_id)
        if member is None or not member.present:
            return
        log.warning("replica broke", replica=replica_id, fault=what)
        member.fault = what
        self._become(member, State.BROKEN)
        self._wake.set()

    def _become(self, member: Member, state: State) -> None:
        member.state = state
        member.since = self._clock()
        if member.replica is not None:
            self._publish(member)

    def _publish(self, member: Member) -> None:
        assert member.replica is not None  # noqa: S101
        self._revision += 1
        seen = Seen(member.replica, member.state)
        self._watchers.publish(Update(full=False, replicas=(seen,), revision=self._revision))

    # Counting.

    def _labels(self, pool: str) -> tuple[str, str]:
        """Pool and tier. A pool that is no longer configured has no tier."""
        return pool, self._pools[pool].tier if pool in self._pools else ""

    def _count(self, now: float) -> None:
        self._metrics.routers.set(self._loads.routers(now))
        self._metrics.watchers.set(len(self._watchers))
        for name in self._pools:
            labels = self._labels(name)
            self._metrics.desired.labels(*labels).set(self._goal(name).size)
            self._metrics.trouble.labels(*labels).set(bool(self._trouble.get(name)))
            shown = [one.state if one.present else "gone" for one in self._of(name)]
            for state in (State.STARTING, State.READY, State.DRAINING, "gone"):
                self._metrics.replicas.labels(*labels, str(state)).set(shown.count(state))
