"""Which replicas of a pool give up their work, and when they have.

Pure: the size wanted, what is observed and the time go in, actions come out. Leaves starting and
repairing replicas to `replicas` and to the target that runs them.

The rules:

1. A replica that is drained is released once nothing runs on it, or when its time is up.
2. A replica that its target takes away soon is drained; while it still starts it is just released.
3. More replicas than wanted: those still starting are released, then the least loaded are drained,
   of those that have as much to do the oldest. Those that their target is replacing do not count.
   Where the target can only take them away in one order, it is that order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SETTLE_SECONDS = 0.5
"""A drain lasts at least this long, so that every router has heard of it."""


class ReplicaState(StrEnum):
    """Where a replica is in its life, as routers see it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True)
class Loaded:
    """One replica with its load.

    Attributes:
        id: its id.
        state: STARTING, READY or DRAINING.
        since: when that state began, in seconds.
        in_flight: requests running on it; None: not known.
        outdated: its target is replacing it.
        leaving: why its target takes it away soon; empty: it does not.
        index: its place in the only order in which its target can take replicas away, the highest
            first; None: any may go first.
        started_at: when it was started, in seconds since 1970.
    """

    id: str
    state: ReplicaState
    since: float
    in_flight: int | None = None
    outdated: bool = False
    leaving: str = ""
    index: int | None = None
    started_at: float = 0.0


@dataclass(frozen=True)
class Drain:
    """Give the replica nothing new and let it finish."""

    replica: str
    reason: str


@dataclass(frozen=True)
class Release:
    """Let the replica go: routers are to forget it."""

    replica: str
    reason: str


Action = Drain | Release


def decide(
    size: int, replicas: Sequence[Loaded], *, drain_seconds: float, now: float
) -> tuple[Action, ...]:
    """What to do now; at most one action for a replica.

    Args:
        size: replicas that shall serve.
        replicas: those that are there.
        drain_seconds: the longest wait for running requests.
        now: seconds on the clock of `Loaded.since`.
    """
    draining = [replica for replica in replicas if replica.state is ReplicaState.DRAINING]
    serving = [replica for replica in replicas if replica.state is not ReplicaState.DRAINING]
    leaving = [replica for replica in serving if replica.leaving]
    counted = [replica for replica in serving if not replica.leaving and not replica.outdated]
    surplus = sorted(counted, key=_usefulness)[: max(len(counted) - size, 0)]
    too_many = f"the pool wants {size} and has {len(counted)}"
    return (
        *(action for replica in draining for action in _drained(replica, drain_seconds, now)),
        *(_let_go(replica, replica.leaving) for replica in leaving),
        *(_let_go(replica, too_many) for replica in surplus),
    )


def in_flight(engine: int | None, routers: Sequence[int | None]) -> int | None:
    """Requests on a replica from the engine's own count and those of the live routers.

    None among the inputs: not known. Zero only comes back when everybody who could know says so;
    an engine that counts nothing leaves it to the routers.
    """
    known = [count for count in routers if count is not None]
    highest = max(engine or 0, sum(known))
    if highest > 0:
        return highest
    complete = len(known) == len(routers) and (engine is not None or bool(routers))
    return 0 if complete else None


def _drained(replica: Loaded, drain_seconds: float, now: float) -> list[Release]:
    held = now - replica.since
    if replica.in_flight == 0 and held >= SETTLE_SECONDS:
        return [Release(replica.id, "drained")]
    if held >= drain_seconds:
        left = "an unknown number of" if replica.in_flight is None else str(replica.in_flight)
        reason = f"{left} requests left after draining {drain_seconds:g} s"
        return [Release(replica.id, reason)]
    return []


def _usefulness(replica: Loaded) -> tuple[int, bool, float, float, str]:
    """Sorts those first that are missed least; an unknown load counts as the highest."""
    load = float("inf") if replica.in_flight is None else replica.in_flight
    index = -1 if replica.index is None else replica.index
    ready = replica.state is ReplicaState.READY
    return (-index, ready, load, replica.started_at, replica.id)


def _let_go(replica: Loaded, reason: str) -> Action:
    if replica.state is ReplicaState.STARTING:
        return Release(replica.id, reason)
    return Drain(replica.id, reason)
