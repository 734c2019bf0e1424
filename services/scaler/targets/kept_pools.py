"""All pools of this host with the replicas on their slots, and what becomes of both as they fail.

State of the local target, for `local`, which decides, and `care`, which looks after one replica.
Neither awaits anything here, so what one of them finds holds until it has acted on it.
"""

import asyncio
from collections.abc import Callable

import structlog

from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.policy.replicas import Observed, Patience, State
from services.scaler.pools.pool import Restart
from services.scaler.ports import OnChange, PoolStatus
from services.scaler.targets.kept_pool import KeptPool
from services.scaler.targets.occupants import Occupant, as_of

log = structlog.get_logger()

HEARD_SECONDS = 2.0
"""Within which sizes follow when capacity is taken away."""


class KeptPools:
    """The pools, and who is on their slots.

    Attributes:
        all: pools by name, also those that are no longer configured.
        occupants: by id of the replica.
        patience: with replicas that fail or say nothing.
        wake: set when something is to be decided.
        on_change: called when others may see something new.
    """

    def __init__(
        self,
        scaling: Scaling,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """No replica is known yet. `clock` gives monotonic seconds, `wall` those since 1970."""
        self.all = {name: KeptPool(name, pool) for name, pool in scaling.pools.items()}
        self.occupants: dict[str, Occupant] = {}
        self.patience = _patience(scaling.restart)
        self.wake = asyncio.Event()
        self.on_change: OnChange = lambda: None
        self._metrics = metrics
        self._clock = clock
        self._wall = wall

    def configure(self, scaling: Scaling, *, again: bool) -> None:
        """Takes changed settings; see `Target.configure`."""
        self.patience = _patience(scaling.restart)
        for name in {*self.all, *scaling.pools}:
            self.pool(name).configure(scaling.pools.get(name), again=again)
            self.renew(name)
        self.changed()

    def pool(self, name: str) -> KeptPool:
        """The pool of this name, made where there was none."""
        return self.all.setdefault(name, KeptPool(name, None))

    def names(self) -> set[str]:
        """Of the pools that are configured, or still have replicas."""
        configured = {name for name, pool in self.all.items() if pool.settings is not None}
        return configured | {occupant.pool for occupant in self.occupants.values()}

    def of(self, pool: str) -> list[Occupant]:
        """Who is on the slots of a pool."""
        return [occupant for occupant in self.occupants.values() if occupant.pool == pool]

    def status(self) -> dict[str, PoolStatus]:
        """Every pool as others see it."""
        return {name: self.all[name].status(self.of(name)) for name in self.names()}

    def observed(self, pool: str) -> list[Observed]:
        """Its replicas as the policy judges them."""
        settings = self.all[pool].settings
        return [occupant.observe(settings) for occupant in self.of(pool)]

    def renew(self, name: str) -> None:
        """Says of replicas what their pool's settings say now."""
        settings = self.all[name].settings
        for occupant in self.of(name):
            if settings is not None and occupant.replica is not None:
                occupant.replica = as_of(occupant.replica, settings)

    def awaited(self, name: str, now: float) -> bool:
        """Whether replicas of a pool that goes as a whole are missed when they do.

        It does so when it is no longer configured, as a pool may have been renamed, or when its
        capacity is taken away. They are missed while another pool of their tier is not ready, and
        until others can have heard of it.
        """
        pool = self.all[name]
        if pool.settings is not None and not pool.notice:
            return False
        if any(one.notice and now - one.noticed_at < HEARD_SECONDS for one in self.of(name)):
            return True
        tiers = {one.replica.tier for one in self.of(name) if one.replica is not None}
        return any(
            pool.settings is not None
            and other != name
            and pool.settings.tier in tiers
            and pool.short_of(self.of(other))
            for other, pool in self.all.items()
        )

    def on_trial(self, occupant: Occupant) -> bool:
        """Whether it shows what its settings are worth."""
        pool = self.all[occupant.pool]
        fresh = occupant.served_seconds < self.patience.stable_seconds
        return pool.on_trial and fresh and not occupant.outdated(pool.settings)

    def failed(
        self, occupant: Occupant, why: str, now: float, *, outdated: bool | None = None
    ) -> None:
        """Takes the failure of a replica, which may cost its pool new settings.

        Args:
            occupant: the replica.
            why: it failed.
            now: seconds of the clock.
            outdated: it says nothing of its pool's settings; None: as the replica itself says.
        """
        pool = self.all[occupant.pool]
        served = occupant.served_seconds
        pool.failed(occupant.slot, why, served_seconds=served, patience=self.patience, now=now)
        self._metrics.failures.labels(*pool.labels).inc()
        outdated = occupant.outdated(pool.settings) if outdated is None else outdated
        fresh = served < self.patience.stable_seconds and not outdated
        others = [one for one in self.of(occupant.pool) if one is not occupant]
        serving = any(one.state is State.READY for one in others)
        if fresh and pool.judge(f"{occupant.id}: {why}", self._wall(), serving=serving):
            self.renew(occupant.pool)
            self.changed()

    def broke(self, replica_id: str, what: str) -> None:
        """Takes that a replica, or a part of it, is dead. One that is gone already stays so."""
        occupant = self.occupants.get(replica_id)
        if occupant is None or not occupant.present:
            return
        log.warning("replica broke", replica=replica_id, fault=what)
        occupant.fault = what
        self.become(occupant, State.BROKEN)

    def become(self, occupant: Occupant, state: State) -> None:
        """Notes where in its life a replica is from now on."""
        occupant.state = state
        occupant.since = self._clock()
        self.changed()

    def remove(self, occupant: Occupant) -> None:
        """Forgets a replica of which nothing is left."""
        del self.occupants[occupant.id]
        self.changed()

    def changed(self) -> None:
        """Something is to be decided, and others may see something new."""
        self.wake.set()
        self.on_change()


def _patience(restart: Restart) -> Patience:
    return Patience(
        first_seconds=restart.first_seconds,
        cap_seconds=restart.cap_seconds,
        quarantine_after=restart.quarantine_after,
    )
