"""The capacity model: what a request weighs, and what is learned from what replicas do."""

import math
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.capacity import (
    CORRECTION_LEAST,
    CORRECTION_MOST,
    Learned,
    busy,
    learn,
    step_seconds,
    work,
)
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.policy.sizing.views import Traffic
from tests.making.sizing import BEST, H100, OUTPUT, PLACES, PROMPT

models = st.builds(
    Capacity,
    a=st.floats(1e-4, 0.1),
    b=st.floats(0, 0.01),
    c=st.floats(0, 1e-5),
    p=st.floats(0, 1e-3),
)


def did(
    truth: Capacity, running: float, ready: int, prompt: float = PROMPT, output: float = OUTPUT
) -> Traffic:
    """What such replicas do in ten seconds with so many requests on each."""
    tokens = 10.0 * ready * running / step_seconds(truth, running, prompt, output)
    finished = tokens / output
    return Traffic(10.0, finished, finished * prompt, finished, tokens, finished, 0.0, 0.0)


def taught(
    truth: Capacity, given: Capacity | None, *, ticks: int = 200, seed: int = 1, spread: float = 0.0
) -> Learned:
    random, learned, before = Random(seed), Learned(), 10.0
    for _ in range(ticks):
        running = random.uniform(2, 60)
        prompt = PROMPT * math.exp(random.uniform(-spread, spread))
        output = OUTPUT * math.exp(random.uniform(-spread, spread))
        learned = learn(
            learned,
            given,
            did(truth, (running + before) / 2, 2, prompt, output),
            places=PLACES,
            ready=2,
            running=2 * running,
            prompt=prompt,
        )
        before = running
    return learned


@given(models, st.integers(1, 500), st.floats(1, 5000), st.floats(1, 2000))
def test_a_full_replica_does_one_second_of_work_in_a_second(model, places, prompt, output):
    answered = places / (output * step_seconds(model, places, prompt, output))
    assert work(model, places, answered, answered * prompt, output) == pytest.approx(1.0)
    assert busy(model, places, places, prompt, output) == pytest.approx(1.0)


@given(models, st.floats(0.1, 500), st.floats(1, 5000), st.floats(1, 2000))
def test_work_of_running_requests_is_what_the_replica_does(model, running, prompt, output):
    places = 512
    answered = running / (output * step_seconds(model, running, prompt, output))
    done = work(model, places, answered, answered * prompt, output)
    assert done == pytest.approx(busy(model, places, running, prompt, output))
    assert done <= 1 + 1e-9


def test_work_by_hand():
    # p*prompt + output*(a/places + b + c*(prompt + output/2)), for two requests.
    model = Capacity(a=0.02, b=0.001, c=1e-6, p=1e-4)
    one = 1e-4 * 100 + 50 * (0.02 / 10 + 0.001 + 1e-6 * (100 + 25))
    assert work(model, 10, 2.0, 200.0, 50.0) == pytest.approx(2 * one)


def test_the_measured_rows_of_an_h100_give_their_throughput():
    # 21.5 requests a second at 128 places were measured; the fit is a few percent off.
    assert 1 / work(H100, PLACES, 1.0, PROMPT, OUTPUT) == pytest.approx(BEST, rel=0.01)


@pytest.mark.parametrize("speed", [0.7, 0.8, 0.9, 1.1, 1.2])
def test_the_correction_finds_how_far_off_a_model_is(speed):
    truth = Capacity(a=H100.a / speed, c=H100.c / speed, p=H100.p / speed)
    assert taught(truth, H100).correction == pytest.approx(speed, rel=0.02)


@pytest.mark.parametrize(("speed", "bound"), [(0.1, CORRECTION_LEAST), (9.0, CORRECTION_MOST)])
def test_the_correction_is_bounded(speed, bound):
    truth = Capacity(a=H100.a / speed, c=H100.c / speed, p=H100.p / speed)
    assert taught(truth, H100).correction == pytest.approx(bound)


def test_the_correction_takes_two_minutes():
    truth = Capacity(a=H100.a / 0.8, c=H100.c / 0.8, p=H100.p / 0.8)
    corrections = []
    learned = Learned()
    for _ in range(40):
        learned = learn(
            learned, H100, did(truth, 30, 2), places=PLACES, ready=2, running=60.0, prompt=PROMPT
        )
        corrections.append(learned.correction)
    after_two_minutes = corrections[2 + 12 - 1]
    assert (1 - after_two_minutes) / 0.2 == pytest.approx(1 - math.exp(-1), abs=0.02)


@pytest.mark.parametrize(
    "truth",
    [
        H100,
        Capacity(a=0.0202, b=0.00131, c=1e-7, p=2e-4),
        Capacity(a=0.05, b=0.0, c=2e-6, p=0.001),
    ],
)
def test_four_constants_are_learned_from_what_replicas_do(truth):
    model = taught(truth, None, ticks=400, spread=0.7).capacity
    assert model is not None
    for running in (1.0, 20.0, 100.0):
        said = step_seconds(model, running, PROMPT, OUTPUT)
        assert said == pytest.approx(step_seconds(truth, running, PROMPT, OUTPUT), rel=0.1)


def test_the_first_answers_already_give_a_model_that_is_not_too_bold():
    truth = Capacity(a=0.0202, b=0.00131)
    learned = Learned()
    for _ in range(3):
        learned = learn(
            learned, None, did(truth, 8, 1), places=64, ready=1, running=8.0, prompt=PROMPT
        )
    assert learned.capacity is not None
    said = step_seconds(learned.capacity, 8, PROMPT, OUTPUT)
    assert said == pytest.approx(step_seconds(truth, 8, PROMPT, OUTPUT), rel=0.3)


def test_nothing_is_learned_while_replicas_change():
    slow = Capacity(a=H100.a * 3, c=H100.c * 3, p=H100.p * 3)
    learned = Learned()
    for tick in range(100):
        ready = 2 + (tick // 2) % 2
        learned = learn(
            learned,
            H100,
            did(slow, 30, ready),
            places=PLACES,
            ready=ready,
            running=30.0 * ready,
            prompt=PROMPT,
        )
    assert learned.correction == 1.0


def test_nothing_is_learned_from_what_nobody_says():
    learned = Learned()
    for _ in range(50):
        learned = learn(
            learned, H100, did(H100, 9, 2), places=PLACES, ready=2, running=None, prompt=PROMPT
        )
    assert learned.correction == 1.0


def test_few_answers_are_put_together_before_anything_is_read_from_them():
    learned = Learned()
    few = Traffic(10.0, 0.5, 500.0, 0.5, 100.0, 0.5, 0.0, 0.0)
    for _ in range(15):
        learned = learn(learned, H100, few, places=PLACES, ready=1, running=0.3, prompt=PROMPT)
    assert learned.correction == 1.0
    assert 0 < learned.stretch.finished < 10


figures = st.floats(0, 1e14)


@settings(deadline=None)
@given(st.lists(st.tuples(figures, figures, figures, st.integers(0, 3)), max_size=8), st.booleans())
@example(ticks=[(0.0, 0.0, 0.0, 1), (0.0, 0.0, 5e-324, 1), (10.0, 10.0, 5e-324, 1)], known=True)
def test_whatever_is_measured_the_model_stays_within_bounds(ticks, known):
    learned = Learned()
    for finished, tokens, running, ready in ticks:
        told = Traffic(10.0, finished, tokens, finished, tokens, finished, 0.0, 0.0)
        learned = learn(
            learned,
            H100 if known else None,
            told,
            places=PLACES,
            ready=ready,
            running=running,
            prompt=PROMPT,
        )
        assert CORRECTION_LEAST <= learned.correction <= CORRECTION_MOST
        assert learned.capacity is None or 0 < learned.capacity.a <= 60


def test_answers_that_come_and_go_between_two_looks_do_not_make_a_replica_fast():
    """48 tokens a second with hardly anything seen running: 60 looks cannot tell 20 us a step."""
    learned = Learned()
    for _ in range(360):
        told = Traffic(10.0, 20.0, 400.0, 20.0, 480.0, 20.0, 0.0, 0.0)
        learned = learn(learned, None, told, places=4, ready=1, running=0.001, prompt=20.0)
    assert learned.capacity is not None
    assert step_seconds(learned.capacity, 1.0, 20.0, 24.0) > 0.001


def test_a_model_that_fits_nothing_any_more_is_learned_anew():
    fast = Capacity(a=1e-5)
    learned = taught(fast, None)
    for _ in range(12):
        learned = learn(
            learned, None, did(H100, 30, 2), places=PLACES, ready=2, running=60.0, prompt=PROMPT
        )
    assert learned.capacity is not None
    said = step_seconds(learned.capacity, 30, PROMPT, OUTPUT)
    assert said == pytest.approx(step_seconds(H100, 30, PROMPT, OUTPUT), rel=0.3)
