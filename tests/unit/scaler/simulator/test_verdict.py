"""Two policies on the same days: late answers first, then money, and chance is no difference."""

from dataclasses import replace

import numpy as np
import pytest

from services.scaler.simulator.course import Counts, Course, Ticks, course_of
from services.scaler.simulator.verdict import Outcome, judged

HOURS = 48
AT = np.arange(1, HOURS * 60 + 1) * 60.0


def course(late: float, size: float, *, noise: float = 0.0, seed: int = 1) -> Course:
    """Two days with a share of late answers and a number of replicas, the same but for noise."""
    draw = np.random.default_rng(seed)
    begun = np.full(len(AT), 100.0)
    shares = np.clip(late * (1.0 + noise * draw.normal(size=len(AT))), 0.0, 1.0)
    sizes = size * (1.0 + noise * draw.normal(size=len(AT)))
    zero = np.zeros(len(AT))
    ticks = Ticks(AT, sizes, sizes, zero, zero, zero, begun, shares, zero, begun)
    after = Counts(begun.sum(), float((begun * shares).sum()), float((sizes * 60.0).sum()))
    return course_of(Counts(), after, ticks, overdue=0.0, warm=0.0, end=float(AT[-1]))


def test_more_late_answers_than_may_be_are_worse_even_if_cheaper():
    verdict = judged(course(0.005, 4.0), course(0.03, 3.0))
    assert verdict.outcome is Outcome.WORSE
    assert "97.00 % in time instead of 99.50 %" in verdict.why
    assert verdict.attainment.high < 0.0


def test_fewer_late_answers_where_too_many_were_are_better_even_if_dearer():
    assert judged(course(0.03, 3.0), course(0.005, 4.0)).outcome is Outcome.BETTER


def in_one_hour(late: float, size: float) -> Course:
    """As `course`, with all that is late in the tenth hour."""
    one = course(late, size)
    shares = np.where(AT // 3600 == 10, late * HOURS, 0.0)
    return replace(one, ticks=replace(one.ticks, late=shares))


def test_an_hour_of_many_late_answers_is_worse_even_if_cheaper():
    assert judged(course(0.0, 4.0), in_one_hour(0.015, 3.0)).outcome is Outcome.WORSE
    assert judged(in_one_hour(0.015, 3.0), course(0.0, 4.0)).outcome is Outcome.BETTER


def test_within_the_aim_money_decides():
    assert judged(course(0.002, 4.0), course(0.006, 3.8)).outcome is Outcome.BETTER
    dearer = judged(course(0.006, 3.8), course(0.002, 4.0))
    assert dearer.outcome is Outcome.WORSE
    assert "+5.3%" in dearer.why
    assert dearer.replica_hours.low > 0.0


def test_the_same_is_the_same():
    one = course(0.005, 4.0)
    verdict = judged(one, one)
    assert verdict.outcome is Outcome.SAME
    assert verdict.attainment.value == verdict.replica_hours.value == 0.0


@pytest.mark.parametrize("seed", range(2, 12))
def test_chance_is_no_difference(seed):
    verdict = judged(course(0.005, 4.0, noise=0.5), course(0.005, 4.0, noise=0.5, seed=seed))
    assert verdict.outcome is Outcome.SAME


def test_a_change_too_small_for_the_word_is_none():
    assert judged(course(0.005, 4.0), course(0.005, 4.01)).outcome is Outcome.SAME


def test_runs_over_other_times_do_not_compare():
    short = course_of(
        Counts(), Counts(1.0, 0.0, 60.0), course(0.0, 1.0).ticks,
        overdue=0.0, warm=0.0, end=60.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="do not compare"):
        judged(short, course(0.0, 1.0))
