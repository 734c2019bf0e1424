"""A replica's life on its slot: started, asked how it is, ended, each in a task of its own.

Whatever goes wrong is this replica's alone. Leaves to `local` which replicas there shall be, to
`kept_pools` what a failure means for their pool.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.scaler.metrics import Metrics
from services.scaler.policy.replicas import State
from services.scaler.pools.pool import Pool
from services.scaler.targets.kept_pools import KeptPools
from services.scaler.targets.occupants import Occupant
from services.scaler.targets.slots import SlotHost, StartFailed, StartHindered

log = structlog.get_logger()


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


class Care:
    """Looks after single replicas; see `LocalTarget` for `longest`, `clock` and `rhythm`."""

    def __init__(
        self,
        kept: KeptPools,
        host: SlotHost,
        metrics: Metrics,
        *,
        longest: Callable[[str], int],
        clock: Callable[[], float],
        rhythm: Rhythm,
    ) -> None:
        self._kept = kept
        self._host = host
        self._metrics = metrics
        self._longest = longest
        self._clock = clock
        self._rhythm = rhythm

    async def start(self, occupant: Occupant) -> None:
        """Starts a replica on its slot, and looks after it while it is there."""
        pool = self._kept.all[occupant.pool]
        settings = pool.settings
        if settings is None or occupant.slot >= len(settings.slots):  # changed this very moment
            self._kept.remove(occupant)
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
            outdated = ours or settings is not self._kept.all[occupant.pool].settings
            self._kept.failed(occupant, why, self._clock(), outdated=outdated)
            self._kept.become(occupant, State.ENDING)
            await self.end(occupant, gently=False)  # something of it may be left
            return
        self._kept.renew(occupant.pool)
        self._kept.changed()
        await self.look_after(occupant)

    def _not_started(self, occupant: Occupant, why: str, settings: Pool, *, hindered: bool) -> None:
        outdated = hindered or settings is not self._kept.all[occupant.pool].settings
        self._kept.failed(occupant, why, self._clock(), outdated=outdated)
        self._kept.remove(occupant)

    async def look_after(self, occupant: Occupant) -> None:
        """Asks a replica how it is, again and again, while it is there."""
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
                self._kept.broke(occupant.id, "it could not be looked after")
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
            self._kept.broke(occupant.id, "it exits, though nobody here told it to")
        if occupant.state is State.DRAINING:
            occupant.engine_requests = await self._host.running_requests(occupant.id)
            self._kept.on_change()

    async def _is_fit(self, occupant: Occupant) -> bool:
        """Whether a replica that is ready takes what routers will send it.

        Asked only where its settings are on trial: without others to go back to, a replica that
        takes the shorter requests is better than none. One that does not say is asked again.
        """
        pool = self._kept.all[occupant.pool]
        tokens = self._longest(pool.labels[1])
        if not pool.on_trial or not tokens or occupant.outdated(pool.settings):
            return True
        refusal = await self._host.too_long(occupant.id, tokens)
        if refusal:
            why = f"it does not take the {tokens} tokens that routers send at most: {refusal}"
            self._kept.broke(occupant.id, why)
        return refusal == "" and occupant.state is State.STARTING

    def _ready(self, occupant: Occupant) -> None:
        occupant.ready_at = occupant.answered_at
        log.info("ready", replica=occupant.id)
        if occupant.started is not None:
            took = occupant.ready_at - occupant.started
            pool = self._kept.all[occupant.pool]
            pool.started(took)
            self._metrics.start_seconds.labels(*pool.labels).observe(took)
        self._kept.become(occupant, State.READY)

    async def end(self, occupant: Occupant, *, gently: bool) -> None:
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
        self._kept.remove(occupant)
