"""The pools as they stand: what their file says, what their target finds, what they are to be.

Leaves to `sizes` how sizes come about, to `fleet` that they come to be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.scaler.config import Scaling
from services.scaler.fleet.members import Member
from services.scaler.fleet.sizes import Sizes
from services.scaler.fleet.watchers import Seen
from services.scaler.load.signals import PoolNow
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.rollout import SettingsRefusal
from services.scaler.policy.sizing.settings import Query
from services.scaler.policy.sizing.views import Decision
from services.scaler.policy.start_times import StartTimes
from services.scaler.pools.pool import Pool
from services.scaler.ports import PoolStatus

log = structlog.get_logger()

ORPHANS_DRAIN_SECONDS = 30.0
"""How long replicas of pools that are no longer configured may finish what they have."""
UNSEEN = "the replicas cannot be observed"
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


class Pools:
    """All pools, also those that are no longer configured and still have replicas.

    Attributes:
        scaling: the configuration in force.
        status: what the target said last, by pool.
        seen: it says something now.
        exit_drain_seconds: how long draining may take, as the scaler ends; None: it does not.
    """

    def __init__(
        self, scaling: Scaling, sizes: Sizes, clock: Callable[[], float], file: str
    ) -> None:
        """Nothing was seen yet. `clock` gives monotonic seconds, `file` is named in logs."""
        self.scaling = scaling
        self.status: Mapping[str, PoolStatus] = {}
        self.seen = True
        self.exit_drain_seconds: float | None = None
        self._sizes = sizes
        self._clock = clock
        self._file = file
        self._earlier: Mapping[tuple[str, str, str], StartTimes] = {}

    def take(self, status: Mapping[str, PoolStatus] | None) -> bool:
        """Takes what the target says; what it cannot see, None, stays as it was known.

        Returns:
            whether there is more room than before, or less.
        """
        if (status is not None) is not self.seen:
            log.warning("replicas seen again" if status is not None else UNSEEN)
            self.seen = status is not None
        if status is None:
            return False
        for name, pool in status.items():
            if pool.refused is not None and pool.refused != self.status_of(name).refused:
                self._tell(name, pool.refused)
        before, self.status = self.status, status
        return _room(status) != _room(before)

    @property
    def configured(self) -> Mapping[str, Pool]:
        """The pools of the file in force."""
        return self.scaling.pools

    def status_of(self, name: str) -> PoolStatus:
        """What the target said of it last; nothing, where it said nothing."""
        return self.status.get(name, _NOTHING)

    def settings(self, name: str) -> Pool:
        """What a configured pool goes by: its file, or where that is refused the last good ones."""
        return self.status_of(name).in_force or self.configured[name]

    def size(self, name: str) -> int:
        """Replicas wanted. A pool that is no longer configured wants none."""
        ending = self.exit_drain_seconds is not None and self.ends(name)
        if name not in self.configured or ending:
            return 0
        status, settings = self.status_of(name), self.settings(name)
        if settings.external is not None:  # as many as somebody else runs
            return len(status.replicas)
        wanted = self._sizes.wanted(name, settings)
        return wanted if status.by_hand is None else status.by_hand

    def ends(self, name: str) -> bool:
        """Whether its replicas end with us; those of a cluster and of others do not."""
        configured = self.configured.get(name)
        return configured is None or bool(configured.slots)

    def ended(self) -> bool:
        """Whether nothing is left of all that ends with us."""
        return all(status.empty for name, status in self.status.items() if self.ends(name))

    def starts(self, name: str) -> StartTimes:
        """How long its last starts took, under earlier scalers too."""
        return self.status_of(name).starts.after(self._earlier.get(self._of(name), StartTimes()))

    def lasting_starts(self) -> dict[tuple[str, str, str], StartTimes]:
        """What the next scaler may `recall`, by pool, model and precision."""
        found = {self._of(name): self.starts(name) for name in self.configured}
        return {of: starts for of, starts in found.items() if starts.seconds}

    def recall(self, starts: Mapping[tuple[str, str, str], StartTimes]) -> None:
        """Takes up how long starts took under an earlier scaler."""
        self._earlier = starts

    def _of(self, name: str) -> tuple[str, str, str]:
        """Whose starts these are: of other replicas they say nothing."""
        settings = self.settings(name)
        return name, settings.model, settings.precision

    def start_seconds(self, name: str) -> float:
        """How long a start takes, as measured; before any was, the longest that it may."""
        typical = self.starts(name).typical_seconds
        return self.settings(name).start_seconds if typical is None else typical

    def drain_seconds(self, name: str) -> float:
        """How long its replicas may finish what they have."""
        known = name in self.configured
        seconds = self.settings(name).drain_seconds if known else ORPHANS_DRAIN_SECONDS
        at_exit = self.exit_drain_seconds
        return seconds if at_exit is None else min(seconds, at_exit)

    def trouble(self, name: str) -> str:
        """What keeps it from its size, in words; empty: nothing."""
        if not self.seen:
            return UNSEEN
        said = [self.status_of(name).trouble]
        if name in self.configured:
            said += self._sizes.troubles(name, self.settings(name), self._clock())
        return "; ".join(filter(None, said))

    def queries(self) -> dict[tuple[str, str], Query]:
        """The queries of all pools, by pool and name."""
        return {
            (name, query): asked
            for name in self.configured
            if (scale := self.settings(name).scale) is not None
            for query, asked in scale.queries.items()
        }

    def labels(self, name: str) -> tuple[str, str]:
        """Pool and tier. A pool that is no longer configured has no tier."""
        return name, self.settings(name).tier if name in self.configured else ""

    def tiers(self) -> dict[str, str]:
        """The tier of each configured pool."""
        return dict(map(self.labels, self.configured))

    def view(self, name: str, members: Sequence[Member]) -> PoolView:
        """A configured pool as it is shown, with these replicas."""
        status, sized = self.status_of(name), self._sizes.sized(name)
        starts = self.starts(name)
        return PoolView(
            name=name,
            pool=self.settings(name),
            desired=self.size(name),
            replicas=tuple(member.seen for member in members),
            capacity=status.capacity,
            trouble=self.trouble(name),
            typical_start_seconds=starts.typical_seconds,
            refused=status.refused,
            held=status.held if self.seen else UNSEEN,
            decision=None if sized is None else sized.decision,
            start_spread=starts.spread,
        )

    def now(self, name: str, members: Sequence[Member]) -> PoolNow:
        """A configured pool for the sizes. While it is rolled out those of before still count."""
        status = self.status_of(name)
        ready = [one for one in members if one.state is ReplicaState.READY and one.stays]
        starting = status.pending + sum(
            one.state is ReplicaState.STARTING and not one.status.outdated for one in members
        )
        starting = min(starting, max(self.size(name) - len(ready), 0))
        there = len(members) + status.pending + status.ending
        return PoolNow(
            name,
            self.settings(name),
            ready=tuple(one.replica.id for one in ready),
            starting=starting,
            leaving=there - len(ready) - starting,
            fits=status.capacity,
            start_seconds=self.start_seconds(name),
            woken=self._sizes.woken(name),
        )

    def _tell(self, name: str, refused: SettingsRefusal) -> None:
        log.error(
            "the new settings of a pool are refused; it goes on with the last good ones",
            file=self._file,
            pool=name,
            reason=refused.reason,
            changed={change.key: change.value for change in refused.changes},
            in_force={change.key: change.before for change in refused.changes},
        )


def _room(status: Mapping[str, PoolStatus]) -> dict[str, tuple[int | None, int]]:
    """Most replicas that fit in each pool, and how many of those there are to be taken away."""
    return {
        name: (pool.capacity, sum(bool(one.notice) for one in pool.replicas))
        for name, pool in status.items()
    }
