"""The watch on quality."""

import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.guardrail import BETS, Guard, GuardState, explain, update

GUARD = Guard(tolerance=0.01)


def watch(guard: Guard, losses: list[float]) -> GuardState:
    state = GuardState()
    for loss in losses:
        state = update(guard, state, loss)
    return state


def draws(worse: float, better: float, seed: int, count: int) -> list[float]:
    random = Random(seed)
    return [
        1.0 if (drawn := random.random()) < worse else -1.0 if drawn < worse + better else 0.0
        for _ in range(count)
    ]


guards = st.builds(
    Guard,
    tolerance=st.floats(0.001, 0.3),
    level=st.floats(0.0, 0.3),
    run_length=st.floats(2, 1e6),
    lowest_loss=st.sampled_from([-1.0, 0.0]),
)


@given(guard=guards, losses=st.lists(st.floats(-1, 1), max_size=50), weight=st.floats(0.01, 1))
def test_detectors_stay_positive_and_a_halt_stays(
    guard: Guard, losses: list[float], weight: float
) -> None:
    state = GuardState()
    for loss in losses:
        if loss < guard.lowest_loss:
            continue
        after = update(guard, state, loss, weight)
        assert all(value >= 0.0 for value in after.detectors)
        assert after.halted == (state.halted or after.evidence >= guard.run_length)
        if state.halted:
            assert after == state
        state = after
    assert GuardState.from_json(json.loads(json.dumps(state.as_json()))) == state


@given(guard=guards, worse=st.floats(0, 1))
def test_the_detector_grows_by_at_most_one_a_sample_under_the_null(
    guard: Guard, worse: float
) -> None:
    """What the average run length rests on: R - n is a supermartingale while the mean is allowed.

    The loss takes the lowest value and 1 with such chances that its mean is at most what is
    allowed.
    """
    low = guard.lowest_loss
    worse *= (guard.allowed - low) / (1.0 - low)
    before = GuardState(detectors=tuple(0.1 * at for at in range(len(BETS))))
    if update(guard, before, low).halted or update(guard, before, 1.0).halted:
        return
    expected = worse * update(guard, before, 1.0).evidence
    expected += (1.0 - worse) * update(guard, before, low).evidence
    assert expected <= before.evidence + 1.0 + 1e-9


def test_false_halts_are_as_rare_as_promised() -> None:
    guard, lengths = Guard(tolerance=0.01, run_length=300.0), []
    for seed in range(300):
        state, losses = GuardState(), iter(draws(0.03, 0.02, seed, 100_000))
        while not state.halted:
            state = update(guard, state, next(losses))
        lengths.append(state.samples)
    mean = sum(lengths) / len(lengths)
    error = math.sqrt(sum((one - mean) ** 2 for one in lengths)) / len(lengths)
    assert mean >= 300.0 - 3 * error


@pytest.mark.parametrize("quiet", [0, 5000])
def test_a_loss_of_five_points_is_found_within_a_thousand_samples(quiet: int) -> None:
    found = []
    for seed in range(21):
        state = watch(GUARD, draws(0.02, 0.02, seed, quiet))
        assert not state.halted
        for loss in draws(0.07, 0.02, 1000 + seed, 5000):
            state = update(GUARD, state, loss)
        assert state.halted
        found.append(state.samples - quiet)
    assert sorted(found)[10] <= 1000


def test_a_judge_that_sees_disagreement_is_measured_against_its_level() -> None:
    guard = Guard(tolerance=0.01, level=0.08, lowest_loss=0.0)
    usual = [1.0 if one else 0.0 for one in draws(0.08, 0.0, 1, 20_000)]
    worse = [1.0 if one else 0.0 for one in draws(0.16, 0.0, 2, 3000)]
    assert not watch(guard, usual).halted
    assert watch(guard, worse).halted


def test_a_sample_drawn_more_often_counts_less() -> None:
    heavy, light = update(GUARD, GuardState(), 1.0, 1.0), update(GUARD, GuardState(), 1.0, 0.1)
    assert 1.0 < light.evidence < heavy.evidence


def test_the_mean_is_weighted() -> None:
    state = update(GUARD, update(GUARD, GuardState(), 1.0, 0.25), 0.0, 0.75)
    assert state.mean_loss == pytest.approx(0.25)
    assert state.samples == 2


@pytest.mark.parametrize("loss", [math.nan, 1.1, -1.1, math.inf])
def test_a_loss_out_of_range_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="loss"):
        update(GUARD, GuardState(), loss)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5, math.nan])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        update(GUARD, GuardState(), 0.0, weight)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": 0.01, "level": 1.0}, "level"),
        ({"tolerance": 0.6, "level": 0.6}, "tolerance \\+ level"),
        ({"tolerance": 0.0, "lowest_loss": 0.0}, "tolerance \\+ level"),
        ({"tolerance": 0.01, "run_length": 1.0}, "run_length"),
        ({"tolerance": 0.01, "run_length": math.inf}, "run_length"),
        ({"tolerance": 0.01, "lowest_loss": 0.5}, "lowest_loss"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Guard(**settings)


GOOD = update(GUARD, GuardState(), 0.0).as_json()


@pytest.mark.parametrize(
    "damage",
    [
        {"detectors": [1.0]},
        {"detectors": [math.nan] * len(BETS)},
        {"detectors": [-1.0] * len(BETS)},
        {"detectors": None},
        {"samples": -1},
        {"samples": "many"},
        {"halted": "no"},
        {"mean_loss": 2.0},
        {"weights": math.inf},
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no state of a guardrail"):
        GuardState.from_json({**GOOD, **damage})
    with pytest.raises(ValueError, match="no state of a guardrail"):
        GuardState.from_json({})


def test_a_person_is_told() -> None:
    assert explain(GUARD, watch(GUARD, [0.0])).startswith("Watching: 1 judged samples")
    assert explain(GUARD, watch(GUARD, [1.0] * 50)).startswith("Halted:")
