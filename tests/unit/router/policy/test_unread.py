"""Whose calls are ended because they do not read."""

import pytest

from services.router.policy.unread import Unread, Why, overdue


@pytest.mark.parametrize(
    ("callers", "late", "much"),
    [
        pytest.param([], [], [], id="nobody"),
        pytest.param([(9.9, 100), (0.0, 0)], [], [], id="all have time and little is kept"),
        pytest.param([(9.0, 0), (10.0, 0), (11.0, 0)], [1, 2], [], id="time is over"),
        pytest.param([(1.0, 60), (1.0, 40)], [], [], id="just as much as may be kept"),
        pytest.param([(1.0, 10), (1.0, 60), (1.0, 31)], [], [1], id="those with the most"),
        pytest.param([(1.0, 70), (1.0, 80), (1.0, 90)], [], [2, 1], id="until the rest has room"),
        pytest.param([(1.0, 101)], [], [0], id="one alone with too much"),
        pytest.param([(12.0, 90), (1.0, 90)], [0], [], id="who must go anyway makes room"),
    ],
)
def test_who_had_time_or_leaves_the_most(
    callers: list[tuple[float, int]], late: list[int], much: list[int]
) -> None:
    found = [Unread(*one, "acme") for one in callers]
    ended = overdue(found, most_seconds=10.0, most_bytes=100)
    assert list(ended.items()) == [
        *[(number, Why.LATE) for number in late],
        *[(number, Why.MUCH) for number in much],
    ]


@pytest.mark.parametrize(
    ("callers", "ended"),
    [
        pytest.param([("b", 45), *[("a", 20)] * 4], {3, 4}, id="the crowd's, not the largest"),
        pytest.param(
            [("a", 70), ("b", 70), ("b", 60)], {0, 1}, id="then the one that has most now"
        ),
        pytest.param([("a", 60), ("b", 40)], set(), id="nobody's where all has room"),
        pytest.param([("b", 0), ("a", 101)], {1}, id="not of one for which nothing is kept"),
    ],
)
def test_the_tenant_for_which_most_is_kept_loses_calls(
    callers: list[tuple[str, int]], ended: set[int]
) -> None:
    found = [Unread(1.0, held, tenant) for tenant, held in callers]
    assert set(overdue(found, most_seconds=10.0, most_bytes=100)) == ended
