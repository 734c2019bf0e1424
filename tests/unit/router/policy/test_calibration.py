"""Thresholds, what they need, and when they let a tier answer."""

import math
from dataclasses import replace

import pytest

from services.router.policy.calibration import (
    SKIPPED,
    Judgement,
    Rung,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.difficulty import DifficultyModel
from tests.making.drawn import drawn


@pytest.mark.parametrize(
    ("skip", "gain", "enters"),
    [
        (0.3, 0.3, True),
        (0.3, 0.31, False),
        (0.3, None, False),
        (0.3, math.nan, False),
        (1.0, None, True),
        (1.0, 0.9, True),
        (-1.0, None, False),
        (-1.0, -1.0, False),
    ],
)
def test_a_tier_gets_its_turn_up_to_a_gain(
    skip: float, gain: float | None, *, enters: bool
) -> None:
    assert Rung(skip, None).enters(gain) is enters


def test_unknown_certainty_is_never_certain_enough() -> None:
    asks, takes_all = Rung(1.0, -100.0), Rung(1.0, None)
    assert asks.accepts(-100.0)
    assert not asks.accepts(-100.1)
    assert not asks.accepts(None)
    assert not asks.accepts(math.nan)
    assert takes_all.accepts(None)
    assert not asks.accepts(-0.1, valid=False)
    assert not takes_all.accepts(None, valid=False)


@pytest.mark.parametrize(
    ("skip", "accept"),
    [(1.1, None), (-1.1, None), (math.nan, None), (0.5, 0.1), (0.5, -math.inf), (0.5, math.nan)],
)
def test_thresholds_out_of_range_are_refused(skip: float, accept: float | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rung(skip, accept)


@pytest.mark.parametrize(
    "changes",
    [
        {"qualities": (1.0,), "gains": (), "certainties": (), "costs": (1.0,)},
        {"gains": (0.1, 0.2)},
        {"costs": (1.0,)},
        {"costs": (1.0, -1.0)},
        {"costs": (1.0, math.inf)},
        {"qualities": (1.0, 1.1)},
        {"qualities": (1.0, math.nan)},
        {"propensity": 0.0},
        {"propensity": math.nan},
        {"gains": (2.0,)},
        {"certainties": (0.1,)},
        {"certainties": (-math.inf,)},
    ],
)
def test_a_pair_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"pair|must be"):
        replace(drawn(1, 1)[0], **changes)  # type: ignore[arg-type]


MODEL = DifficultyModel({0: 1.0}, {}, 0.0, ((0.0, 0.0), (1.0, 1.0)))


def test_a_judgement_has_the_models_that_its_thresholds_ask() -> None:
    asks = Thresholds((Rung(0.5, -0.2),), Measure.LEARNED)
    with pytest.raises(ValueError, match="no model predicts"):
        Judgement(asks, (TierModels(before=MODEL),), 4)
    with pytest.raises(ValueError, match="no model predicts"):
        Judgement(asks, (TierModels(after=MODEL),), 4)
    with pytest.raises(ValueError, match="as many models"):
        Judgement(asks, (), 4)
    with pytest.raises(ValueError, match="first_k"):
        Judgement(Thresholds.safe(2), (TierModels(),), 0)
    made = Judgement(asks, (TierModels(MODEL, MODEL),), 4)
    features = ((0, 0.4),)
    assert made.gain(0, features) == pytest.approx(0.4)
    assert made.certainty(0, features, Certainty(-1, -2, -3)) == pytest.approx(math.log(0.3))
    assert made.certainty(0, features, None) is None


def test_the_safe_judgement_uses_no_lower_tier() -> None:
    made = Judgement.safe(3)
    assert made.thresholds.rungs == (SKIPPED, SKIPPED)
    assert made.gain(0, ()) is None
    assert not any(rung.enters(made.gain(0, ())) for rung in made.thresholds.rungs)
