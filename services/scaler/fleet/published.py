"""The replicas as those know them who watch the fleet: every change is published as it is noted.

Owns the published states, the revision and the watchers. Leaves to `fleet` what is to change.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from services.scaler.fleet.members import Member, Members, state_of
from services.scaler.fleet.watchers import Seen, Update, Watcher, Watchers
from services.scaler.policy.draining import ReplicaState
from services.scaler.ports import ReplicaStatus


class Published:
    """Replicas and watchers.

    Attributes:
        members: the replicas that watchers know of.
        released: ids of those that are gone for watchers, and not yet for their target.
    """

    def __init__(self, *, revision: int, on_drop: Callable[[], None]) -> None:
        """No replica is known yet.

        Args:
            revision: where counting begins, above that of any earlier scaler.
            on_drop: hears of each watcher that is given up.
        """
        self.members = Members()
        self.released: set[str] = set()
        self._revision = revision
        self._watchers = Watchers(on_drop=on_drop)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def watch(self, caller: str) -> AbstractContextManager[Watcher]:
        """A subscription of a caller: the whole fleet, then each change.

        Raises:
            Overloaded: there are too many.
        """
        whole = tuple(member.seen for member in self.members)
        update = Update(full=True, replicas=whole, revision=self._revision)
        return self._watchers.subscribe(update, caller=caller)

    def close(self) -> None:
        """Ends the watchers' streams."""
        self._watchers.close()

    def take(self, found: Mapping[str, ReplicaStatus], now: float) -> None:
        """Takes all that targets have, by id: what is not among it is gone."""
        self.released &= found.keys()
        for replica_id in set(self.members.ids) - found.keys():
            self._forget(replica_id)
        for replica_id, replica in found.items():
            member = self.members.get(replica_id)
            if member is not None:
                self._update(member, replica, now)
            elif replica_id not in self.released:
                member = Member(replica, state_of(replica), now)
                self.members.add(member)
                self._publish(member.seen)

    def drain(self, member: Member, now: float) -> None:
        """It gets nothing new from now on."""
        member.state, member.since = ReplicaState.DRAINING, now
        self._publish(member.seen)

    def release(self, member: Member) -> None:
        """It has nothing left to do: it is gone, whatever its target still says of it."""
        self.released.add(member.replica.id)
        self._forget(member.replica.id)

    def _update(self, member: Member, status: ReplicaStatus, now: float) -> None:
        before, member.status = member.seen, status
        if (state := state_of(status, member.state)) is not member.state:
            member.state, member.since = state, now
        if member.seen != before:
            self._publish(member.seen)

    def _forget(self, replica_id: str) -> None:
        member = self.members.pop(replica_id)
        self._publish(Seen(member.replica, ReplicaState.GONE))

    def _publish(self, seen: Seen) -> None:
        self._revision += 1
        self._watchers.publish(Update(full=False, replicas=(seen,), revision=self._revision))
