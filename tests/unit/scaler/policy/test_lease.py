"""Who of several scalers acts."""

import pytest

from services.scaler.policy.lease import (
    DURATION_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Record,
    Step,
    step,
)


def held(holder: str) -> Record:
    return Record(holder, 15.0, "10:00", 1, "7")


@pytest.mark.parametrize(
    ("record", "unchanged", "todo"),
    [
        (None, 0.0, Step.CREATE),
        (held("me"), 99.0, Step.RENEW),
        (held(""), 0.0, Step.TAKE),
        (held("other"), 14.9, Step.WAIT),
        (held("other"), 15.0, Step.TAKE),
    ],
)
def test_what_is_done_about_a_lease(record, unchanged, todo):
    assert step(record, unchanged, "me") is todo


def test_a_holder_stops_before_another_may_begin():
    assert RENEW_SECONDS + RETRY_SECONDS < DURATION_SECONDS
