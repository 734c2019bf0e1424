"""Who knows all beats who does not, and nobody goes below the floor."""

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.clairvoyant import best_schedules, floor
from services.scaler.simulator.fluid import Moment, Pool, run
from services.scaler.simulator.silicon import Serving

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
FULL = SERVING.throughput


def wave(seconds: int, seed: int = 1) -> Arrivals:
    rate = FULL * (3.0 + 2.0 * np.sin(np.arange(seconds) / 120.0))
    work = np.random.default_rng(seed).poisson(rate).astype(float)
    return Arrivals(1.0, work, work * SERVING.prompt, work * SERVING.output, work)


class Headroom:
    tick = 15.0

    def __init__(self, share: float) -> None:
        self.share = share

    def size(self, moment: Moment) -> int:
        load = self.share * moment.work / moment.seconds + moment.waiting / 10.0
        return max(1, int(np.ceil(load / FULL)))


@pytest.fixture(scope="module")
def trace() -> Arrivals:
    return wave(900)


@pytest.fixture(scope="module")
def schedules(trace):
    pool = Pool(SERVING, 2.0, (60.0,), 4, warm=150.0)
    return best_schedules(pool, trace, [15.0, 60.0], slot=5.0)


def test_a_schedule_keeps_the_attainment_above_the_floor(trace, schedules):
    for start, found in zip((15.0, 60.0), schedules, strict=True):
        least = floor(Pool(SERVING, 2.0, (start,), 4, warm=150.0), trace, slot=5.0)
        assert found.attainment >= 0.99
        assert least <= found.replicas
        assert found.replicas < 1.25 * least


def test_longer_starts_cost_more(schedules):
    assert schedules[1].replicas > schedules[0].replicas


@pytest.mark.parametrize("share", [1.0, 1.2, 1.5, 2.0])
def test_no_policy_that_keeps_the_attainment_is_cheaper(trace, schedules, share):
    course = run(Pool(SERVING, 2.0, (60.0,), 4, warm=150.0), trace, Headroom(share))
    if course.attainment >= schedules[1].attainment:
        assert course.replicas >= schedules[1].replicas
    assert share < 2.0 or course.attainment >= schedules[1].attainment


def test_the_floor_of_a_level_load_is_its_work():
    work = np.full(1200, 2.5 * FULL)
    level = Arrivals(1.0, work, work * SERVING.prompt, work * SERVING.output, work)
    least = floor(Pool(SERVING, 2.0, (60.0,), 3), level, slot=5.0)
    # The pool is empty at the start, and full at the end.
    inside = (SERVING.places + FULL * 2.0) / FULL / 1200.0
    assert 2.5 * 0.99 * (1.0 - inside) - 0.02 <= least <= 2.5 * 0.99


def test_where_no_price_is_enough_there_is_no_schedule():
    burst = np.zeros(600)
    burst[30:60] = 200.0 * FULL  # far more than may be added in time
    flood = Arrivals(1.0, burst, burst * SERVING.prompt, burst * SERVING.output, burst)
    pool = Pool(SERVING, 2.0, (60.0,), 1)
    assert best_schedules(pool, flood, [60.0], slot=5.0, prices=[0.01]) == [None]
