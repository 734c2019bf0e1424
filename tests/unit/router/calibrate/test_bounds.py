"""The betting test behind a certificate, and how many pairs a test needs."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.router.calibrate import bounds

EPSILON, DELTA = 0.05, 0.1


def test_more_pairs_are_needed_for_less_probability_of_error() -> None:
    needed = [
        bounds.samples_needed(0.0, 0.2, 0.05, delta, exact=True) for delta in (0.5, 0.1, 0.05, 0.01)
    ]
    assert needed == sorted(needed, key=lambda many: many or 0)
    assert None not in needed
    assert bounds.samples_needed(0.05, 0.2, 0.05, 0.05, exact=True) is None


def test_the_betting_test_is_wrong_no_more_often_than_told_with_weights_too() -> None:
    random = np.random.default_rng(0)
    refuted = 0
    for _ in range(400):
        # Half of the requests are drawn twice as often and lose 0, the others lose twice epsilon.
        lossy = random.random(300) < 1.0 / 3.0
        losses = np.where(lossy, (random.random(300) < 2 * EPSILON) * 1.0, 0.0)
        weights = np.where(lossy, 1.0, 0.5)
        bet = bounds.planned_bet((0.0, 0.3), weights, 300, EPSILON, DELTA)
        refuted += bounds.betting_p_value(losses, weights, EPSILON, bet) <= DELTA
    assert refuted / 400 <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 400)


@given(
    losses=st.lists(st.floats(-1, 1), min_size=1, max_size=200),
    epsilon=st.floats(0.001, 0.5),
    planned=st.floats(-0.5, 0.5),
)
def test_a_bet_never_loses_more_than_everything(
    losses: list[float], epsilon: float, planned: float
) -> None:
    bet = bounds.planned_bet((planned, 0.2), np.ones(3), 100, epsilon, DELTA)
    p_value = bounds.betting_p_value(np.array(losses), np.ones(len(losses)), epsilon, bet)
    assert 0.0 < p_value <= 1.0


def test_the_exact_test_is_for_whole_losses_of_which_none_was_drawn_more_rarely() -> None:
    losses, ones = np.array([-1.0, 0.0, 1.0]), np.ones(3)
    assert bounds.is_exact(losses, ones)
    assert not bounds.is_exact(losses / 2.0, ones)
    assert not bounds.is_exact(losses, np.array([1.0, 1.0, 0.5]))
    assert not bounds.is_exact(losses, ones / 2.0)
