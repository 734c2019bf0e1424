"""When two files would have given a pool unlike sizes, and why each did."""

import numpy as np

from services.scaler.policy.plans import Difference
from services.scaler.simulator.together import Fared

MOST = 20
"""Times that are told, those of most replica-hours."""


def differences(live: Fared, given: Fared, wall: float) -> tuple[tuple[Difference, ...], int]:
    """Times in which the sizes differ and each stays the same, in order, and how many there are.

    Args:
        live: under the file in force.
        given: under the other, over the same time.
        wall: the beginning, in seconds since 1970.
    """
    at, size = live.course.ticks.at, live.course.ticks.wanted
    other = given.course.ticks
    place = np.clip(np.searchsorted(other.at, at, side="right") - 1, 0, None)
    planned = other.wanted[place]
    changes = (np.diff(size, prepend=np.nan) != 0.0) | (np.diff(planned, prepend=np.nan) != 0.0)
    begins = np.flatnonzero(changes)
    since, until = at[begins], np.append(at[begins[1:]], at[-1])
    hours = np.abs(planned - size)[begins] * (until - since)
    found = int((hours > 0.0).sum())
    most = np.sort(np.argsort(-hours, kind="stable")[: min(found, MOST)])
    told = tuple(
        Difference(
            since=wall + float(since[one]),
            until=wall + float(until[one]),
            live_size=int(size[begins[one]]),
            planned_size=int(planned[begins[one]]),
            live_why=live.why(float(since[one])),
            planned_why=given.why(float(since[one])),
        )
        for one in most
    )
    return told, found
