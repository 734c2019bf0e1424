"""The forecast by the day before: used only while it beats none."""

import math
from random import Random

import pytest

from services.scaler.policy.sizing.forecast import (
    BUCKET_SECONDS,
    BUCKETS,
    Season,
    growth,
    noted,
)

START = 1_800_000_000.0 // 86_400 * 86_400


def walked(rate, days: float) -> tuple[Season, float]:
    season, wall = Season(), START
    for bucket in range(int(days * BUCKETS)):
        for tick in range(3):
            wall = START + bucket * BUCKET_SECONDS + tick * 200
            season = noted(season, wall, rate(bucket))
    return season, wall


def daily(bucket: int) -> float:
    return 10 + 8 * math.sin(2 * math.pi * bucket / BUCKETS * 6)


def test_days_that_are_alike_are_forecast():
    season, _ = walked(daily, 3)
    for bucket in (3 * BUCKETS + 1, 3 * BUCKETS + 9):
        wall = START + bucket * BUCKET_SECONDS
        expected = daily(bucket + 1) / daily(bucket)
        assert growth(season, wall, BUCKET_SECONDS) == pytest.approx(expected)
        half = growth(season, wall, BUCKET_SECONDS / 2)
        assert half == pytest.approx(math.sqrt(expected))


def test_days_that_are_not_alike_are_not():
    random = Random(3)
    season, wall = walked(lambda _: math.exp(random.gauss(0, 0.5)), 3)
    assert growth(season, wall, 300.0) == 1.0


def test_nothing_is_forecast_on_the_first_day_nor_after_a_jump():
    season, wall = walked(daily, 1)
    assert growth(season, wall, 300.0) == 1.0
    season, wall = walked(daily, 3)
    jumped = noted(season, wall + 5 * 86_400, 10.0)
    assert growth(jumped, wall + 5 * 86_400, 300.0) == 1.0
    back = noted(season, wall - 86_400, 10.0)
    assert growth(back, wall - 86_400, 300.0) == 1.0
