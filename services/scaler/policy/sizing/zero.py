"""To zero and back: whether a pool may have no replica now.

Pure. A pool goes to zero when it has been idle for as long as its policy says, and routers say so;
the next request wakes it. One without `zero` has always at least one.
"""

from dataclasses import dataclass

from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.views import View
from services.scaler.policy.sizing.work import fresh, sound


@dataclass(frozen=True, slots=True)
class Floor:
    """The least a pool has for its own sake, before any bounds.

    Attributes:
        size: 0 or 1.
        idle: idle for long enough to have none.
        woken: a request asks for a pool that has none.
    """

    size: int
    idle: bool = False
    woken: bool = False


def floor(scale: Scale, view: View, current: int) -> Floor:
    """The least size; `current` is what is wanted now."""
    if scale.zero is None:
        return Floor(1)
    traffic = fresh(view.traffic, view.now, scale.stale_seconds)
    waiting = (view.waiting or 0.0) > 0 if sound(view.waiting) else False
    asked = view.woken or waiting or (traffic is not None and traffic.arrivals > 0)
    if current == 0:
        return Floor(1, woken=True) if asked else Floor(0, idle=True)
    if asked or traffic is None or view.waiting != 0 or view.running != 0:
        return Floor(1)
    long = sound(view.idle_seconds) and (view.idle_seconds or 0.0) >= scale.zero.idle_seconds
    return Floor(0, idle=True) if long else Floor(1)
