"""What the fleet needs from outside: places where replicas run, and who keeps what it decides.

`Target` is as narrow as every such place can be: it takes sizes and says what is there. How a
replica comes to be there, on which slot or node, and how it is repaired is the place's own affair.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.scaler.config import Scaling
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.policy.sizing.override import Override
from services.scaler.policy.sizing.views import Decision
from services.scaler.policy.start_times import StartTimes
from services.scaler.pools.pool import Capacity, Pool


@dataclass(frozen=True)
class Replica:
    """One Triton server that serves a model.

    Attributes:
        id: unique for ever.
        pool: pool it belongs to.
        tier: tier the pool serves.
        model: model name to ask it for.
        precision: precision of its weights.
        capacity: kind of capacity it runs on.
        max_in_flight: most requests a router should have running on it.
        address: host:port where routers reach it.
        started_at: when it was started, seconds since the epoch.
    """

    id: str
    pool: str
    tier: str
    model: str
    precision: str
    capacity: Capacity
    max_in_flight: int
    address: str
    started_at: float


@dataclass(frozen=True)
class ReplicaStatus:
    """A replica that is there, whether or not it takes requests yet.

    Attributes:
        replica: which one.
        ready: it takes requests.
        running_requests: requests it runs by its own count, asked after its drain began; None:
            not known.
        outdated: it serves with settings that are no longer the pool's. The target replaces it,
            and it does not count towards the pool's size.
        leaving: why the target takes it away soon; empty: it does not. It is to be drained.
        index: its place in the only order in which the target can take replicas away, the highest
            first; None: any of them may go first.
        notice: why the target will take it away after a while; empty: it will not. It serves until
            it is to be drained, and does not count any more.
        draining: its drain began under an earlier scaler, and is to be finished.
        metrics_address: host:port of its page of metrics, as this scaler reaches it; empty: none.
    """

    replica: Replica
    ready: bool
    running_requests: int | None = None
    outdated: bool = False
    leaving: str = ""
    index: int | None = None
    notice: str = ""
    draining: bool = False
    metrics_address: str = ""


@dataclass(frozen=True)
class PoolStatus:
    """A pool as its target finds it.

    Attributes:
        replicas: those that have an address; a broken one is not among them.
        pending: replicas on their way that have no address yet.
        ending: replicas being taken down, or broken and not yet cleared away.
        capacity: most replicas that fit; None: not known.
        trouble: what keeps the pool from its size, in one sentence; empty: nothing.
        starts: how long the last starts took that this scaler saw.
        refused: why the configured settings are not in force; None: they are.
        in_force: the settings it goes by where the configured ones are refused.
        held: why nothing may be decided of it now, as another scaler does, or as what is said here
            is old; empty: it may. Replicas that leave are drained all the same.
        known: whether it was ever seen what it has. Where not, the rest here says nothing.
        by_hand: the size that somebody else has given it, which holds until the target says
            otherwise; None: nobody has.
    """

    replicas: tuple[ReplicaStatus, ...] = ()
    pending: int = 0
    ending: int = 0
    capacity: int | None = None
    trouble: str = ""
    starts: StartTimes = field(default_factory=StartTimes)
    refused: SettingsRefusal | None = None
    in_force: Pool | None = None
    held: str = ""
    known: bool = True
    by_hand: int | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing of the pool is left."""
        return not (self.replicas or self.pending or self.ending)


@dataclass(frozen=True)
class Wish:
    """What is wanted of a pool, for an actuator other than ours.

    Attributes:
        size: replicas that shall be there: those that serve, and those that still drain.
        active: whether any shall serve.
        since: when it came to be so, in seconds since 1970.
    """

    size: int
    active: bool
    since: float


class Wishes(Protocol):
    """What is wanted of pools now."""

    def wish(self, pool: str) -> Wish | None:
        """What is wanted of a pool; None: that is not known now.

        Raises:
            KeyError: there is no such pool.
        """

    async def changed(self) -> None:
        """Waits until any wish is another, or a pool comes or goes."""


OnChange = Callable[[], None]
"""Called in the event loop at the moment `Target.observe` would say something new."""


class Target(Protocol):
    """Where replicas run."""

    async def open(self, on_change: OnChange) -> None:
        """Takes over what an earlier scaler left. Called once, before anything else.

        Raises:
            ConfigError: it cannot be used, or another scaler uses it.
        """

    async def run(self) -> None:
        """Makes pools what `resize` wants, until cancelled; replicas stay then."""

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:
        """Takes changed settings; comes back at once.

        A replica that has other settings is replaced without missing one that serves. Settings
        that replicas fail with are refused, and their pool goes back to the last good ones.

        Args:
            scaling: all pools.
            again: refused settings are to be tried once more.
        """

    def observe(self) -> Mapping[str, PoolStatus] | None:
        """Every pool it has something of, by name. Changes nothing.

        None: it cannot be known now. A target never gives a part for the whole.
        """

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        """Says what the pool should be; comes back at once, and may be repeated.

        Args:
            pool: its name.
            size: replicas that shall serve, those named below not counted.
            draining: ids of replicas that get nothing new and still have requests: they stay.
            drained: ids of replicas with nothing left to do: they go. A target that cannot choose
                which of its replicas goes prefers these.
        """

    async def close(self) -> None:
        """Lets go of all replicas without ending any."""


class Decisions(Protocol):
    """Where decisions go, to be kept and shown."""

    def take(self, pool: str, decision: Decision, wall: float) -> None:
        """Takes what was decided at one tick, also where nothing changed; comes back at once.

        Args:
            pool: its name.
            decision: its size, and why.
            wall: when, in seconds since 1970.
        """


class Overrides(Protocol):
    """What operators set against the policy, for a time."""

    def of(self, pool: str, wall: float) -> Override | None:
        """The override of a pool that holds at this time, in seconds since 1970; None: none."""
