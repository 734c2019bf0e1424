"""What to do about a pool on numbered slots: start, stop, retire, wait or hold, with a reason.

Pure: a pool's goal, what is observed, past failures and the time go in, actions come out. The same
input gives the same output. Leaves observing and acting to the target that has the slots, and to
`draining` which replicas go when there are too many.

The rules, in this order:

1. A broken replica is stopped, one that is not ready in time too, one that is released too.
2. A replica that stopped answering is stopped after a while, one at a time: when all fall silent at
   once, the fault is more likely ours.
3. A replica whose settings are out of date is retired once it can be spared: its successor is
   ready. Successors start one at a time, beside those that serve where a slot is free. Where none
   is, one of those that serve makes room, and no other before its successor is ready.
4. Fewer than wanted: free slots get one each, those with the fewest failures first. A slot that
   failed waits, twice as long after each failure; after several it is quarantined, and tried only
   when no other slot is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a replica on a slot is in its life."""

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
    """

    first_seconds: float = 0.5
    cap_seconds: float = 60.0
    quarantine_after: int = 5
    stable_seconds: float = 30.0
    silence_seconds: float = 30.0


@dataclass(frozen=True)
class Goal:
    """What a pool should be.

    Attributes:
        size: replicas wanted.
        slots: places for them.
        start_seconds: how long one may take to be ready.
        spare: whether those that are out of date may go.
    """

    size: int
    slots: int
    start_seconds: float
    spare: bool = True


@dataclass(frozen=True)
class Observed:
    """One replica.

    Attributes:
        id: its id.
        slot: where it is.
        state: where it is in its life.
        since: when that state began.
        answered_at: when it last said that it is ready.
        outdated: its settings are no longer the pool's.
        released: it has nothing left to do and may be ended.
        fault: why it is broken.
    """

    id: str
    slot: int
    state: State
    since: float
    answered_at: float = 0.0
    outdated: bool = False
    released: bool = False
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
class Retire:
    """Have the replica drained; it counts no longer."""

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


Action = Start | Stop | Retire | Wait | Hold

NEXT_TRY = "; next try in "
"""What stands in a trouble between its reason and the seconds left, which change all the time."""


def decide(
    goal: Goal,
    replicas: Sequence[Observed],
    failures: Mapping[int, Failures],
    patience: Patience,
    now: float,
) -> tuple[Action, ...]:
    """What to do now. `failures` by slot."""
    stops = _stops(goal, replicas, patience, now)
    stopped = {stop.replica for stop in stops}
    serving = [
        replica
        for replica in replicas
        if replica.id not in stopped and replica.state in (State.STARTING, State.READY)
    ]
    current = [replica for replica in serving if not _extra(goal, replica)]
    extra = [replica for replica in serving if _extra(goal, replica)]
    free = [slot for slot in range(goal.slots) if all(replica.slot != slot for replica in replicas)]
    moving = len(serving) < len(replicas) or any(one.state is not State.READY for one in current)
    missing = goal.size - len(current)
    if extra:  # beside those that serve one successor, and only when all else is calm
        beside = 1 if len(serving) <= goal.size and not moving else 0
        missing = min(missing, max(goal.size - len(serving), beside))
    return (
        *stops,
        *(_spare(goal, current, extra, room=bool(free), moving=moving) if goal.spare else ()),
        *_grow(goal, len(current), missing, free, failures, patience=patience, now=now),
    )


def trouble(
    goal: Goal,
    replicas: Sequence[Observed],
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
    if sum(replica.state is State.READY for replica in replicas) < goal.size:
        for replica in replicas:
            if replica.slot in failures:
                return f"slot {replica.slot}: {_failed(failures[replica.slot])}; trying again"
    return next((action.reason for action in actions if isinstance(action, Hold)), "")


def after_failure(
    before: Failures | None, served_seconds: float, patience: Patience, now: float, why: str
) -> Failures:
    """A slot's failures after one more; a replica that served long clears the earlier ones."""
    earlier = before.count if before and served_seconds < patience.stable_seconds else 0
    return Failures(earlier + 1, now, why)


def _extra(goal: Goal, replica: Observed) -> bool:
    return replica.outdated or replica.slot >= goal.slots


def _stops(goal: Goal, replicas: Sequence[Observed], patience: Patience, now: float) -> list[Stop]:
    stops = []
    silent = []
    for replica in replicas:
        held = now - replica.since
        if replica.state is State.BROKEN:
            stops.append(Stop(replica.id, replica.fault, failed=True))
        elif replica.released and replica.state is not State.ENDING:
            stops.append(Stop(replica.id, "released", failed=False))
        elif replica.state is State.STARTING and held >= goal.start_seconds:
            reason = f"it was not ready after {goal.start_seconds:g} s"
            stops.append(Stop(replica.id, reason, failed=True))
        elif replica.state is State.READY and now - replica.answered_at >= patience.silence_seconds:
            silent.append(replica)
    if silent and all(replica.state in (State.READY, State.DRAINING) for replica in replicas):
        longest = min(silent, key=lambda replica: (replica.answered_at, replica.id))
        reason = f"it has not answered for {patience.silence_seconds:g} s"
        stops.append(Stop(longest.id, reason, failed=True))
    return stops


def _spare(
    goal: Goal,
    current: Sequence[Observed],
    extra: Sequence[Observed],
    *,
    room: bool,
    moving: bool,
) -> list[Action]:
    """Lets outdated replicas go: as many as can be spared, or one, where its slot is needed.

    A slot is needed only when nothing is under way that would make one spare by itself.
    """
    ready = sum(replica.state is State.READY for replica in current)
    spared = ready + len(extra) - goal.size
    if spared <= 0 and len(current) < goal.size and not room and not moving:
        spared = 1
    order = sorted(extra, key=lambda replica: (replica.state is State.READY, replica.id))
    reason = "its settings are not the pool's any more"
    return [_let_go(replica, reason) for replica in order[: max(spared, 0)]]


def _let_go(replica: Observed, reason: str) -> Action:
    if replica.state is State.STARTING:
        return Stop(replica.id, reason, failed=False)
    return Retire(replica.id, reason)


def _grow(
    goal: Goal,
    current: int,
    missing: int,
    free: Sequence[int],
    failures: Mapping[int, Failures],
    *,
    patience: Patience,
    now: float,
) -> list[Action]:
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
        return [*actions, Hold(f"{reason}: no slot is free yet")]
    first = min(waiting, key=lambda slot: (failures[slot].due(patience), slot))
    text = f"slot {first}: {_failed(failures[first])}"
    if all(failures[slot].count >= patience.quarantine_after for slot in waiting):
        text += "; quarantined"
    return [*actions, Wait(failures[first].due(patience), text)]


def _failed(failures: Failures) -> str:
    times = "once" if failures.count == 1 else f"{failures.count} times in a row"
    return f"failed {times}, last because {failures.why}"
