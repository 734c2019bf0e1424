"""What the fleet knows about one replica, and how that becomes what the policy judges."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from services.scaler.fleet.watchers import Seen
from services.scaler.load.loads import Loads
from services.scaler.policy.draining import Loaded, ReplicaState, in_flight
from services.scaler.ports import Replica, ReplicaStatus


@dataclass
class Member:
    """A replica that watchers know of. Times are those of the fleet's clock.

    Attributes:
        status: what its target last said of it.
        state: where it is in its life, as watchers know it.
        since: when that state began.
    """

    status: ReplicaStatus
    state: ReplicaState
    since: float

    @property
    def replica(self) -> Replica:
        """The replica itself."""
        return self.status.replica

    @property
    def seen(self) -> Seen:
        """The replica as watchers see it."""
        return Seen(self.replica, self.state)

    @property
    def stays(self) -> bool:
        """Whether nothing says that it will be taken away."""
        return not self.status.leaving and not self.status.notice

    def loaded(self, loads: Loads, now: float) -> Loaded:
        """For the policy. While draining, only reports from after its beginning count."""
        draining = self.state is ReplicaState.DRAINING
        reports = loads.in_flight(self.replica.id, self.since if draining else 0.0, now)
        return Loaded(
            id=self.replica.id,
            state=self.state,
            since=self.since,
            in_flight=in_flight(self.status.running_requests, reports),
            outdated=self.status.outdated,
            leaving=self.status.leaving,
            index=self.status.index,
            started_at=self.replica.started_at,
        )


class Members:
    """The replicas that watchers know of, by id and by pool: a round asks for each pool's."""

    def __init__(self) -> None:
        """None is known yet."""
        self._all: dict[str, Member] = {}
        self._by_pool: dict[str, dict[str, Member]] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(self._all.values())

    @property
    def ids(self) -> Collection[str]:
        """Of all."""
        return self._all.keys()

    def get(self, replica_id: str) -> Member | None:
        """The one of this id; None: there is none."""
        return self._all.get(replica_id)

    def of(self, pool: str) -> list[Member]:
        """Those of a pool, in the order in which they came."""
        return list(self._by_pool.get(pool, {}).values())

    def add(self, member: Member) -> None:
        """Takes a replica; it stays in its pool."""
        replica = member.replica
        self._all[replica.id] = member
        self._by_pool.setdefault(replica.pool, {})[replica.id] = member

    def pop(self, replica_id: str) -> Member:
        """Forgets the one of this id.

        Raises:
            KeyError: there is none.
        """
        member = self._all.pop(replica_id)
        of_pool = self._by_pool[member.replica.pool]
        del of_pool[replica_id]
        if not of_pool:
            del self._by_pool[member.replica.pool]
        return member


def state_of(status: ReplicaStatus, before: ReplicaState | None = None) -> ReplicaState:
    """The state that a status means after `before`; a drain is not taken back."""
    if before is ReplicaState.DRAINING or status.draining:
        return ReplicaState.DRAINING
    return ReplicaState.READY if status.ready else ReplicaState.STARTING
