"""A policy on a trace, from the door of the room; the core decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.settings import (
    Capacity,
    Measure,
    Query,
    Rule,
    Scale,
    Signal,
    Work,
    Zero,
)
from services.scaler.simulator.traces import Rates, Requests
from services.scaler.simulator.trial import (
    MAX_WINDOWS,
    Recorded,
    Replica,
    not_simulated,
    read_as,
    recorded_trace,
    start_times,
    thinned,
    trial,
)

CAPACITY = Capacity(a=0.0064, c=5e-8, p=2e-5)
REPLICA = Replica(CAPACITY, places=128, start_seconds=30.0, usd_per_hour=3.0)
SCALE = Scale(max=32, work=Work(capacity=CAPACITY))


def recorded(rate: float = 60.0, windows: int = 60) -> Recorded:
    """An hour by minutes, with a wave."""
    wave = rate * 60.0 * (1.0 + 0.5 * np.sin(np.arange(windows) / 6.0))
    return Recorded(
        60.0, wave.tolist(), (wave * 1000.0).tolist(), wave.tolist(), (wave * 200.0).tolist()
    )


def test_the_core_follows_a_recorded_wave_within_its_objective():
    course = trial(SCALE, recorded_trace(recorded(), REPLICA))
    assert course.attainment > 0.98
    sizes = course.ticks.ready
    assert sizes.max() >= sizes.min() + 2
    assert course.usd == pytest.approx(3.0 * course.replica_hours)
    assert course.replicas < sizes.max()


@given(
    a=st.sampled_from([1e-9, 0.004, 0.013, 0.05]),
    b=st.sampled_from([0.0, 0.005, 0.02]),
    places=st.sampled_from([2, 8, 64]),
    light=st.floats(0.001, 0.3),
)
@settings(max_examples=25)
def test_whatever_replicas_can_do_a_queue_makes_the_pool_grow(
    a: float, b: float, places: int, light: float
) -> None:
    """What half an hour of next to nothing teaches does not stand in the way."""
    true = Capacity(a=a, b=b)
    replica = Replica(true, places=places, start_seconds=15.0)
    full = places / (23.0 * (a + b * places))
    rates = [light * full * 60.0] * 30 + [3.0 * full * 60.0] * 60
    came = Recorded(
        60.0, rates, [18.0 * rate for rate in rates], rates, [23.0 * rate for rate in rates]
    )
    course = trial(Scale(max=12, work=Work()), recorded_trace(came, replica), tick=10.0)
    last = course.ticks.waiting[-60:] / full
    assert last.min() < 30.0, "what waits is worked off"


@pytest.mark.parametrize(
    ("measure", "target"),
    [
        (Measure.RUNNING, 0.6),
        (Measure.WAITING, 2.0),
        (Measure.TOKENS_PER_SECOND, 9_000.0),
        (Measure.QUEUED_TOKENS, 2_000.0),
        (Measure.TTFT_SECONDS, 1.0),
    ],
)
def test_a_policy_by_a_signal_grows_and_shrinks_by_it(measure: Measure, target: float):
    scale = Scale(max=32, work=None, signals={measure: Signal(target=target)})
    course = trial(scale, recorded_trace(recorded(), REPLICA))
    sizes = course.ticks.wanted
    assert sizes.max() >= sizes.min() + 2
    assert (np.diff(sizes) < 0).any()


def test_a_rule_has_its_signal():
    rule = Rule(signal="running", above=0.5, for_seconds=60.0, change=1)
    course = trial(Scale(max=8, work=None, rules=(rule,)), recorded_trace(recorded(), REPLICA))
    assert course.ticks.wanted.max() > course.ticks.wanted[0]


def test_what_only_engines_and_a_prometheus_know_is_named():
    scale = Scale(
        max=2,
        signals={Measure.KV: Signal(target=0.8), Measure.WAITING: Signal(target=4)},
        queries={"depth": Query(query="up", target=1.0)},
        rules=(
            Rule(signal="itl_seconds", above=1.0, change=1),
            Rule(signal="depth", above=1.0, change=1),
        ),
    )
    assert not_simulated(scale) == ("kv", "depth", "itl_seconds")
    assert not_simulated(SCALE) == ()


def test_the_same_question_has_the_same_answer():
    one, same = (trial(SCALE, recorded_trace(recorded(), REPLICA)) for _ in range(2))
    assert (one.attainment, one.replica_hours) == (same.attainment, same.replica_hours)


def test_a_policy_that_is_held_small_misses_what_another_keeps():
    trace = recorded_trace(recorded(), REPLICA)
    small = Scale(max=2, work=Work(capacity=CAPACITY))
    assert trial(small, trace).attainment < 0.7 < trial(SCALE, trace).attainment


def test_a_pool_without_requests_goes_to_zero_and_is_woken():
    quiet = [300.0] * 5 + [0.0] * 40 + [300.0] * 15
    tokens = [one * 200.0 for one in quiet]
    windows = Recorded(60.0, quiet, tokens, quiet, tokens)
    scale = Scale(min=0, max=4, zero=Zero(idle_seconds=300.0), work=Work(capacity=CAPACITY))
    course = trial(scale, recorded_trace(windows, REPLICA), warm=0.0)
    assert course.ticks.ready[100:150].max() == 0
    assert course.ticks.ready[-1] >= 1


def test_recorded_windows_keep_counts_and_lengths():
    trace = recorded_trace(recorded(rate=20.0), REPLICA)
    came = trace.arrivals
    assert came.count.sum() == pytest.approx(sum(recorded(rate=20.0).arrivals), rel=0.03)
    assert came.prompt.sum() / came.count.sum() == pytest.approx(1000.0)
    assert trace.serving.output == pytest.approx(200.0)
    assert came.work.sum() == pytest.approx(came.count.sum(), rel=0.01)


def test_a_window_without_a_finished_answer_takes_the_mean_of_all():
    windows = Recorded(60.0, [60.0, 60.0], [600.0, 600.0], [10.0, 0.0], [500.0, 0.0])
    trace = recorded_trace(windows, REPLICA)
    assert trace.serving.output == pytest.approx(50.0)


@pytest.mark.parametrize(
    "windows",
    [
        Recorded(60.0, [1.0], [1.0], [1.0], [1.0]),
        Recorded(60.0, [1.0, 1.0], [1.0], [1.0, 1.0], [1.0, 1.0]),
        Recorded(0.0, [1.0] * 2, [1.0] * 2, [1.0] * 2, [1.0] * 2),
        Recorded(60.0, [float("nan"), 1.0], [1.0] * 2, [1.0] * 2, [1.0] * 2),
        Recorded(60.0, [-1.0, 2.0], [1.0] * 2, [1.0] * 2, [1.0] * 2),
        Recorded(60.0, [0.0] * 2, [1.0] * 2, [1.0] * 2, [1.0] * 2),
        Recorded(60.0, [1.0] * (MAX_WINDOWS + 1), [1.0] * (MAX_WINDOWS + 1), [], []),
    ],
)
def test_windows_that_say_nothing_are_refused(windows):
    with pytest.raises(ValueError, match="recorded windows"):
        recorded_trace(windows, REPLICA)


def test_traces_of_both_kinds_are_served():
    single = Requests(
        np.linspace(0.0, 600_000.0, 6000), np.full(6000, 1000.0), np.full(6000, 200.0)
    )
    for trace in (single, Rates(300.0, np.array([10.0, 30.0]))):
        course = trial(SCALE, read_as(trace, REPLICA, times=2.0))
        assert course.requests > 0.0
        assert course.attainment > 0.9


def test_twice_the_trace_is_twice_the_work():
    rates = Rates(300.0, np.array([10.0, 30.0]))
    once, twice = (read_as(rates, REPLICA, times=times).arrivals.work.sum() for times in (1, 2))
    assert twice == pytest.approx(2 * once, rel=0.05)
    with pytest.raises(ValueError, match="multiplied"):
        read_as(rates, REPLICA, times=0.0)


def test_start_times_are_drawn_around_the_median():
    assert start_times(REPLICA, 1) == (30.0,)
    spread = Replica(CAPACITY, 128, 60.0, start_spread=0.3)
    drawn = np.array(start_times(spread, 1))
    assert np.median(drawn) == pytest.approx(60.0, rel=0.05)
    assert np.log(drawn).std() == pytest.approx(0.3, rel=0.1)
    assert drawn.tolist() == list(start_times(spread, 1))


def test_a_course_is_thinned_for_a_picture():
    course = trial(SCALE, recorded_trace(recorded(), REPLICA))
    few = thinned(course, 50)
    assert len(few.ticks.at) <= 50
    assert few.attainment == course.attainment
    assert thinned(few, 50) is few


def test_progress_is_told_to_the_end():
    told: list[float] = []
    trial(SCALE, recorded_trace(recorded(windows=5), REPLICA), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
