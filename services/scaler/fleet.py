"""Keeps the fleet as it should be: observes, decides (`policy`), acts (through a target).

Owns the replicas' states, the revision and the watchers. Deciding never awaits, so nothing can
change between the snapshot and the recording of what was decided; what takes time runs in tasks
beside it. Deaths are told by the target the moment they happen and published at once.
"""

import asyncio
import secrets
import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import structlog

from services.scaler import policy
from services.scaler.config import Pool, Scaling
from services.scaler.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy import Action, Drain, Failures, Goal, Observed, Start, State, Stop
from services.scaler.ports import Replica, StartFailed, Target, fingerprint
from services.scaler.watchers import Seen, Update, Watcher, Watchers

log = structlog.get_logger()

DECIDE_SECONDS = 0.2
READY_PROBE_SECONDS = 0.5
OTHER_PROBE_SECONDS = 0.1
_ORPHANS = Goal(size=0, slots=0, start_seconds=0.0, drain_seconds=30.0)
"""For adopted replicas of pools that are no longer configured."""


@dataclass
class _Member:
    """A replica and what is known about it. `replica` is absent until its process runs."""

    id: str
    pool: str
    slot: int
    state: State
    since: float
    began: float
    replica: Replica | None = None
    ready_at: float | None = None
    answered_at: float = 0.0
    engine_requests: int | None = None
    fault: str = ""

    @property
    def serves(self) -> bool:
        return self.state not in (State.BROKEN, State.ENDING)


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
        self._members: dict[str, _Member] = {}
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
        now = self._clock()
        for found in await self._target.adopt(self._on_death):
            replica = found.replica
            pool = self._pools.get(replica.pool)
            if pool is not None:
                replica = replace(
                    replica,
                    tier=pool.tier,
                    capacity=pool.capacity,
                    max_in_flight=pool.max_in_flight,
                )
            self._members[replica.id] = _Member(
                id=replica.id,
                pool=replica.pool,
                slot=replica.slot,
                state=State.READY if found.ready else State.STARTING,
                since=now,
                began=now,
                replica=replica,
                ready_at=now if found.ready else None,
                answered_at=now,
            )
            self._metrics.adoptions.labels(replica.pool, replica.tier).inc()
            log.info("replica adopted", replica=replica.id, address=replica.address)

    async def run(self) -> None:
        """Keeps the fleet until cancelled. Leaves the replicas running."""
        async with self._tasks:
            for member in self._members.values():
                self._tasks.create_task(self._look_after(member))
            while True:
                self._wake.clear()
                self._reconcile()
                try:
                    async with asyncio.timeout(DECIDE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass

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
        return self._watchers.subscribe(
            Update(full=True, replicas=self._seen(), revision=self._revision)
        )

    @property
    def revision(self) -> int:
        """Of the last change."""
        return self._revision

    def pools(self) -> list[PoolView]:
        """Every configured pool, by name."""
        return [
            PoolView(
                name,
                pool,
                self._goal(name).size,
                tuple(one for one in self._seen() if one.replica.pool == name),
                self._trouble.get(name, ""),
                statistics.median(self._starts[name]) if name in self._starts else None,
            )
            for name, pool in sorted(self._pools.items())
        ]

    def _seen(self) -> tuple[Seen, ...]:
        return tuple(
            Seen(member.replica, member.state)
            for member in self._members.values()
            if member.replica is not None and member.serves
        )

    def _goal(self, name: str) -> Goal:
        pool = self._pools.get(name)
        goal = _ORPHANS
        if pool is not None:
            goal = Goal(pool.size, len(pool.slots), pool.start_seconds, pool.drain_seconds)
        if self._exit_drain_seconds is None:
            return goal
        return replace(
            goal, size=0, drain_seconds=min(goal.drain_seconds, self._exit_drain_seconds)
        )

    def _reconcile(self) -> None:
        now = self._clock()
        for name in {*self._pools, *(member.pool for member in self._members.values())}:
            goal, failures = self._goal(name), self._failures.setdefault(name, {})
            observed = [self._observe(one, now) for one in self._of(name)]
            actions = policy.decide(goal, observed, failures, self._patience, now)
            self._say(name, policy.trouble(goal, observed, failures, actions, now))
            for action in actions:
                self._act(name, action, now)
        self._count(now)
        if self._exit_drain_seconds is not None and not self._members:
            self._empty.set()

    def _of(self, pool: str) -> list[_Member]:
        return [member for member in self._members.values() if member.pool == pool]

    def _observe(self, member: _Member, now: float) -> Observed:
        pool, replica = self._pools.get(member.pool), member.replica
        outdated = pool is None or (
            replica is not None
            and member.slot < len(pool.slots)
            and replica.fingerprint != fingerprint(pool, pool.slots[member.slot])
        )
        draining = member.state is State.DRAINING
        reports = self._loads.in_flight(member.id, member.since if draining else 0.0, now)
        known = [count for count in reports if count is not None]
        return Observed(
            id=member.id,
            slot=member.slot,
            state=member.state,
            since=member.since,
            answered_at=member.answered_at,
            in_flight=policy.in_flight(member.engine_requests, reports if draining else known),
            outdated=outdated,
            fault=member.fault,
        )

    def _say(self, pool: str, trouble: str) -> None:
        """Keeps the pool's trouble; logs it when it is another one, not when its time passes."""
        before = self._trouble.get(pool, "").partition("; next try")[0]
        if trouble and trouble.partition("; next try")[0] != before:
            log.warning("pool in trouble", pool=pool, trouble=trouble)
        elif before and not trouble:
            log.info("pool out of trouble", pool=pool)
        self._trouble[pool] = trouble

    def _act(self, pool: str, action: Action, now: float) -> None:
        match action:
            case Start(slot=slot):
                member = _Member(_new_id(pool, slot), pool, slot, State.STARTING, now, now)
                self._members[member.id] = member
                log.info("starting", replica=member.id, reason=action.reason)
                self._tasks.create_task(self._start(member))
            case Drain():
                member = self._members[action.replica]
                log.info("draining", replica=member.id, reason=action.reason)
                member.engine_requests = None
                self._become(member, State.DRAINING)
            case Stop():
                member = self._members[action.replica]
                if member.replica is None and member.state is not State.BROKEN:
                    return  # its process is just being started; next time
                self._stop(member, action, now)

    def _stop(self, member: _Member, stop: Stop, now: float) -> None:
        log.info("stopping", replica=member.id, reason=stop.reason, failed=stop.failed)
        labels = (member.pool, member.replica.tier if member.replica else "")
        if stop.failed:
            self._failed(member, stop.reason, now)
        if member.state is State.DRAINING:
            self._metrics.drain_seconds.labels(*labels).observe(now - member.since)
        gently = not stop.failed
        if member.serves:
            self._become(member, State.ENDING)
        member.state = State.ENDING
        self._tasks.create_task(self._end(member, gently=gently))

    def _failed(self, member: _Member, why: str, now: float) -> None:
        failures = self._failures.setdefault(member.pool, {})
        served = now - member.ready_at if member.ready_at is not None else 0.0
        failures[member.slot] = policy.after_failure(
            failures.get(member.slot), served, self._patience, now, why
        )
        pool = self._pools.get(member.pool)
        self._metrics.failures.labels(member.pool, pool.tier if pool else "").inc()

    async def _start(self, member: _Member) -> None:
        pool = self._pools[member.pool]
        self._metrics.starts.labels(member.pool, pool.tier).inc()
        try:
            replica = await self._target.start(member.id, member.pool, pool, member.slot)
        except StartFailed as error:
            log.warning("could not be started", replica=member.id, reason=str(error))
            self._failed(member, str(error), self._clock())
            del self._members[member.id]
            self._wake.set()
            return
        member.replica = replica
        if member.serves:
            self._publish(member)
        await self._look_after(member)

    async def _end(self, member: _Member, *, gently: bool) -> None:
        await self._target.end(member.id, gently=gently)
        del self._members[member.id]
        self._wake.set()

    async def _look_after(self, member: _Member) -> None:
        """Asks the replica how it is for as long as it serves."""
        while member.serves:
            if await self._target.is_ready(member.id):
                member.answered_at = self._clock()
                if member.state is State.STARTING:
                    self._is_ready(member)
            if member.state is State.DRAINING:
                member.engine_requests = await self._target.running_requests(member.id)
                self._wake.set()
            ready = member.state is State.READY
            await asyncio.sleep(READY_PROBE_SECONDS if ready else OTHER_PROBE_SECONDS)

    def _is_ready(self, member: _Member) -> None:
        took = member.answered_at - member.began
        member.ready_at = member.answered_at
        self._become(member, State.READY)
        self._starts.setdefault(member.pool, deque(maxlen=20)).append(took)
        pool = self._pools[member.pool]
        self._metrics.start_seconds.labels(member.pool, pool.tier).observe(took)
        log.info("ready", replica=member.id, seconds=round(took, 3))

    def _on_death(self, replica_id: str, what: str) -> None:
        member = self._members.get(replica_id)
        if member is None or not member.serves:
            return
        log.warning("replica broke", replica=replica_id, fault=what)
        member.fault = what
        self._become(member, State.BROKEN)
        self._wake.set()

    def _become(self, member: _Member, state: State) -> None:
        member.state = state
        member.since = self._clock()
        if member.replica is not None:
            self._publish(member)

    def _publish(self, member: _Member) -> None:
        assert member.replica is not None  # noqa: S101
        self._revision += 1
        seen = Seen(member.replica, member.state)
        self._watchers.publish(Update(full=False, replicas=(seen,), revision=self._revision))

    def _count(self, now: float) -> None:
        self._metrics.routers.set(self._loads.routers(now))
        self._metrics.watchers.set(len(self._watchers))
        for name, pool in self._pools.items():
            states = [member.state for member in self._of(name)]
            self._metrics.desired.labels(name, pool.tier).set(self._goal(name).size)
            self._metrics.trouble.labels(name, pool.tier).set(bool(self._trouble.get(name)))
            for state in (State.STARTING, State.READY, State.DRAINING):
                self._metrics.replicas.labels(name, pool.tier, state).set(states.count(state))
            gone = states.count(State.BROKEN) + states.count(State.ENDING)
            self._metrics.replicas.labels(name, pool.tier, "gone").set(gone)


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _new_id(pool: str, slot: int) -> str:
    """Unique for ever: the millisecond and ten random bits, in an order that is that of time."""
    number = (time.time_ns() // 1_000_000) << 10 | secrets.randbits(10)
    digits = []
    while number:
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{pool}-{slot}-{''.join(reversed(digits))}"
