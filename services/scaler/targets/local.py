"""Keeps pools at their size on the numbered slots of this host.

Observes, decides (`policy.replicas`) and acts through a `SlotHost`; repair, waiting after failures
and quarantine of slots are decided here and seen by nobody else. Deciding never awaits, so nothing
can change between the snapshot and the recording of what was decided; what takes time runs in
tasks beside it, which `care` has. Leaves to the fleet what is published, and when a replica has
finished its work.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping

import structlog

from services.common.durations import wall_clock
from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.policy.replicas import Action, Retire, Start, State, Stop, decide, trouble
from services.scaler.pools.pool import Pool
from services.scaler.ports import OnChange, PoolStatus
from services.scaler.targets.care import Care, Rhythm
from services.scaler.targets.good_settings import GoodSettings
from services.scaler.targets.kept_pool import KeptPool, Wanted
from services.scaler.targets.kept_pools import KeptPools
from services.scaler.targets.occupants import Occupant, adopted, new_id, silence
from services.scaler.targets.slots import SlotHost

log = structlog.get_logger()

PAUSE_SECONDS = 5.0
"""A scaler that did nothing for this long was itself away."""


class LocalTarget:
    """See `services.scaler.ports.Target`. A pool that was never resized is left alone.

    `good` keeps settings that worked; None: nowhere. `notice` says why the capacity of a pool or a
    replica of that name is taken away soon; empty: it is not. `longest` says how many tokens
    routers send a replica of a tier at most, prompt and answer together; 0: not known. `clock`
    gives monotonic seconds, `wall` seconds since 1970.
    """

    def __init__(
        self,
        scaling: Scaling,
        host: SlotHost,
        metrics: Metrics,
        *,
        good: GoodSettings | None = None,
        notice: Callable[[str], str] = lambda _name: "",
        longest: Callable[[str], int] = lambda _tier: 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_clock,
        rhythm: Rhythm | None = None,
    ) -> None:
        self._kept = KeptPools(scaling, metrics, clock=clock, wall=wall)
        self._good = good
        self._host = host
        self._notice = notice
        self._metrics = metrics
        self._clock = clock
        self._rhythm = rhythm or Rhythm()
        self._care = Care(
            self._kept, host, metrics, longest=longest, clock=clock, rhythm=self._rhythm
        )
        self._tasks = asyncio.TaskGroup()

    async def open(self, on_change: OnChange) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        self._kept.on_change = on_change
        left = await self._host.adopt(self._kept.broke)
        if self._good is not None:
            for name, kept in self._kept.all.items():
                kept.recall(self._good.load(name))
        for found in left:
            name = found.replica.pool
            pool = self._kept.pool(name)
            occupant = adopted(found, pool.settings, self._clock())
            self._kept.occupants[occupant.id] = occupant
            if occupant.present:
                self._metrics.adoptions.labels(*pool.labels).inc()
                log.info("adopted", replica=occupant.id, address=found.replica.address)

    async def run(self) -> None:
        """Keeps pools at their size until cancelled. Leaves the replicas running."""
        async with self._tasks:
            for occupant in self._kept.occupants.values():
                occupant.care = self._tasks.create_task(self._care.look_after(occupant))
            decided = self._clock()
            while True:
                self._discount(self._clock() - decided)
                decided = self._clock()
                self._kept.wake.clear()
                self._reconcile()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rhythm.decide):
                        await self._kept.wake.wait()

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:
        """Takes changed settings."""
        self._kept.configure(scaling, again=again)

    def observe(self) -> Mapping[str, PoolStatus]:
        """Every pool, also those that are no longer configured and still have replicas."""
        return self._kept.status()

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        """Says what the pool should be."""
        kept = self._kept.pool(pool)
        wanted = Wanted(size, frozenset(draining), frozenset(drained))
        if kept.wanted == wanted:
            return
        kept.wanted = wanted
        for occupant in self._kept.of(pool):
            occupant.released = occupant.released or occupant.id in wanted.drained
            if occupant.id in wanted.draining and occupant.state is State.READY:
                occupant.state, occupant.since = State.DRAINING, self._clock()
                self._note_draining(occupant)
        self._kept.wake.set()

    def wake(self) -> None:
        """Something is to be decided now: a notice came or went."""
        self._kept.wake.set()

    async def close(self) -> None:
        """Lets go of all replicas without ending any."""
        await self._host.close()

    def _discount(self, pause: float) -> None:
        """Discounts a pause of ours: a scaler that was stopped or starved heard nobody in it."""
        if pause > PAUSE_SECONDS:
            log.warning("the scaler itself paused", seconds=round(pause, 1))
            for occupant in self._kept.occupants.values():
                occupant.answered_at += pause

    # Deciding: nothing below awaits until the tasks it starts.

    def _reconcile(self) -> None:
        now = self._clock()
        for occupant in list(self._kept.occupants.values()):
            if occupant.heed_silence(now):
                log.warning("silence", replica=occupant.id, over=not occupant.quiet)
                self._kept.on_change()
                if occupant.quiet and self._kept.on_trial(occupant):
                    self._kept.broke(occupant.id, "it fell silent while its settings were tried")
        for name in self._kept.names():
            pool = self._kept.all[name]
            self._heed_notices(name, pool, now)
            if pool.wanted is None:
                continue
            occupants = self._kept.of(name)
            if (
                good := pool.whole(occupants, self._kept.patience, now)
            ) is not None and self._good is not None:
                self._tasks.create_task(self._keep(self._good, name, good))
            goal = pool.goal(spare=not self._kept.awaited(name, now))
            actions = decide(
                goal, self._kept.observed(name), pool.failures, self._kept.patience, now
            )
            for action in actions:
                self._act(name, action, now)
            said = trouble(goal, self._kept.observed(name), pool.failures, actions, now)
            pool.note(said or silence(self._kept.of(name)))

    def _note_draining(self, occupant: Occupant) -> None:
        """So that the next scaler goes on with it if this one is killed."""
        try:
            self._host.note_draining(occupant.id)
        except OSError as error:
            log.warning("a drain is not on record", replica=occupant.id, error=str(error))

    def _heed_notices(self, name: str, pool: KeptPool, now: float) -> None:
        """Takes which capacity goes soon, and drains what has no time left to wait for another."""
        pool.notice = self._notice(name)
        for occupant in self._kept.of(name):
            notice = pool.notice or self._notice(occupant.id)
            if occupant.heed_notice(notice, now):
                log.warning("notice", replica=occupant.id, why=notice or "taken back")
                self._kept.changed()
            if occupant.notice and occupant.state is State.READY and pool.settings is not None:
                room = pool.settings.notice_seconds - pool.settings.drain_seconds
                if now - occupant.noticed_at >= max(room, 0.0):
                    self._retire(occupant, occupant.notice)

    async def _keep(self, kept: GoodSettings, pool: str, good: Pool) -> None:
        """Keeps settings that worked, or not: that costs no replica."""
        try:
            await asyncio.to_thread(kept.keep, pool, good)
        except Exception:  # such as no thread to write in
            log.exception("good settings cannot be kept", pool=pool)

    def _act(self, pool: str, action: Action, now: float) -> None:
        match action:
            case Start(slot, reason):
                replica_id = new_id(pool, slot)
                occupant = Occupant(replica_id, pool, slot, State.STARTING, now, started=now)
                self._kept.occupants[occupant.id] = occupant
                log.info("starting", replica=occupant.id, reason=reason)
                occupant.care = self._tasks.create_task(self._care.start(occupant))
                self._kept.on_change()
            case Retire(replica_id, reason):
                occupant = self._kept.occupants[replica_id]
                self._retire(occupant, occupant.notice or reason)
            case Stop(replica_id):
                occupant = self._kept.occupants[replica_id]
                if occupant.replica is not None:  # else its process is just being started
                    self._stop(occupant, action, now)

    def _retire(self, occupant: Occupant, reason: str) -> None:
        log.info("retiring", replica=occupant.id, reason=reason)
        occupant.leaving = reason
        self._kept.become(occupant, State.DRAINING)

    def _stop(self, occupant: Occupant, stop: Stop, now: float) -> None:
        log.info("stopping", replica=occupant.id, reason=stop.reason, failed=stop.failed)
        if stop.failed:
            self._kept.failed(occupant, stop.reason, now)
        self._kept.become(occupant, State.ENDING)
        if occupant.care is not None:
            occupant.care.cancel()
        occupant.care = self._tasks.create_task(self._care.end(occupant, gently=not stop.failed))
