"""Whether traffic looks as it did at calibration."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.drift import Bands, Histogram, Rate, Window, psi, psi_limit


def values(seed: int, count: int, shift: float = 0.0) -> list[float]:
    random = Random(seed)
    return [random.gauss(shift, 1.0) for _ in range(count)]


def shape_of(found: list[float]) -> Histogram:
    shape = Histogram.of(found)
    assert shape is not None
    return shape


def window() -> Window:
    return Window(Bands(Rate(0.3, 2000), (shape_of(values(1, 2000)),), (None,)))


def alerts(seen: Window) -> set[str]:
    return {one.name for one in seen.drift() if one.alert}


@given(found=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_every_value_has_a_bin_and_shares_add_up(found: list[float]) -> None:
    shape = shape_of(found)
    assert sum(shape.shares) == pytest.approx(1.0)
    assert all(0 <= shape.bin(value) < len(shape.shares) for value in found)


@given(
    found=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100),
    counts=st.lists(st.integers(0, 1000), min_size=10, max_size=10),
)
def test_psi_is_never_negative(found: list[float], counts: list[int]) -> None:
    shape = shape_of(found)
    assert psi(shape, counts[: len(shape.shares)]) >= -1e-12


def test_the_same_traffic_raises_no_alert() -> None:
    for seed in range(20):
        seen = window()
        random = Random(100 + seed)
        for value in values(200 + seed, 300):
            seen.note("gain.0", value)
            seen.note_answer(escalated=random.random() < 0.3)
        assert alerts(seen) == set()


def test_other_traffic_raises_alerts() -> None:
    seen = window()
    random = Random(5)
    for value in values(6, 500, shift=1.0):
        seen.note("gain.0", value)
        seen.note_answer(escalated=random.random() < 0.5)
    assert alerts(seen) == {"gain.0", "escalation"}


def test_without_samples_nothing_has_drifted() -> None:
    assert alerts(window()) == set()
    assert Rate(0.3, 100).band(0) == (0.0, 1.0)
    assert psi_limit(shape_of(values(1, 50)), 0) == math.inf
    assert Histogram.of([]) is None


def test_few_samples_need_a_bigger_change() -> None:
    shape = shape_of(values(1, 500))
    assert psi_limit(shape, 20) > psi_limit(shape, 200) >= psi_limit(shape, 100_000) == 0.2
    narrow, wide = Rate(0.3, 500).band(10_000), Rate(0.3, 500).band(50)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_a_rate_of_none_or_all_has_a_band_too() -> None:
    assert Rate(0.0, 1000).band(1000)[1] > 0.0
    assert Rate(1.0, 1000).band(1000)[0] < 1.0


def test_what_is_not_watched_or_unknown_is_not_counted() -> None:
    seen = window()
    seen.note("certainty.0", -0.5)
    seen.note("gain.0", None)
    seen.note("gain.0", math.nan)
    assert all(one.samples == 0 for one in seen.drift())


@pytest.mark.parametrize(
    ("edges", "shares", "samples"),
    [
        ((1.0, 0.0), (0.3, 0.3, 0.4), 10),
        ((0.0,), (1.0,), 10),
        ((0.0,), (0.5, 0.6), 10),
        ((0.0,), (1.5, -0.5), 10),
        ((math.nan,), (0.5, 0.5), 10),
        ((0.0,), (0.5, 0.5), 0),
    ],
)
def test_a_shape_that_is_none_is_refused(
    edges: tuple[float, ...], shares: tuple[float, ...], samples: int
) -> None:
    with pytest.raises(ValueError, match="must"):
        Histogram(edges, shares, samples)
    with pytest.raises(ValueError, match="rate"):
        Rate(1.5, 10)
    with pytest.raises(ValueError, match="bins"):
        psi(shape_of([1.0, 2.0]), [1, 2, 3, 4])
