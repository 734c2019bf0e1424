"""Tokens of runs that nobody counted, from the pace of those that were."""

import pytest

from services.router.policy.pace import ASSUMED_SECONDS, Paces


def test_a_run_is_estimated_at_the_pace_of_its_tier() -> None:
    paces = Paces()
    paces.note("large", 2.0, 100)
    assert paces.tokens("large", 0.5, 64) == 25
    assert paces.tokens("large", 9.0, 64) == 64
    assert paces.tokens("small", 10 * ASSUMED_SECONDS, 64) == 10


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_is_no_token(seconds: float) -> None:
    assert Paces().tokens("large", seconds, 64) == 0


def test_many_short_runs_say_little_of_a_long_one() -> None:
    paces = Paces()
    for _ in range(20):
        paces.note("large", 1.28, 256)
        paces.note("large", 0.1, 1)
    assert paces.tokens("large", 1.28, 256) > 230


def test_younger_runs_weigh_more() -> None:
    paces = Paces()
    paces.note("large", 10.0, 100)
    for _ in range(60):
        paces.note("large", 1.0, 100)
    assert paces.tokens("large", 1.0, 200) == pytest.approx(100, abs=5)


def test_a_run_without_tokens_says_nothing() -> None:
    paces = Paces()
    paces.note("large", 5.0, 0)
    assert paces.tokens("large", ASSUMED_SECONDS, 64) == 1
