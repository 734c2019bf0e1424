"""Which replica answers: filter, score, pick."""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar

from services.common.breaker import Breaker


class ReplicaView(Protocol):
    """A replica as the choice sees it; read only.

    Attributes:
        id: its id.
        in_flight: attempts this router has on it.
        max_in_flight: most it should have at once, at least 1.
        breaker: open while it is avoided after failures.
    """

    @property
    def id(self) -> str: ...  # noqa: D102 -- said above
    @property
    def in_flight(self) -> int: ...  # noqa: D102 -- said above
    @property
    def max_in_flight(self) -> int: ...  # noqa: D102 -- said above
    @property
    def breaker(self) -> Breaker: ...  # noqa: D102 -- said above


View = TypeVar("View", bound=ReplicaView)


def least_loaded(replica: ReplicaView) -> float:
    """Share of the replica's places that are free, in [0, 1]; 1 for an idle replica."""
    return max(0.0, 1.0 - replica.in_flight / replica.max_in_flight)


def choose_replica(
    replicas: Iterable[View],
    *,
    now: float,
    avoid: Collection[str] = (),
) -> View | None:
    """Picks the best replica that has room, or None when none has.

    Replicas in `avoid` (this request failed there) and failing ones are taken only if nothing else
    has room: they may have recovered, and a try costs less than a refusal. Among others the least
    loaded is the best; equals go to the smaller id, so that the same input gives the same choice.
    """
    best: View | None = None
    best_key = (False, False, -1.0)
    for replica in replicas:
        if replica.in_flight >= replica.max_in_flight:
            continue
        key = (replica.id not in avoid, replica.breaker.allows(now), least_loaded(replica))
        if best is None or key > best_key or (key == best_key and replica.id < best.id):
            best, best_key = replica, key
    return best
