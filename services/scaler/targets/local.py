"""Keeps pools at their size on the numbered slots of this host.

Observes, decides (`policy.replicas`) and acts through a `SlotHost`; repair, waiting after failures
and quarantine of slots are decided here and seen by nobody else. Deciding never awaits, so nothing
can change between the snapshot and the recording of what was decided; what takes time runs in
tasks beside it. Leaves to the fleet what is published, and when a replica has finished its work.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.policy.replicas import (
    Action,
    Observed,
    Patience,
    Retire,
    Start,
    State,
    Stop,
    decide,
    trouble,
)
from services.scaler.pools.pool import Pool, Restart
from services.scaler.ports import OnChange, PoolStatus
from services.scaler.targets.good_settings import GoodSettings
from services.scaler.targets.kept_pool import KeptPool, Wanted
from services.scaler.targets.occupants import Occupant, adopted, as_of, new_id, silence
from services.scaler.targets.slots import SlotHost, StartFailed, StartHindered

log = structlog.get_logger()

HEARD_SECONDS = 2.0
"""Within which sizes follow when capacity is taken away."""
PAUSE_SECONDS = 5.0
"""A scaler that did nothing for this long was itself away."""


@dataclass(frozen=True)
class Rhythm:
    """How often the target looks, in seconds.

    Attributes:
        decide: at the latest so long after it decided last.
        ready_probe: between two questions to a replica that is ready.
        other_probe: between two to one that starts or drains.
        again: until what failed for reasons of our own is tried again.
    """

    decide: float = 0.2
    ready_probe: float = 0.5
    other_probe: float = 0.1
    again: float = 1.0


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
        wall: Callable[[], float] = time.time,
        rhythm: Rhythm | None = None,
    ) -> None:
        self._pools = {name: KeptPool(name, pool) for name, pool in scaling.pools.items()}
        self._patience = _patience(scaling.restart)
        self._good = good
        self._host = host
        self._notice = notice
        self._longest = longest
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._rhythm = rhythm or Rhythm()
        self._occupants: dict[str, Occupant] = {}
        self._on_change: OnChange = lambda: None
        self._wake = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def open(self, on_change: OnChange) -> None:
        """Takes over the replicas that outlived an earlier scaler.

        Raises:
            ConfigError: another scaler keeps them.
        """
        self._on_change = on_change
        left = await self._host.adopt(self._on_death)
        if self._good is not None:
            for name, kept in self._pools.items():
                kept.recall(self._good.load(name))
        for found in left:
            name = found.replica.pool
            pool = self._pool(name)
            occupant = adopted(found, pool.settings, self._clock())
            self._occupants[occupant.id] = occupant
            if occupant.present:
                self._metrics.adoptions.labels(*pool.labels).inc()
                log.info("adopted", replica=occupant.id, address=found.replica.address)

    async def run(self) -> None:
        """Keeps pools at their size until cancelled. Leaves the replicas running."""
        async with self._tasks:
            for occupant in self._occupants.values():
                occupant.care = self._tasks.create_task(self._look_after(occupant))
            decided = self._clock()
            while True:
                self._discount(self._clock() - decided)
                decided = self._clock()
                self._wake.clear()
                self._reconcile()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rhythm.decide):
                        await self._wake.wait()

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:
        """Takes changed settings."""
        self._patience = _patience(scaling.restart)
        for name in {*self._pools, *scaling.pools}:
            self._pool(name).configure(scaling.pools.get(name), again=again)
            self._renew(name)
        self._changed()

    def observe(self) -> Mapping[str, PoolStatus]:
        """Every pool, also those that are no longer configured and still have replicas."""
        return {name: self._pools[name].status(self._of(name)) for name in self._names()}

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        """Says what the pool should be."""
        kept = self._pool(pool)
        wanted = Wanted(size, frozenset(draining), frozenset(drained))
        if kept.wanted == wanted:
            return
        kept.wanted = wanted
        for occupant in self._of(pool):
            occupant.released = occupant.released or occupant.id in wanted.drained
            if occupant.id in wanted.draining and occupant.state is State.READY:
                occupant.state, occupant.since = State.DRAINING, self._clock()
                self._note_draining(occupant)
        self._wake.set()

    def wake(self) -> None:
        """Something is to be decided now: a notice came or went."""
        self._wake.set()

    async def close(self) -> None:
        """Lets go of all replicas without ending any."""
        await self._host.close()

    def _discount(self, pause: float) -> None:
        """Discounts a pause of ours: a scaler that was stopped or starved heard nobody in it."""
        if pause > PAUSE_SECONDS:
            log.warning("the scaler itself paused", seconds=round(pause, 1))
            for occupant in self._occupants.values():
                occupant.answered_at += pause

    # Deciding: nothing below awaits until the tasks it starts.

    def _reconcile(self) -> None:
        now = self._clock()
        for occupant in list(self._occupants.values()):
            if occupant.heed_silence(now):
                log.warning("silence", replica=occupant.id, over=not occupant.quiet)
                self._on_change()
                if occupant.quiet and self._on_trial(occupant):
                    self._on_death(occupant.id, "it fell silent while its settings were tried")
        for name in self._names():
            pool = self._pools[name]
            self._heed_notices(name, pool, now)
            if pool.wanted is None:
                continue
            occupants = self._of(name)
            if (
                good := pool.whole(occupants, self._patience, now)
            ) is not None and self._good is not None:
                self._tasks.create_task(self._keep(self._good, name, good))
            goal = pool.goal(spare=not self._awaited(name, now))
            actions = decide(goal, self._observed(name), pool.failures, self._patience, now)
            for action in actions:
                self._act(name, action, now)
            said = trouble(goal, self._observed(name), pool.failures, actions, now)
            pool.note(said or silence(self._of(name)))

    def _note_draining(self, occupant: Occupant) -> None:
        """So that the next scaler goes on with it if this one is killed."""
        try:
            self._host.note_draining(occupant.id)
        except OSError as error:
            log.warning("a drain is not on record", replica=occupant.id, error=str(error))

    def _heed_notices(self, name: str, pool: KeptPool, now: float) -> None:
        """Takes which capacity goes soon, and drains what has no time left to wait for another."""
        pool.notice = self._notice(name)
        for occupant in self._of(name):
            notice = pool.notice or self._notice(occupant.id)
            if occupant.heed_notice(notice, now):
                log.warning("notice", replica=occupant.id, why=notice or "taken back")
                self._changed()
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

    def _pool(self, name: str) -> KeptPool:
        return self._pools.setdefault(name, KeptPool(name, None))

    def _renew(self, name: str) -> None:
        """Says of replicas what their pool's settings say now."""
        settings = self._pools[name].settings
        for occupant in self._of(name):
            if settings is not None and occupant.replica is not None:
                occupant.replica = as_of(occupant.replica, settings)

    def _awaited(self, name: str, now: float) -> bool:
        """Whether replicas of a pool that goes as a whole are missed when they do.

        It does so when it is no longer configured, as a pool may have been renamed, or when its
        capacity is taken away. They are missed while another pool of their tier is not ready, and
        until others can have heard of it.
        """
        pool = self._pools[name]
        if pool.settings is not None and not pool.notice:
            return False
        if any(one.notice and now - one.noticed_at < HEARD_SECONDS for one in self._of(name)):
            return True
        tiers = {one.replica.tier for one in self._of(name) if one.replica is not None}
        return any(
            pool.settings is not None
            and other != name
            and pool.settings.tier in tiers
            and pool.short_of(self._of(other))
            for other, pool in self._pools.items()
        )

    def _names(self) -> set[str]:
        configured = {name for name, pool in self._pools.items() if pool.settings is not None}
        return configured | {occupant.pool for occupant in self._occupants.values()}

    def _of(self, pool: str) -> list[Occupant]:
        return [occupant for occupant in self._occupants.values() if occupant.pool == pool]

    def _observed(self, pool: str) -> list[Observed]:
        settings = self._pools[pool].settings
        return [occupant.observe(settings) for occupant in self._of(pool)]

    def _act(self, pool: str, action: Action, now: float) -> None:
        match action:
            case Start(slot, reason):
                replica_id = new_id(pool, slot)
                occupant = Occupant(replica_id, pool, slot, State.STARTING, now, started=now)
                self._occupants[occupant.id] = occupant
                log.info("starting", replica=occupant.id, reason=reason)
                occupant.care = self._tasks.create_task(self._start(occupant))
                self._on_change()
            case Retire(replica_id, reason):
                occupant = self._occupants[replica_id]
                self._retire(occupant, occupant.notice or reason)
            case Stop(replica_id):
                occupant = self._occupants[replica_id]
                if occupant.replica is not None:  # else its process is just being started
                    self._stop(occupant, action, now)

    def _retire(self, occupant: Occupant, reason: str) -> None:
        log.info("retiring", replica=occupant.id, reason=reason)
        occupant.leaving = reason
        self._become(occupant, State.DRAINING)

    def _stop(self, occupant: Occupant, stop: Stop, now: float) -> None:
        log.info("stopping", replica=occupant.id, reason=stop.reason, failed=stop.failed)
        if stop.failed:
            self._failed(occupant, stop.reason, now)
        self._become(occupant, State.ENDING)
        if occupant.care is not None:
            occupant.care.cancel()
        occupant.care = self._tasks.create_task(self._end(occupant, gently=not stop.failed))

    def _on_trial(self, occupant: Occupant) -> bool:
        """Whether it shows what its settings are worth."""
        pool = self._pools[occupant.pool]
        fresh = occupant.served_seconds < self._patience.stable_seconds
        return pool.on_trial and fresh and not occupant.outdated(pool.settings)

    def _failed(
        self, occupant: Occupant, why: str, now: float, *, outdated: bool | None = None
    ) -> None:
        pool = self._pools[occupant.pool]
        served = occupant.served_seconds
        pool.failed(occupant.slot, why, served_seconds=served, patience=self._patience, now=now)
        self._metrics.failures.labels(*pool.labels).inc()
        outdated = occupant.outdated(pool.settings) if outdated is None else outdated
        fresh = served < self._patience.stable_seconds and not outdated
        others = [one for one in self._of(occupant.pool) if one is not occupant]
        serving = any(one.state is State.READY for one in others)
        if fresh and pool.judge(f"{occupant.id}: {why}", self._wall(), serving=serving):
            self._renew(occupant.pool)
            self._changed()

    # A replica's life.

    async def _start(self, occupant: Occupant) -> None:
        pool = self._pools[occupant.pool]
        settings = pool.settings
        if settings is None or occupant.slot >= len(settings.slots):  # changed this very moment
            self._remove(occupant)
            return
        self._metrics.starts.labels(*pool.labels).inc()
        try:
            occupant.replica = await self._host.start(
                occupant.id, occupant.pool, settings, occupant.slot
            )
        except StartFailed as error:
            log.warning("could not be started", replica=occupant.id, reason=str(error))
            hindered = isinstance(error, StartHindered)
            self._not_started(occupant, str(error), settings, hindered=hindered)
            return
        except Exception as error:  # whatever it is, it is this replica's alone
            log.exception("could not be started", replica=occupant.id)
            ours = isinstance(error, OSError)  # says nothing of the settings
            why = str(error) if ours else "its start failed; the scaler's log has the details"
            outdated = ours or settings is not self._pools[occupant.pool].settings
            self._failed(occupant, why, self._clock(), outdated=outdated)
            self._become(occupant, State.ENDING)
            await self._end(occupant, gently=False)  # something of it may be left
            return
        self._renew(occupant.pool)
        self._changed()
        await self._look_after(occupant)

    def _not_started(self, occupant: Occupant, why: str, settings: Pool, *, hindered: bool) -> None:
        outdated = hindered or settings is not self._pools[occupant.pool].settings
        self._failed(occupant, why, self._clock(), outdated=outdated)
        self._remove(occupant)

    async def _look_after(self, occupant: Occupant) -> None:
        hindered = False
        while occupant.present:
            looked = self._clock()
            try:
                await self._look(occupant)
            except OSError as error:  # we lack descriptors or the like: no fault of the replica
                if not hindered:
                    log.error("cannot look after it now", replica=occupant.id, error=str(error))  # noqa: TRY400
                hindered = True
                await asyncio.sleep(self._rhythm.again)
                occupant.answered_at += self._clock() - looked  # nobody listened meanwhile
            except Exception:  # its state is not known any more: it is ended and made anew
                log.exception("could not be looked after", replica=occupant.id)
                self._on_death(occupant.id, "it could not be looked after")
            else:
                if hindered:
                    log.info("it is looked after again", replica=occupant.id)
                hindered = False
                calm = occupant.state is State.READY
                await asyncio.sleep(self._rhythm.ready_probe if calm else self._rhythm.other_probe)

    async def _look(self, occupant: Occupant) -> None:
        """Asks the replica how it is.

        Raises:
            OSError: we cannot ask.
        """
        ready = await self._host.is_ready(occupant.id)
        if ready and occupant.present:
            occupant.answered_at = self._clock()
            starting = occupant.state is State.STARTING and self._host.note_ready(occupant.id)
            if starting and await self._is_fit(occupant):
                self._ready(occupant)
        if occupant.heed_exit(self._clock(), exits=not ready and self._host.exits(occupant.id)):
            self._on_death(occupant.id, "it exits, though nobody here told it to")
        if occupant.state is State.DRAINING:
            occupant.engine_requests = await self._host.running_requests(occupant.id)
            self._on_change()

    async def _is_fit(self, occupant: Occupant) -> bool:
        """Whether a replica that is ready takes what routers will send it.

        Asked only where its settings are on trial: without others to go back to, a replica that
        takes the shorter requests is better than none. One that does not say is asked again.
        """
        pool = self._pools[occupant.pool]
        tokens = self._longest(pool.labels[1])
        if not pool.on_trial or not tokens or occupant.outdated(pool.settings):
            return True
        refusal = await self._host.too_long(occupant.id, tokens)
        if refusal:
            why = f"it does not take the {tokens} tokens that routers send at most: {refusal}"
            self._on_death(occupant.id, why)
        return refusal == "" and occupant.state is State.STARTING

    def _ready(self, occupant: Occupant) -> None:
        occupant.ready_at = occupant.answered_at
        log.info("ready", replica=occupant.id)
        if occupant.started is not None:
            took = occupant.ready_at - occupant.started
            pool = self._pools[occupant.pool]
            pool.started(took)
            self._metrics.start_seconds.labels(*pool.labels).observe(took)
        self._become(occupant, State.READY)

    async def _end(self, occupant: Occupant, *, gently: bool) -> None:
        """Ends it, however often that fails: what is left of it has its slot and its record."""
        failed = False
        while True:
            try:
                await self._host.end(occupant.id, gently=gently)
            except Exception as error:
                if failed:
                    log.error("could not be ended again", replica=occupant.id, error=str(error))  # noqa: TRY400
                else:
                    log.exception("could not be ended", replica=occupant.id)
                failed = True
                await asyncio.sleep(self._rhythm.again)
            else:
                break
        self._remove(occupant)

    def _remove(self, occupant: Occupant) -> None:
        del self._occupants[occupant.id]
        self._changed()

    def _on_death(self, replica_id: str, what: str) -> None:
        occupant = self._occupants.get(replica_id)
        if occupant is None or not occupant.present:
            return
        log.warning("replica broke", replica=replica_id, fault=what)
        occupant.fault = what
        self._become(occupant, State.BROKEN)

    def _become(self, occupant: Occupant, state: State) -> None:
        occupant.state = state
        occupant.since = self._clock()
        self._changed()

    def _changed(self) -> None:
        self._wake.set()
        self._on_change()


def _patience(restart: Restart) -> Patience:
    return Patience(
        first_seconds=restart.first_seconds,
        cap_seconds=restart.cap_seconds,
        quarantine_after=restart.quarantine_after,
    )
