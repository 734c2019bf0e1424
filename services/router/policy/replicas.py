"""Which replica answers: filter, score, pick."""

from collections.abc import Callable, Collection, Iterable
from typing import Protocol, TypeVar


class ReplicaView(Protocol):
    """A replica as the choice sees it; read only.

    Attributes:
        id: its id.
        in_flight: attempts this router has on it.
        max_in_flight: most it should have at once, at least 1.
        failing_until: monotonic seconds until which it is avoided after failures; 0 for healthy.
    """

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def in_flight(self) -> int: ...  # noqa: D102
    @property
    def max_in_flight(self) -> int: ...  # noqa: D102
    @property
    def failing_until(self) -> float: ...  # noqa: D102


View = TypeVar("View", bound=ReplicaView)
Scorer = Callable[[ReplicaView], float]


def least_loaded(replica: ReplicaView) -> float:
    """Share of the replica's places that are free, in [0, 1]; 1 for an idle replica."""
    return max(0.0, 1.0 - replica.in_flight / replica.max_in_flight)


def choose_replica(
    replicas: Iterable[View],
    *,
    now: float,
    score: Scorer = least_loaded,
    avoid: Collection[str] = (),
) -> View | None:
    """Picks the best replica that has room, or None when none has.

    Replicas in `avoid` (this request failed there) and failing ones are taken only if nothing else
    has room: they may have recovered, and a try costs less than a refusal. Equal scores go to the
    smaller id, so that the same input gives the same choice.
    """
    best: View | None = None
    best_key = (False, False, -1.0)
    for replica in replicas:
        if replica.in_flight >= replica.max_in_flight:
            continue
        key = (replica.id not in avoid, replica.failing_until <= now, score(replica))
        if best is None or key > best_key or (key == best_key and replica.id < best.id):
            best, best_key = replica, key
    return best


def backoff_seconds(failures: int) -> float:
    """How long a replica is avoided after that many failures in a row: 0.5 s, doubling to 8 s."""
    return min(8.0, 0.5 * 2.0 ** (failures - 1)) if failures > 0 else 0.0
