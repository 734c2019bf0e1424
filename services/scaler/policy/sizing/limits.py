"""How fast a size may change, as Kubernetes' HPA v2 has it.

Pure. Tolerance by direction, stabilisation over what was wanted in a window, and rates against the
changes of the past. Source of the algorithm: Kubernetes, `pkg/controller/podautoscaler`, stabilise
and then limit by the rates; bounds come after. Events and windows are kept for as long as a policy
looks back.
"""

import math
from dataclasses import dataclass, replace

from services.scaler.policy.sizing import windows
from services.scaler.policy.sizing.settings import Behavior, Direction, RateType, Select

MOST_EVENTS = 512
"""Of more changes, the two oldest are counted as one, at the later time."""
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Past:
    """What was wanted and what changed.

    Attributes:
        least: the least that was wanted lately, by demand and signals alone.
        greatest: the greatest of the same.
        events: when the size changed, and by how much; oldest first.
    """

    least: windows.Seen = ()
    greatest: windows.Seen = ()
    events: tuple[tuple[float, int], ...] = ()


def tolerated(behavior: Behavior, ratio: float) -> bool:
    """Whether wanted by present is too near 1 for a change."""
    up, down = behavior.scale_up.tolerance, behavior.scale_down.tolerance
    return 1.0 - down - EPSILON <= ratio <= 1.0 + up + EPSILON


def stabilized(
    behavior: Behavior, past: Past, now: float, *, wanted: int, current: int
) -> tuple[int, Past]:
    """The size within what was wanted in the windows, and the past with `wanted` in it.

    Up, the least of the window holds; down, the greatest.
    """
    up = now - behavior.scale_up.stabilization_window_seconds
    down = now - behavior.scale_down.stabilization_window_seconds
    least = windows.with_least(past.least, now, wanted, up)
    greatest = windows.with_greatest(past.greatest, now, wanted, down)
    size = current
    size = max(size, int(least[0][1]))
    size = min(size, int(greatest[0][1]))
    return size, Past(least, greatest, past.events)


def limited(behavior: Behavior, past: Past, now: float, *, wanted: int, current: int) -> int:
    """The size within the rates; never on the other side of `current`."""
    if wanted > current:
        most = _most(behavior.scale_up, past, now, current)
        return wanted if most is None else min(wanted, max(most, current))
    if wanted < current:
        least = _least(behavior.scale_down, past, now, current)
        return wanted if least is None else max(wanted, min(least, current))
    return wanted


def changed(behavior: Behavior, past: Past, now: float, change: int) -> Past:
    """The past with a change of the size, without what no rate looks back to."""
    periods = [
        rate.period_seconds
        for direction in (behavior.scale_up, behavior.scale_down)
        for rate in direction.policies
    ]
    if not periods:
        return replace(past, events=()) if past.events else past
    since = now - max(periods)
    if not change and (not past.events or past.events[0][0] > since):
        return past
    events = tuple(event for event in past.events if event[0] > since)
    if change:
        events = (*events, (now, change))
    return replace(past, events=_few(events))


def _few(events: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Changes of one direction beside each other are put together while there are too many."""
    while len(events) > MOST_EVENTS:
        for index in range(len(events) - 1):
            (_, first), (at, second) = events[index], events[index + 1]
            if (first > 0) == (second > 0):
                events = (*events[:index], (at, first + second), *events[index + 2 :])
                break
        else:
            events = events[1:]
    return events


def _start(past: Past, now: float, period: float, current: int) -> int:
    """The size at the beginning of the period, by what changed since."""
    return current - sum(change for at, change in past.events if at > now - period)


def _most(up: Direction, past: Past, now: float, current: int) -> int | None:
    if up.select_policy is Select.DISABLED:
        return current
    if not up.policies:
        return None
    allowed = []
    for rate in up.policies:
        start = _start(past, now, rate.period_seconds, current)
        if rate.type is RateType.PODS:
            allowed.append(start + rate.value)
        else:
            # A percentage of nothing would keep a pool at zero for ever.
            allowed.append(max(math.ceil(start * (1 + rate.value / 100) - EPSILON), 1))
    return max(allowed) if up.select_policy is Select.MAX else min(allowed)


def _least(down: Direction, past: Past, now: float, current: int) -> int | None:
    if down.select_policy is Select.DISABLED:
        return current
    if not down.policies:
        return None
    allowed = []
    for rate in down.policies:
        start = _start(past, now, rate.period_seconds, current)
        if rate.type is RateType.PODS:
            allowed.append(start - rate.value)
        else:
            allowed.append(math.trunc(start * (1 - rate.value / 100) + EPSILON))
    return min(allowed) if down.select_policy is Select.MAX else max(allowed)
