"""The last minute's figures, with time passed in."""

import pytest

from services.router.fleet.load import MAX_SAMPLES, WINDOW_SECONDS, LoadWindow
from tests.making.policies import policies, route, tier


def test_without_requests_there_are_no_figures() -> None:
    summary = LoadWindow().summary("small", 10.0)
    assert (summary.tokens_per_second, summary.first_text, summary.between_tokens) == (0.0, (), ())


def test_tokens_a_second_count_from_the_last_summary() -> None:
    window = LoadWindow()
    window.summary("small", 10.0)
    for at in (10.5, 11.0):
        window.add("small", at, first_text=0.1, decode_seconds=1.0, tokens=30)
    assert window.summary("small", 12.0).tokens_per_second == pytest.approx(30.0)
    assert window.summary("small", 13.0).tokens_per_second == 0.0


def test_two_summaries_at_one_moment_do_not_divide_by_nothing() -> None:
    window = LoadWindow()
    window.summary("small", 10.0)
    window.add("small", 10.0, first_text=0.1, decode_seconds=0.0, tokens=1)
    assert window.summary("small", 10.0).tokens_per_second == 0.0


def test_quantiles_are_those_of_the_window() -> None:
    window = LoadWindow()
    for number in range(1, 101):
        window.add("small", 100.0, first_text=number / 100, decode_seconds=9.0, tokens=10)
    summary = window.summary("small", 100.0)
    assert dict(summary.first_text) == {0.5: pytest.approx(0.51), 0.95: pytest.approx(0.96)}
    assert dict(summary.between_tokens) == {0.5: 1.0, 0.95: 1.0}


def test_old_requests_are_forgotten_and_tiers_are_apart() -> None:
    window = LoadWindow()
    window.add("small", 0.0, first_text=9.0, decode_seconds=0.0, tokens=1)
    window.add("small", 30.0, first_text=1.0, decode_seconds=0.0, tokens=1)
    assert dict(window.summary("small", WINDOW_SECONDS + 1).first_text)[0.95] == 1.0
    assert window.summary("large", 30.0).first_text == ()


def test_answers_that_came_at_once_say_nothing_about_the_time_between_tokens() -> None:
    window = LoadWindow()
    for tokens in range(1, 20):
        window.add("small", 0.0, first_text=1.0, decode_seconds=0.0, tokens=tokens)
    assert window.summary("small", 0.0).between_tokens == ()
    window.add("small", 0.0, first_text=1.0, decode_seconds=2.0, tokens=3)
    assert dict(window.summary("small", 0.0).between_tokens) == {0.5: 1.0, 0.95: 1.0}


def test_memory_is_bounded() -> None:
    window = LoadWindow()
    for _ in range(3 * MAX_SAMPLES):
        window.add("small", 0.0, first_text=1.0, decode_seconds=0.0, tokens=1)
    assert len(window._tiers["small"].samples) == MAX_SAMPLES


def test_slow_answers_are_those_of_the_last_minute_looked_at_once_a_second() -> None:
    window = LoadWindow()
    assert window.slow_seconds("small", 0.0) is None
    for seconds in range(1, 101):
        window.add("small", 10.0, first_text=seconds / 2, decode_seconds=seconds / 2, tokens=5)
    assert window.slow_seconds("small", 0.5) is None
    assert window.slow_seconds("small", 11.0) == 96.0
    window.add("small", 11.0, first_text=500.0, decode_seconds=0.0, tokens=5)
    assert window.slow_seconds("small", 11.5) == 96.0
    assert window.slow_seconds("small", 70.5) == 500.0
    assert window.slow_seconds("large", 70.5) is None


def test_tiers_that_are_gone_are_forgotten() -> None:
    window = LoadWindow()
    for name in ("small", "other"):
        window.add(name, 10.0, first_text=0.1, decode_seconds=1.0, tokens=3)
    window.adopt(policies(route("chat", tier("small"))))
    assert window.slow_seconds("small", 11.0) == pytest.approx(1.1)
    assert window.slow_seconds("other", 11.0) is None
