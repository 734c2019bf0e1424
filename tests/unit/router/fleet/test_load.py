"""Counters and the last minute's figures, with time passed in."""

import pytest

from services.common.buckets import bucket_of
from services.router.fleet.load import MAX_SAMPLES, WINDOW_SECONDS, LoadWindow
from tests.making.policies import policies, route, tier


def test_without_requests_there_are_no_figures() -> None:
    window = LoadWindow()
    assert window.slow_run_seconds("small", 10.0) is None
    totals = window.totals("small")
    assert (totals.arrivals, totals.output_tokens, totals.finished) == (0, 0, 0)
    assert not any(totals.first_text + totals.between_tokens)


def test_counters_only_grow_and_are_by_tier() -> None:
    window = LoadWindow()
    for at in (10.0, 500.0):
        window.arrived("small", prompt_tokens=7)
        window.arrived("small", prompt_tokens=5)
        window.add("small", at, first_text=0.1, decode_seconds=2.9, tokens=30)
    totals = window.totals("small")
    assert (totals.arrivals, totals.prompt_tokens) == (4, 24)
    assert (totals.output_tokens, totals.finished) == (60, 2)
    assert totals.first_text[bucket_of(0.1)] == sum(totals.first_text) == 2
    assert totals.between_tokens[bucket_of(0.1)] == sum(totals.between_tokens) == 2
    assert window.totals("large").arrivals == 0


def test_asking_changes_no_counter() -> None:
    window = LoadWindow()
    window.add("small", 10.0, first_text=0.1, decode_seconds=1.0, tokens=30)
    before = window.totals("small")
    assert [window.slow_run_seconds("small", now) for now in (10.0, 1000.0)] == [1.1, None]
    assert window.totals("none").finished == 0
    assert window.totals("small") == before


def test_old_requests_are_forgotten_and_tiers_are_apart() -> None:
    window = LoadWindow()
    window.add("small", 0.0, first_text=9.0, decode_seconds=0.0, tokens=1)
    window.add("small", 30.0, first_text=1.0, decode_seconds=0.0, tokens=1)
    assert window.slow_run_seconds("small", WINDOW_SECONDS) == 9.0
    assert window.slow_run_seconds("small", WINDOW_SECONDS + 1) == 1.0
    assert window.slow_run_seconds("large", 30.0) is None


def test_answers_that_came_at_once_say_nothing_about_the_time_between_tokens() -> None:
    window = LoadWindow()
    for tokens in range(1, 20):
        window.add("small", 0.0, first_text=1.0, decode_seconds=0.0, tokens=tokens)
    assert not any(window.totals("small").between_tokens)
    window.add("small", 0.0, first_text=1.0, decode_seconds=2.0, tokens=3)
    counts = window.totals("small").between_tokens
    assert counts[bucket_of(1.0)] == sum(counts) == 1


def test_memory_is_bounded() -> None:
    window = LoadWindow()
    for _ in range(3 * MAX_SAMPLES):
        window.add("small", 0.0, first_text=1.0, decode_seconds=0.0, tokens=1)
    assert len(window._tiers["small"].samples) == MAX_SAMPLES


def test_slow_answers_are_those_of_the_last_minute_looked_at_once_a_second() -> None:
    window = LoadWindow()
    assert window.slow_run_seconds("small", 0.0) is None
    for seconds in range(1, 101):
        window.add("small", 10.0, first_text=seconds / 2, decode_seconds=seconds / 2, tokens=5)
    assert window.slow_run_seconds("small", 0.5) is None
    assert window.slow_run_seconds("small", 11.0) == 96.0
    window.add("small", 11.0, first_text=500.0, decode_seconds=0.0, tokens=5)
    assert window.slow_run_seconds("small", 11.5) == 96.0
    assert window.slow_run_seconds("small", 70.5) == 500.0
    assert window.slow_run_seconds("large", 70.5) is None


def test_tiers_that_are_gone_are_forgotten() -> None:
    window = LoadWindow()
    for name in ("small", "other"):
        window.add(name, 10.0, first_text=0.1, decode_seconds=1.0, tokens=3)
    window.adopt(policies(route("chat", tier("small"))))
    assert window.slow_run_seconds("small", 11.0) == pytest.approx(1.1)
    assert window.slow_run_seconds("other", 11.0) is None
    assert window.totals("other").finished == 0
