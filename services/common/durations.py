"""Seconds as the protos say them: durations, and moments since 1970.

To the nanosecond, which is what the messages hold: 0.29 s is 290,000,000 ns, not one less.
"""

import time
from typing import Annotated

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field

NANOSECONDS = 1_000_000_000

LATEST = 253_402_300_799.0
"""The last second that a timestamp of a message holds, in seconds since 1970: in the year 9999."""

MARGIN_SECONDS = 366 * 86_400.0
"""What is reckoned ahead of now, such as the end of an override, is a moment too."""

Moment = Annotated[float, Field(ge=0.0, le=LATEST)]
"""Seconds since 1970 that a timestamp of a message holds, for what is read from a disk."""


def wall_clock() -> float:
    """Now in seconds since 1970, or the nearest moment that calendars and messages can reckon from.

    A clock that is wrong by thousands of years is not worth an error at each use of it.
    """
    return bounded(time.time())


def bounded(wall: float) -> float:
    """A moment, in seconds since 1970, from 1970 to a year before the end of the year 9999."""
    return min(max(wall, 0.0), LATEST - MARGIN_SECONDS)


def seconds_of(duration: Duration) -> float:
    """A duration in seconds; 0 where it is absent."""
    return duration.seconds + duration.nanos / NANOSECONDS


def set_seconds(duration: Duration, seconds: float) -> None:
    """Writes seconds into a duration of a message."""
    duration.FromNanoseconds(_nanoseconds(seconds))


def duration_of(seconds: float) -> Duration:
    """Seconds as a duration of its own."""
    duration = Duration()
    set_seconds(duration, seconds)
    return duration


def set_time(timestamp: Timestamp, seconds: float) -> None:
    """Writes a moment, in seconds since 1970, into a timestamp of a message."""
    timestamp.FromNanoseconds(_nanoseconds(seconds))


def nanoseconds_of(timestamp: Timestamp) -> int | None:
    """A timestamp in nanoseconds since 1970; None: it holds no moment of the years 1 to 9999."""
    try:
        return timestamp.ToNanoseconds()
    except ValueError:
        return None


def _nanoseconds(seconds: float) -> int:
    whole = int(seconds)  # apart, as a float holds no nanoseconds of the seconds since 1970
    return whole * NANOSECONDS + round((seconds - whole) * NANOSECONDS)
