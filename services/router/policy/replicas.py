"""Which replica answers: filter, score, pick."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A replica as the choice sees it.

    Attributes:
        id: its id.
        in_flight: requests this router has running on it.
        max_in_flight: most it should have at once, at least 1.
        failing_until: monotonic seconds until which it is avoided after failures; 0 for healthy.
    """

    id: str
    in_flight: int
    max_in_flight: int
    failing_until: float = 0.0


Scorer = Callable[[Candidate], float]


def least_loaded(candidate: Candidate) -> float:
    """Share of the replica's places that are free, in [0, 1]; 1 for an idle replica."""
    return max(0.0, 1.0 - candidate.in_flight / candidate.max_in_flight)


POLICIES: Mapping[str, Scorer] = {"least_loaded": least_loaded}
"""Ways to choose a replica; a new one is a function and a line here."""


def choose_replica(
    candidates: Iterable[Candidate],
    *,
    now: float,
    score: Scorer = least_loaded,
    avoid: Collection[str] = (),
) -> Candidate | None:
    """Picks the best replica that has room, or None when none has.

    Replicas in `avoid` (this request failed there) and failing ones are taken only if nothing else
    has room: they may have recovered, and a try costs less than a refusal. Equal scores go to the
    smaller id, so that the same input gives the same choice.
    """
    best: Candidate | None = None
    best_key: tuple[bool, bool, float] | None = None
    for candidate in candidates:
        if candidate.in_flight >= candidate.max_in_flight:
            continue
        key = (candidate.id not in avoid, candidate.failing_until <= now, score(candidate))
        if (
            best is None
            or best_key is None
            or key > best_key
            or (key == best_key and candidate.id < best.id)
        ):
            best, best_key = candidate, key
    return best


def backoff_seconds(failures: int) -> float:
    """How long a replica is avoided after that many failures in a row: 0.5 s, doubling to 8 s."""
    return min(8.0, 0.5 * 2.0 ** (failures - 1)) if failures > 0 else 0.0
