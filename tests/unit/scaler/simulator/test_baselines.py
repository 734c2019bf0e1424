"""Baselines do what their own rules say, and their search finds what is known to be best."""

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.fluid import Pool, run
from services.scaler.simulator.lanes import Cell, Seen
from services.scaler.simulator.search import Size, search, tried
from services.scaler.simulator.silicon import Serving

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
FULL = SERVING.throughput
FAMILIES = families(SERVING)
HPA = {
    "target": 10.0, "tolerance": 0.1, "metric_seconds": 15.0, "down_seconds": 60.0,
    "up_pods": 4.0, "down_percent": 1.0,
}  # fmt: skip


def level(seconds: int, replicas: float) -> Arrivals:
    work = np.random.default_rng(1).poisson(replicas * FULL, seconds).astype(float)
    return Arrivals(1.0, work, work * SERVING.prompt, work * SERVING.output, work)


def seen(now: float, ready: int, *, load: float = 0.0, rate: float = 0.0, **more: float) -> Seen:
    one = np.array
    return Seen(
        now=now, seconds=15.0, ready=one([ready]), starting=one([int(more.get("starting", 0))]),
        waiting=one([more.get("waiting", 0.0)]), running=one([more.get("running", load)]),
        load=one([load]), work=one([rate * 15.0]),
    )  # fmt: skip


def made(name: str, knobs: dict[str, float]):
    return FAMILIES[name].make({key: np.array([value]) for key, value in knobs.items()}, SERVING)


def test_hpa_goes_to_the_target_and_stays_within_the_tolerance():
    hpa = made("hpa_load", HPA)
    assert hpa.sizes(seen(15.0, 4, load=41.0))[0] == 4
    assert hpa.sizes(seen(30.0, 4, load=52.0))[0] == 6


def test_hpa_rises_no_faster_than_its_rates():
    hpa = made("hpa_load", HPA)
    assert hpa.sizes(seen(15.0, 1, load=1000.0))[0] == 5
    assert hpa.sizes(seen(30.0, 10, load=1000.0))[0] == 20


def test_hpa_falls_only_after_its_window():
    hpa = made("hpa_rate", HPA)
    assert hpa.sizes(seen(15.0, 6, rate=60.0))[0] == 6
    later = [int(hpa.sizes(seen(30.0 + 15 * at, 6, rate=20.0))[0]) for at in range(6)]
    assert later == [6, 6, 6, 6, 2, 2]


def test_kpa_panics_above_its_threshold_and_does_not_fall_in_it():
    kpa = made("kpa", {
        "target": 10.0, "stable_seconds": 60.0, "panic_seconds": 6.0, "panic_threshold": 2.0,
        "delay_seconds": 1.0,
    })  # fmt: skip
    calm = [int(kpa.sizes(seen(2.0 * at, 2, load=20.0))[0]) for at in range(1, 31)]
    assert set(calm) == {2}
    rising = [int(kpa.sizes(seen(60.0 + 2.0 * at, 2, load=100.0))[0]) for at in range(1, 4)]
    assert rising[-1] == 10
    falling = [int(kpa.sizes(seen(66.0 + 2.0 * at, 10, load=10.0))[0]) for at in range(1, 20)]
    assert set(falling) == {10}


def test_wva_adds_one_where_too_little_is_spare_and_waits_for_it():
    knobs = {"kv": 0.8, "queue": 5.0, "spare_kv": 0.1, "spare_queue": 3.0, "peak_seconds": 15.0}
    wva = made("wva", knobs)
    busy = 0.75 * 128 * 2
    assert wva.sizes(seen(15.0, 2, running=busy))[0] == 3
    assert wva.sizes(seen(30.0, 2, running=busy, starting=1))[0] == 3
    assert wva.sizes(seen(45.0, 3, running=128 * 0.2))[0] == 2


def test_dynamo_takes_the_demand_of_the_interval_by_the_throughput():
    knobs = {
        "utilization": 0.5, "interval_seconds": 15.0, "wait_seconds": 1.0, "sensitivity": 0.5,
    }  # fmt: skip
    dynamo = made("dynamo", knobs)
    assert dynamo.sizes(seen(15.0, 2, rate=2 * FULL))[0] == 4
    assert dynamo.sizes(seen(20.0, 4, rate=2 * FULL, waiting=8 * FULL))[0] == 5


@pytest.mark.parametrize("name", FAMILIES)
def test_one_pool_is_decided_as_its_lane_is(name):
    knobs = {
        key: (bounds.low * bounds.high) ** 0.5 if bounds.logarithmic
        else round((bounds.low + bounds.high) / 2)
        if bounds.whole
        else (bounds.low + bounds.high) / 2
        for key, bounds in FAMILIES[name].knobs.items()
    }  # fmt: skip
    cell = Cell("c", level(600, 1.5), Pool(SERVING, 2.0, (15.0,), 2, warm=60.0))
    held, used = tried(FAMILIES[name], [knobs], [cell])
    course = run(cell.pool, cell.arrivals, Alone(FAMILIES[name], knobs, SERVING))
    assert held[0, 0] == pytest.approx(course.attainment, abs=1e-9)
    assert used[0, 0] == pytest.approx(course.replicas, rel=1e-9)


def test_the_search_finds_the_least_static_size_for_each_cell_and_for_all():
    cells = [
        Cell(f"c{load}", level(300, load), Pool(SERVING, 2.0, (15.0,), 8, warm=120.0))
        for load in (1.5, 4.5)
    ]
    measure = {"c1.5": 1.5, "c4.5": 4.5}
    size = Size(first=60, kept=12, near=12, last=12)
    found = search(FAMILIES["static"], [cells], [cells], measure, size=size, seed=1)
    least = {}
    for cell in cells:
        held, _ = tried(FAMILIES["static"], [{"replicas": n} for n in range(1, 9)], [cell])
        least[cell.name] = float(np.flatnonzero(held[:, 0] >= 0.99)[0] + 1)
    assert {name: one["replicas"] for name, one in found.each.items()} == least
    assert found.holds
    assert found.single["replicas"] == least["c4.5"]
