"""What to do about one pool now: start, drain, stop, wait or hold, each with its reason.

Pure: a pool's goal, what is observed, past failures and the time go in, actions come out. The same
input gives the same output. Leaves observing and acting to `fleet`, and whether a process still
lives to the target.

The rules, in this order:

1. What cannot be observed is left alone.
2. A broken replica is stopped, one that is not ready in time too, one that is drained too.
3. A replica that stopped answering is stopped after a while, one at a time: when all fall silent at
   once, the fault is more likely ours.
4. More replicas than wanted: those still starting are stopped, then the least loaded are drained.
   A replica whose settings are out of date counts as extra once it can be spared.
5. Fewer than wanted: free slots get one each, those with the fewest failures first. A slot that
   failed waits, twice as long after each failure; after several it is quarantined, and tried only
   when no other slot is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a replica is in its life, as the scaler sees it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    BROKEN = "broken"
    """Cannot serve any more; what is left of it still holds its slot."""
    ENDING = "ending"
    """Being ended; it holds its slot until that is done."""


@dataclass(frozen=True)
class Patience:
    """How long to wait before trying again, and before giving up on silence.

    Attributes:
        first_seconds: wait after the first failure of a slot; it doubles with each further one.
        cap_seconds: the longest wait.
        quarantine_after: failures in a row after which a slot is tried last.
        stable_seconds: a replica that served this long clears its slot's failures.
        silence_seconds: a ready replica that has not answered for this long is replaced.
        settle_seconds: a drain lasts at least this long, so that every router has heard of it.
    """

    first_seconds: float = 0.5
    cap_seconds: float = 60.0
    quarantine_after: int = 5
    stable_seconds: float = 30.0
    silence_seconds: float = 30.0
    settle_seconds: float = 0.5


@dataclass(frozen=True)
class Goal:
    """What a pool should be: `size` replicas on `slots` slots; times in seconds."""

    size: int
    slots: int
    start_seconds: float
    drain_seconds: float


@dataclass(frozen=True)
class Observed:
    """One replica.

    Attributes:
        id: its id.
        slot: where it is.
        state: where it is in its life.
        since: when that state began.
        answered_at: when it last said that it is ready.
        in_flight: requests running on it; None: not known.
        outdated: its settings are no longer the pool's.
        fault: why it is broken.
    """

    id: str
    slot: int
    state: State
    since: float
    answered_at: float = 0.0
    in_flight: int | None = None
    outdated: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Failures:
    """A slot's failures in a row; `why` is the last one's reason."""

    count: int
    last_at: float
    why: str

    def due(self, patience: Patience) -> float:
        """When the slot may be tried again."""
        doublings = min(self.count - 1, 60)
        return self.last_at + min(patience.first_seconds * 2.0**doublings, patience.cap_seconds)


@dataclass(frozen=True)
class Start:
    """Start a replica on the slot."""

    slot: int
    reason: str


@dataclass(frozen=True)
class Drain:
    """Give the replica nothing new and let it finish."""

    replica: str
    reason: str


@dataclass(frozen=True)
class Stop:
    """End the replica; `failed` counts it as a failure of its slot."""

    replica: str
    reason: str
    failed: bool


@dataclass(frozen=True)
class Wait:
    """Nothing can be started before `until`."""

    until: float
    reason: str


@dataclass(frozen=True)
class Hold:
    """Nothing can be done, for a reason that time alone does not cure."""

    reason: str


Action = Start | Drain | Stop | Wait | Hold

NEXT_TRY = "; next try in "
"""What stands in a trouble between its reason and the seconds left, which change all the time."""


def decide(
    goal: Goal,
    replicas: Sequence[Observed] | None,
    failures: Mapping[int, Failures],
    patience: Patience,
    now: float,
) -> tuple[Action, ...]:
    """What to do now. `replicas` None: they cannot be observed. `failures` by slot."""
    if replicas is None:
        return (Hold("the replicas cannot be observed"),)
    stops = _stops(goal, replicas, patience, now)
    stopped = {stop.replica for stop in stops}
    serving = [
        one
        for one in replicas
        if one.id not in stopped and one.state in (State.STARTING, State.READY)
    ]
    current = [one for one in serving if not _extra(goal, one)]
    extra = [one for one in serving if _extra(goal, one)]
    free = [slot for slot in range(goal.slots) if all(one.slot != slot for one in replicas)]
    return (
        *stops,
        *_shrink(goal, current),
        *_spare(goal, current, extra, room=bool(free), moving=len(serving) < len(replicas)),
        *_grow(goal, len(current), free, failures, patience=patience, now=now),
    )


def trouble(
    goal: Goal,
    replicas: Sequence[Observed] | None,
    failures: Mapping[int, Failures],
    actions: Sequence[Action],
    now: float,
) -> str:
    """What keeps the pool from its size, in one sentence; empty: nothing.

    `replicas` and `failures` as they are after the `actions`.
    """
    for action in actions:
        if isinstance(action, Wait):
            return f"{action.reason}{NEXT_TRY}{max(action.until - now, 0):.0f} s"
    if sum(one.state is State.READY for one in replicas or ()) < goal.size:
        for one in replicas or ():
            if one.slot in failures:
                return f"slot {one.slot}: {_failed(failures[one.slot])}; trying again"
    return next((action.reason for action in actions if isinstance(action, Hold)), "")


def after_failure(
    before: Failures | None, served_seconds: float, patience: Patience, now: float, why: str
) -> Failures:
    """A slot's failures after one more; a replica that served long clears the earlier ones."""
    earlier = before.count if before and served_seconds < patience.stable_seconds else 0
    return Failures(earlier + 1, now, why)


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


def _extra(goal: Goal, one: Observed) -> bool:
    return one.outdated or one.slot >= goal.slots


def _stops(goal: Goal, replicas: Sequence[Observed], patience: Patience, now: float) -> list[Stop]:
    stops = []
    silent = []
    for one in replicas:
        held = now - one.since
        if one.state is State.BROKEN:
            stops.append(Stop(one.id, one.fault, failed=True))
        elif one.state is State.STARTING and held >= goal.start_seconds:
            reason = f"not ready after {goal.start_seconds:g} s"
            stops.append(Stop(one.id, reason, failed=True))
        elif one.state is State.DRAINING:
            if one.in_flight == 0 and held >= patience.settle_seconds:
                stops.append(Stop(one.id, "drained", failed=False))
            elif held >= goal.drain_seconds:
                left = "an unknown number of" if one.in_flight is None else str(one.in_flight)
                reason = f"{left} requests left after draining {goal.drain_seconds:g} s"
                stops.append(Stop(one.id, reason, failed=False))
        elif one.state is State.READY and now - one.answered_at >= patience.silence_seconds:
            silent.append(one)
    if silent and all(one.state in (State.READY, State.DRAINING) for one in replicas):
        longest = min(silent, key=lambda one: (one.answered_at, one.id))
        reason = f"has not answered for {patience.silence_seconds:g} s"
        stops.append(Stop(longest.id, reason, failed=True))
    return stops


def _shrink(goal: Goal, current: Sequence[Observed]) -> list[Action]:
    """Lets the surplus go: first those that serve nobody yet, then the least loaded."""
    surplus = len(current) - goal.size
    if surplus <= 0:
        return []
    unknown = float("inf")
    order = sorted(
        current,
        key=lambda one: (
            one.state is State.READY,
            unknown if one.in_flight is None else one.in_flight,
            -one.since,
            one.id,
        ),
    )
    reason = f"the pool wants {goal.size} and has {len(current)}"
    return [_let_go(one, reason) for one in order[:surplus]]


def _spare(
    goal: Goal,
    current: Sequence[Observed],
    extra: Sequence[Observed],
    *,
    room: bool,
    moving: bool,
) -> list[Action]:
    """Lets outdated replicas go: as many as can be spared, or one, where its slot is needed."""
    ready = sum(one.state is State.READY for one in current)
    spared = ready + len(extra) - goal.size
    if spared <= 0 and len(current) < goal.size and not room and not moving:
        spared = 1
    order = sorted(extra, key=lambda one: (one.state is State.READY, one.id))
    reason = "its settings are not the pool's any more"
    return [_let_go(one, reason) for one in order[: max(spared, 0)]]


def _let_go(one: Observed, reason: str) -> Action:
    if one.state is State.STARTING:
        return Stop(one.id, reason, failed=False)
    return Drain(one.id, reason)


def _grow(
    goal: Goal,
    current: int,
    free: Sequence[int],
    failures: Mapping[int, Failures],
    *,
    patience: Patience,
    now: float,
) -> list[Action]:
    missing = goal.size - current
    if missing <= 0:
        return []
    reason = f"the pool wants {goal.size} and has {current}"

    def order(slot: int) -> tuple[bool, int, int]:
        count = failures[slot].count if slot in failures else 0
        return (count >= patience.quarantine_after, count, slot)

    due = [slot for slot in free if slot not in failures or failures[slot].due(patience) <= now]
    actions: list[Action] = [Start(slot, reason) for slot in sorted(due, key=order)[:missing]]
    if len(actions) == missing:
        return actions
    waiting = [slot for slot in free if slot not in due]
    if not waiting:
        return [*actions, Hold(f"{reason}: a slot is still being cleared")]
    first = min(waiting, key=lambda slot: (failures[slot].due(patience), slot))
    text = f"slot {first}: {_failed(failures[first])}"
    if all(failures[slot].count >= patience.quarantine_after for slot in waiting):
        text += "; quarantined"
    return [*actions, Wait(failures[first].due(patience), text)]


def _failed(failures: Failures) -> str:
    times = "once" if failures.count == 1 else f"{failures.count} times in a row"
    return f"failed {times}, last because {failures.why}"
