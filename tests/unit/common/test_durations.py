"""Seconds become durations and come back as they were, to the nanosecond."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.common.durations import (
    LATEST,
    duration_of,
    nanoseconds_of,
    seconds_of,
    set_seconds,
    set_time,
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, Duration()),
        (0.29, Duration(nanos=290_000_000)),  # 0.29 * 1e9 is a little less in binary
        (90.5, Duration(seconds=90, nanos=500_000_000)),
        (0.9999999999, Duration(seconds=1)),
        (-1.5, Duration(seconds=-1, nanos=-500_000_000)),
    ],
)
def test_seconds_become_a_duration(seconds: float, expected: Duration) -> None:
    assert duration_of(seconds) == expected


def test_an_absent_duration_is_none() -> None:
    assert seconds_of(Duration()) == 0.0


@given(st.floats(-1e6, 1e6))
def test_what_is_written_is_read(seconds: float) -> None:
    duration = Duration(seconds=7)
    set_seconds(duration, seconds)
    assert seconds_of(duration) == pytest.approx(seconds, abs=1e-9)


def test_a_moment_is_counted_from_1970() -> None:
    timestamp = Timestamp()
    set_time(timestamp, 1_700_000_000.25)
    assert (timestamp.seconds, timestamp.nanos) == (1_700_000_000, 250_000_000)
    assert nanoseconds_of(timestamp) == 1_700_000_000_250_000_000


@pytest.mark.parametrize(
    "timestamp",
    [
        Timestamp(seconds=2**63 - 1),
        Timestamp(seconds=-(2**63)),
        Timestamp(seconds=1, nanos=-1),
        Timestamp(seconds=int(LATEST) + 1),
    ],
)
def test_what_is_no_moment_has_no_nanoseconds(timestamp: Timestamp) -> None:
    assert nanoseconds_of(timestamp) is None


def test_the_latest_moment_is_one() -> None:
    timestamp = Timestamp()
    set_time(timestamp, LATEST)
    assert nanoseconds_of(timestamp) == int(LATEST) * 1_000_000_000
