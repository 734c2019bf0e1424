"""The fluid against closed forms, against a line of single requests, and against lanes."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Moment, Pool, Running, run
from services.scaler.simulator.lanes import Cell, Seen, run_lanes
from services.scaler.simulator.silicon import Serving

SERVING = Serving(Capacity(a=0.0064, c=5e-8, p=2e-5), prompt=1000.0, output=200.0)
FULL = SERVING.throughput


def arrivals(work: np.ndarray, step: float = 1.0) -> Arrivals:
    return Arrivals(step, work, work * SERVING.prompt, work * SERVING.output, work)


def level(rate: float, seconds: int) -> Arrivals:
    return arrivals(np.full(seconds, rate))


def pool(size: int, start: float = 60.0, objective: float = 2.0, warm: float = 0.0) -> Pool:
    return Pool(SERVING, objective, (start,), size, warm, usd_per_hour=2.0)


class Script:
    """Sizes by time; the last one stays."""

    tick = 15.0

    def __init__(self, *sizes: int) -> None:
        self.left = deque(sizes)
        self.seen: list[Moment] = []

    def size(self, moment: Moment) -> int:
        self.seen.append(moment)
        return self.left.popleft() if len(self.left) > 1 else self.left[0]


def test_below_its_throughput_a_pool_runs_what_closed_form_says():
    rate = 0.6 * FULL * 3
    course = run(pool(3), level(rate, 600), Script(3))
    busy = rate / 3 * SERVING.output
    each = busy * SERVING.capacity.a / (1.0 - busy * SERVING.slope)

    assert course.ticks.running[-1] == pytest.approx(3 * each, rel=1e-3)
    assert course.attainment == 1.0
    assert course.waiting == 0.0


SHORT = Serving(Capacity(a=0.02, b=0.0006, c=2e-7, p=2e-4), prompt=18.0, output=23.0, places=2)
"""Its requests end within one step."""


def short(rate: float, seconds: int) -> Arrivals:
    work = np.full(seconds, rate)
    return Arrivals(1.0, work, work * SHORT.prompt, work * SHORT.output, work)


@pytest.mark.parametrize("by", [0.3, 0.6, 0.9])
def test_short_requests_run_as_closed_form_says(by: float):
    each = by * SHORT.throughput
    course = run(Pool(SHORT, 2.0, (60.0,), 3), short(3 * each, 600), Script(3))
    fixed = SHORT.output * SHORT.capacity.a
    running = each * fixed / (1.0 - each * SHORT.output * SHORT.slope)
    assert course.ticks.running[-1] == pytest.approx(3 * running, rel=0.02)
    assert course.attainment == 1.0


def test_short_requests_above_the_throughput_wait():
    course = run(Pool(SHORT, 2.0, (60.0,), 1), short(2 * SHORT.throughput, 300), Script(1))
    waits = course.ticks.waiting
    assert (waits[-1] - waits[-5]) / 60.0 == pytest.approx(SHORT.throughput, rel=0.02)


def test_above_it_the_line_grows_by_the_difference():
    course = run(pool(2), level(3 * FULL, 300), Script(2))
    waits = course.ticks.waiting
    assert (waits[-1] - waits[-5]) / 60.0 == pytest.approx(FULL, rel=0.01)
    assert course.attainment < 0.2


def test_requests_are_neither_lost_nor_made():
    script = Script(1, 4, 2, 3)
    came = np.random.default_rng(1).poisson(2.0 * FULL, 900).astype(float)
    course = run(pool(2, start=30.0), arrivals(came), script)
    last = script.seen[-1]
    arrived = sum(one.arrivals for one in script.seen)
    finished = sum(one.finished for one in script.seen)
    assert arrived == pytest.approx(came.sum())
    assert finished + last.running + last.waiting == pytest.approx(arrived)
    assert sum(one.output for one in script.seen) == pytest.approx(finished * 200.0)
    assert course.ticks.begun.sum() == pytest.approx(arrived - last.waiting)


def test_a_replica_is_paid_from_its_order_until_it_is_gone():
    course = run(pool(1, start=60.0), level(0.1, 300), Script(2, 2, 2, 2, 2, 2, 1))
    # Ordered at 15, ready at 75, gone at 105 with next to nothing to drain.
    drain = SERVING.output * SERVING.capacity.a
    assert course.replica_hours * 3600.0 == pytest.approx(300.0 + 90.0 + drain, abs=0.5)
    assert course.usd == pytest.approx(2.0 * course.replica_hours)
    assert (course.starts, course.stops, course.changes) == (1, 1, 2)
    assert course.size_max == 2


def test_a_start_that_is_called_off_is_wasted_and_the_newest_goes_first():
    script = Script(2, 3, 2, 2, 2, 2, 2)
    course = run(pool(1, start=60.0), level(0.1, 150), script)
    # The second was ordered at 15, the third at 30 and called off at 45.
    assert course.wasted_hours * 3600.0 == pytest.approx(15.0)
    ready = {one.now: one.ready for one in script.seen}
    assert (ready[75.0], ready[90.0]) == (1, 2)


def test_starts_take_their_own_time_and_may_overtake_each_other():
    script = Script(3)
    run(Pool(SERVING, 2.0, (90.0, 30.0), 1), level(0.1, 150), script)
    assert [one.ready for one in script.seen] == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3]


def test_what_comes_before_scoring_is_not_scored():
    bad_then_good = arrivals(np.concatenate([np.full(120, 4 * FULL), np.full(1080, 0.5 * FULL)]))
    whole = run(pool(2), bad_then_good, Script(2))
    part = run(pool(2, warm=600.0), bad_then_good, Script(2))
    assert whole.attainment < 0.7
    assert part.attainment == 1.0
    assert part.replica_hours == pytest.approx(1200.0 / 3600.0)


def test_without_a_replica_all_wait_and_are_late():
    course = run(pool(0), level(1.0, 120), Script(0))
    assert course.attainment < 0.05
    assert course.replica_hours == 0.0


def test_what_ran_on_a_lost_replica_is_told_as_if_it_had_never_begun():
    running = Running(pool(2), level(0.98 * FULL * 2, 600))
    running.turn(500)
    running.lose()
    # The one that is left is full, so that fewer begin than were lost; a figure below nothing
    # would tell nothing.
    after = running.turn(501).moment
    assert after.waiting > FULL
    assert after.begun >= 0.0
    assert after.late >= 0.0


def test_nothing_asked_is_all_in_time():
    assert run(pool(1), level(0.0, 60), Script(1)).attainment == 1.0


def late_of_a_line(work: np.ndarray, replicas: int, objective: float, parts: int = 20) -> float:
    """Share of late parts of requests, each kept by itself; places and steps as in the fluid."""
    line: deque[float] = deque()
    running = late = 0.0
    wait = max(objective - pool(1).first_text, 0.5)
    begun = 0
    for at, came in enumerate(work):
        if replicas:
            step = SERVING.output * (SERVING.capacity.a + SERVING.slope * running / replicas)
            running -= running / max(step, 1.0)
        count = int(came * parts)
        line.extend(at + (k + 0.5) / count for k in range(count))
        room = int((SERVING.places * replicas - running) * parts)
        taken = min(room, len(line))
        for _ in range(taken):
            late += line.popleft() < at + 0.5 - wait
        begun += taken
        running += taken / parts
    overdue = sum(one < len(work) - 0.5 - wait for one in line)
    return (late + overdue) / max(1, begun + overdue)


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 120), min_size=20, max_size=60),
    st.integers(1, 4),
    st.sampled_from([2.0, 3.4, 5.0]),
)
def test_lateness_is_that_of_a_line_in_which_each_waits_for_itself(counts, replicas, objective):
    work = np.array(counts, float)
    course = run(pool(replicas, objective=objective), arrivals(work), Script(replicas))
    found = late_of_a_line(work, replicas, objective)
    assert 1.0 - course.attainment == pytest.approx(found, abs=0.02)


class Follow:
    """A policy that follows the load and what came, for one pool or many lanes."""

    tick = 15.0

    def size(self, moment: Moment) -> int:
        return int(np.ceil((moment.work / moment.seconds + moment.load / 10.0) / FULL))

    def sizes(self, seen: Seen) -> np.ndarray:
        return np.ceil((seen.work / seen.seconds + seen.load / 10.0) / FULL).astype(int)


def drifting(count: np.ndarray) -> Arrivals:
    """Requests whose answers grow longer and shorter."""
    output = 200.0 * (1.0 + 0.4 * np.sin(np.arange(len(count)) / 90.0))
    work = count * SERVING.work(np.full(len(count), 1000.0), output)
    return Arrivals(1.0, count, count * 1000.0, count * output, work)


def test_longer_answers_stay_longer_and_are_as_much_work_as_they_are():
    output = np.full(600, 400.0)
    count = np.full(600, 0.9 * Serving(SERVING.capacity, 1000.0, 400.0).throughput)
    long = Arrivals(
        1.0, count, count * 1000.0, count * output,
        count * SERVING.work(np.full(600, 1000.0), output),
    )  # fmt: skip
    script = Script(1)
    course = run(pool(1), long, script)
    assert course.attainment == 1.0
    own = Serving(SERVING.capacity, 1000.0, 400.0)
    busy = count[0] * own.output
    running = busy * own.capacity.a / (1.0 - busy * own.slope)
    assert script.seen[-1].running == pytest.approx(running, rel=0.02)
    more = Arrivals(1.0, *(1.2 * one for one in (count, long.prompt, long.output, long.work)))
    assert run(pool(1), more, Script(1)).attainment < 0.5


@pytest.mark.parametrize("drifts", [False, True])
@pytest.mark.parametrize("start", [15.0, 60.0, 180.0])
def test_lanes_do_what_single_pools_do(start, drifts):
    draw = np.random.default_rng(2)
    rate = FULL * (3.0 + 2.5 * np.sin(np.arange(1200) / 75.0))
    traces = [arrivals(draw.poisson(rate * part).astype(float)) for part in (1.0, 0.4)]
    if drifts:
        traces = [drifting(one.count) for one in traces]
    cells = [Cell(str(at), one, pool(2, start, warm=300.0)) for at, one in enumerate(traces)]
    many = run_lanes(cells, [0, 1, 0], Follow())
    for lane, at in enumerate((0, 1, 0)):
        alone = run(cells[at].pool, cells[at].arrivals, Follow())
        assert many.attainment[lane] == pytest.approx(alone.attainment, abs=1e-9)
        assert many.replicas[lane] == pytest.approx(alone.replicas, rel=1e-9)
    assert start < 180.0 or many.attainment[0] < 1.0
