"""A service that ended by itself is started anew, unless that is of no use."""

import pytest

from services.local.restarts import MENDING_SECONDS, MOST, WITHIN_SECONDS, pause_before_restart


def test_the_first_time_it_is_started_at_once() -> None:
    assert pause_before_restart([100.0], code=1) == 0.0
    assert pause_before_restart([0.0, 1.0, 2.0, 500.0], code=-9) == 0.0


def test_again_and_again_it_is_started_later_and_at_last_no_more() -> None:
    ends = [100.0 + n for n in range(MOST + 1)]
    pauses = [pause_before_restart(ends[: n + 1], code=1) for n in range(MOST)]
    assert pauses == sorted(pauses, key=float)  # type: ignore[arg-type]
    assert len(set(pauses)) > 2
    assert pause_before_restart(ends, code=1) is None


def test_ends_of_long_ago_do_not_count() -> None:
    ends = [WITHIN_SECONDS * n for n in range(10 * MOST)]
    assert pause_before_restart(ends, code=1) == 0.0


@pytest.mark.parametrize("code", [0, 1, -9, -6])
def test_however_it_ended(code: int) -> None:
    assert pause_before_restart([1.0], code) is not None


def test_wrong_settings_are_waited_for_and_end_nothing_else() -> None:
    assert pause_before_restart([], code=2) == MENDING_SECONDS
    assert pause_before_restart([100.0 + n for n in range(MOST)], code=2) == MENDING_SECONDS
