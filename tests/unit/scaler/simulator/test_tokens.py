"""Request by request: the same pool as the fluid's, and the time of single requests by hand."""

import numpy as np
import pytest

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import from_requests
from services.scaler.simulator.fluid import Pool, run
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.tokens import run_tokens
from services.scaler.simulator.traces import Requests

CAPACITY = Capacity(a=0.01, c=1e-7, p=2e-5)
SERVING = Serving(CAPACITY, prompt=1000.0, output=50.0, places=32)


class Keep:
    tick = 15.0

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)
        self.seen = []

    def size(self, moment):
        self.seen.append(moment)
        return self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]


def requests(at, prompt=1000.0, output=50.0) -> Requests:
    at = np.asarray(at, float)
    return Requests(at * 1000.0, np.full(len(at), prompt), np.full(len(at), output))


def pool(size: int, **more) -> Pool:
    return Pool(SERVING, 2.0, (30.0,), size, **more)


def test_a_request_alone_takes_its_prompt_and_then_a_step_for_each_token():
    keep = Keep(1)
    course = run_tokens(pool(1), requests([0.0, 100.0], prompt=3000.0), keep)
    # 2,048 tokens in the first iteration, 952 in the second.
    assert course.ticks.ttft[0] == pytest.approx(2 * 0.01 + 3000 * 2e-5)
    assert keep.seen[0].finished == 1.0
    assert keep.seen[0].output == 50.0


def test_those_that_find_no_place_wait_in_line():
    keep = Keep(1)
    course = run_tokens(pool(1), requests([*np.linspace(0.0, 0.5, 200), 60.0]), keep)
    assert keep.seen[0].running <= SERVING.places
    assert 0.2 < course.attainment < 0.9
    assert course.requests == 200


def test_all_that_came_is_finished_or_there():
    draw = np.random.default_rng(1)
    keep = Keep(1, 3, 3, 3, 1, 2)
    run_tokens(pool(1), requests(np.sort(draw.uniform(0.0, 150.0, 1200))), keep)
    last = keep.seen[-1]
    came = sum(one.arrivals for one in keep.seen)
    finished = sum(one.finished for one in keep.seen)
    # What a replica that drains still has is not the pool's.
    assert 0 <= came - finished - last.running - last.waiting <= SERVING.places
    assert came >= 1199


def test_a_saturated_replica_does_what_the_model_says():
    keep = Keep(1)
    run_tokens(pool(1), requests(np.linspace(0.0, 120.0, 6000)), keep)
    done = sum(one.finished for one in keep.seen[2:7])
    assert done / 75.0 == pytest.approx(SERVING.throughput, rel=0.05)


@pytest.mark.parametrize(("size", "keeps"), [(2, False), (4, True)])
def test_fluid_and_requests_agree_on_which_size_is_enough(size, keeps):
    draw = np.random.default_rng(2)
    at = np.sort(draw.uniform(0.0, 150.0, int(2.6 * SERVING.throughput * 150)))
    single = requests(at)
    for course in (
        run_tokens(pool(size, warm=60.0), single, Keep(size)),
        run(pool(size, warm=60.0), from_requests(single, SERVING), Keep(size)),
    ):
        assert (course.attainment >= 0.99) is keeps
        assert course.replicas == pytest.approx(size, rel=0.01)


def test_a_replica_that_drains_is_paid_until_it_is_empty():
    course = run_tokens(pool(2), requests(np.linspace(0.0, 60.0, 600)), Keep(2, 1))
    # Two for 30 s, then one, and the drain of the other.
    assert 90.0 < course.replica_hours * 3600.0 < 93.0
    assert course.stops == 1
