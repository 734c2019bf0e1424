"""Whose calls are ended because they do not read."""

import pytest

from services.router.policy.unread import Unread, overdue


@pytest.mark.parametrize(
    ("callers", "ended"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([(9.9, 100), (0.0, 0)], [], id="all have time and little is kept"),
        pytest.param([(9.0, 0), (10.0, 0), (11.0, 0)], [1, 2], id="time is over"),
        pytest.param([(1.0, 60), (1.0, 40)], [], id="just as much as may be kept"),
        pytest.param([(1.0, 10), (1.0, 60), (1.0, 31)], [1], id="those with the most"),
        pytest.param([(1.0, 70), (1.0, 80), (1.0, 90)], [2, 1], id="until the rest has room"),
        pytest.param([(1.0, 101)], [0], id="one alone with too much"),
        pytest.param([(12.0, 90), (1.0, 90)], [0], id="who must go anyway makes room"),
    ],
)
def test_who_had_time_or_leaves_the_most(
    callers: list[tuple[float, int]], ended: list[int]
) -> None:
    found = [Unread(*one) for one in callers]
    assert overdue(found, most_seconds=10.0, most_bytes=100) == ended
