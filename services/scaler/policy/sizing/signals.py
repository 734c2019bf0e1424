"""Sizes that signals with targets ask for, as Kubernetes' HPA v2 has it.

Pure. A measure or a query for the whole pool is kept at its target by ratio: ready replicas times
value by target. A query for each replica is divided by its target. A signal that is missing, too
old, or no number says nothing, and a pool with such a signal never shrinks.

One case is told apart: a pool that has no values since it has nothing to do. Where routers report,
and nothing arrived, waits or runs, every measure of the pool counts as nothing asked, whatever its
last value was. A query may be about something else: it counts as nothing asked only where it was
answered with no number (NaN) in time, not where nobody answered.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from services.scaler.policy.sizing.limits import EPSILON, tolerated
from services.scaler.policy.sizing.settings import Behavior, Scale
from services.scaler.policy.sizing.views import Reading, View
from services.scaler.policy.sizing.work import fresh, sound

MOST_WANTED = 10_000
"""No signal asks for more than this."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one signal asks for.

    Attributes:
        name: of the measure or query.
        size: replicas; None: it says nothing.
        value: its reading; None: it has none.
        target: what it is kept at.
        held: the target is met within the tolerance, so the size stays.
    """

    name: str
    size: int | None
    value: float | None
    target: float
    held: bool = False


def idle(scale: Scale, view: View) -> bool:
    """Whether routers report that nothing arrived, waits or runs."""
    traffic = fresh(view.traffic, view.now, scale.stale_seconds)
    return traffic is not None and traffic.arrivals == 0 and view.waiting == 0 and view.running == 0


def asked_by(scale: Scale, view: View, current: int) -> Iterator[Asked]:
    """What each signal and query asks for.

    Args:
        scale: the pool's.
        view: the pool.
        current: replicas that are wanted now.
    """
    if not (scale.signals or scale.queries):
        return
    nothing_to_do = idle(scale, view)
    by_ratio = partial(_by_ratio, scale.behavior, view.ready, current)
    for measure, signal in scale.signals.items():
        name = measure.value
        value = _value(view.readings.get(measure), view.now, signal.stale_seconds)
        if nothing_to_do:
            yield Asked(name, 0, 0.0, signal.target)
        elif value is None:
            yield Asked(name, None, None, signal.target)
        else:
            yield by_ratio(name=name, value=value, target=signal.target)
    for name, query in scale.queries.items():
        reading = view.readings.get(name)
        value = _value(reading, view.now, query.stale_seconds)
        if value is None:
            empty = nothing_to_do and _is_empty(reading, view.now, query.stale_seconds)
            yield Asked(name, 0 if empty else None, 0.0 if empty else None, query.target)
        elif query.per_replica:
            yield _by_replica(scale.behavior, current, name, value, query.target)
        else:
            yield by_ratio(name=name, value=value, target=query.target)


def known_value(view: View, scale: Scale, name: str) -> float | None:
    """The value of a measure or query that is new and a number, else None."""
    for measure, signal in scale.signals.items():
        if measure.value == name:
            return _value(view.readings.get(measure), view.now, signal.stale_seconds)
    query = scale.queries.get(name)
    stale_seconds = scale.stale_seconds if query is None else query.stale_seconds
    return _value(view.readings.get(name), view.now, stale_seconds)


def _value(reading: Reading | None, now: float, stale_seconds: float) -> float | None:
    if reading is None or not now - reading.at <= stale_seconds or not sound(reading.value):
        return None
    return reading.value


def _is_empty(reading: Reading | None, now: float, stale_seconds: float) -> bool:
    return reading is not None and now - reading.at <= stale_seconds and math.isnan(reading.value)


def _by_ratio(
    behavior: Behavior, ready: int, current: int, *, name: str, value: float, target: float
) -> Asked:
    """Ready replicas times the ratio. Where none is ready, values say little of how many to have.

    Then what is wanted stays at least; a pool of none gets what one replica would need.
    """
    ratio = value / target
    if current and tolerated(behavior, ratio):
        return Asked(name, current, value, target, held=True)
    size = _ceil(max(ready, 1) * ratio)
    if ready == 0 and current:
        return Asked(name, max(size, current), value, target, held=size <= current)
    return Asked(name, size, value, target)


def _by_replica(behavior: Behavior, current: int, name: str, value: float, target: float) -> Asked:
    """HPA's AverageValue: the value is of all replicas together."""
    if current and tolerated(behavior, value / (target * current)):
        return Asked(name, current, value, target, held=True)
    return Asked(name, _ceil(value / target), value, target)


def _ceil(size: float) -> int:
    return min(math.ceil(min(size, MOST_WANTED) - EPSILON), MOST_WANTED)
