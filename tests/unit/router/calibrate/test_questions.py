"""Questions that repeat: one piece of evidence each, on one side of the split."""

import math
from collections import Counter

import numpy as np
import pytest

from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.process import Result, Settings, calibrate_records
from services.router.calibrate.questions import distinct, recognised, split
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.difficulty import Signals, features
from services.router.routes.artefact import Model

EPSILON, DELTA = 0.05, 0.1
SETTINGS = Settings(epsilon=EPSILON, delta=DELTA, predict=False, measures=(Measure.MEAN,))


def record(
    name: str,
    question: str,
    *,
    sure: float = -0.1,
    small: float = 1.0,
    large: float = 1.0,
    propensity: float = 1.0,
    text: str = "",
) -> Record:
    known = Certainty(sure, sure, sure)
    tiers = (
        TierResult(Model("small", "", ""), small, known, 1.0, 1.0),
        TierResult(Model("large", "", ""), large, None, 10.0, 10.0),
    )
    return Record(name, "", features(text, Signals()), propensity, tiers, question)


def test_copies_become_one_record_that_knows_how_often() -> None:
    asked = [record("1", "a"), record("2", "b"), record("3", "a", small=0.0), record("4", "a")]
    found = distinct(asked)
    assert [(one.request_id, one.asked) for one in found] == [("1", 3.0), ("2", 1.0)]
    assert found[0].tiers[0].quality == 1.0  # the oldest stands for all


def test_a_copy_that_was_drawn_more_rarely_counts_for_more() -> None:
    found = distinct([record("1", "a", propensity=0.2), record("2", "a", propensity=0.05)])
    assert [one.asked for one in found] == [5.0]


def test_no_question_is_on_both_sides_and_each_keeps_its_side() -> None:
    many = [record(str(at), f"q{at}") for at in range(2000)]
    fit, certify = split(many, 0.6, "support")
    assert len(fit) + len(certify) == 2000
    assert 1100 < len(certify) < 1300
    sides = {one.question: 0 for one in fit} | {one.question: 1 for one in certify}
    few_fit, few_certify = split(many[500:900], 0.6, "support")
    assert {sides[one.question] for one in few_fit} == {0}
    assert {sides[one.question] for one in few_certify} == {1}
    again = split(many[::-1], 0.6, "support")
    assert again == (fit, certify)  # their order is the questions' own
    assert split(many, 0.6, "sales")[0] != fit


def test_standing_questions_certify_request_by_request() -> None:
    many = [record(str(at), f"q{at}") for at in range(300)]
    often = [record(f"o{at}", f"often {at % 8}") for at in range(8 * 12)]
    fit, certify = split(distinct(many + often), 0.6, "support")
    assert not any(one.question.startswith("often") for one in fit)
    standing = [one for one in certify if one.question.startswith("often")]
    assert [one.draws for one in standing] == [12] * 8
    assert [one.asked for one in standing] == [pytest.approx(7.2)] * 8
    assert {one.once for one in standing} == {True, False}
    assert all(one.draws == 1 and one.once for one in certify if one not in standing)


def test_where_every_question_stands_equally_often_none_stands_out() -> None:
    many = distinct([record(f"{at}-{copy}", f"q{at}") for at in range(40) for copy in range(20)])
    fit, certify = split(many, 0.6, "support")
    assert fit
    assert all(one.draws == 1 for one in certify)


def test_a_question_is_told_by_what_was_written_where_one_record_does_not_name_it() -> None:
    told = [record("1", "x", text="where is my card"), record("2", "y", text="where is my card")]
    assert len(distinct(recognised(told))) == 2
    untold = [*told, record("3", "", text="where is my card"), record("4", "", text="a fee")]
    assert [one.asked for one in distinct(recognised(untold))] == [3.0, 1.0]


# --- with known truth --------------------------------------------------------------------------


def drawn(
    random: np.random.Generator, count: int, worse: float, better: float
) -> list[tuple[float, float, float]]:
    """Certainty, which tells nothing, and both qualities."""
    kinds = random.random(count)
    return [
        (-random.random() - 1e-3, float(kind >= worse), float(not worse <= kind < worse + better))
        for kind in kinds
    ]


def calibrated(questions: list[tuple[float, float, float]], times: list[int], run: int) -> Result:
    """Calibrates on each question as often as said."""
    records = [
        record(f"{at}-{copy}", f"{run} {at}", sure=sure, small=small, large=large)
        for at, ((sure, small, large), many) in enumerate(zip(questions, times, strict=True))
        for copy in range(many)
    ]
    return calibrate_records(records, SETTINGS)


def stands(result: Result, sure: float) -> bool:
    (rung,) = result.judgement.thresholds.rungs
    return rung.enters(None) and rung.accepts(sure)


def at_most(wrong: int, runs: int) -> bool:
    return wrong / runs <= DELTA + 2.0 * math.sqrt(DELTA * (1.0 - DELTA) / runs)


def test_copies_make_no_certificate_wrong() -> None:
    """Any share above 5 of 6 loses too much; counted as 600 pairs, 300 certify it too often."""
    wrong, runs = 0, 60
    for run in range(runs):
        questions = drawn(np.random.default_rng(run), 200, 0.08, 0.02)
        result = calibrated(questions, [3] * 200, run)
        share = np.mean([stands(result, sure) for sure in np.linspace(-1.0, 0.0, 400)])
        wrong += result.calibration.certificate.certified and 0.06 * share > EPSILON
    assert at_most(wrong, runs)


def test_questions_that_are_asked_often_and_answered_badly_are_not_outvoted() -> None:
    """3 of 100 questions are asked 20 times as often, and one in five of those loses."""
    wrong, runs = 0, 30
    for run in range(runs):
        random = np.random.default_rng(run)
        questions = drawn(random, 2000, 0.02, 0.01)
        popular = random.random(2000) < 0.03
        chances = np.where(popular, 20.0, 1.0)
        chances /= chances.sum()
        questions = [
            (sure, 0.0, 1.0) if often and random.random() < 0.2 else (sure, small, large)
            for (sure, small, large), often in zip(questions, popular, strict=True)
        ]
        counts = Counter(random.choice(2000, 1500, p=chances).tolist())
        result = calibrated(questions, [counts[at] for at in range(2000)], run)
        loss = sum(
            chance * (large - small)
            for chance, (sure, small, large) in zip(chances, questions, strict=True)
            if stands(result, sure)
        )
        wrong += result.calibration.certificate.certified and loss > EPSILON
    assert at_most(wrong, runs)


def test_traffic_that_mostly_repeats_itself_can_be_certified() -> None:
    """By Zipf's law, where the commonest question is every eighth."""
    random = np.random.default_rng(7)
    questions = drawn(random, 3000, 0.03, 0.01)
    chances = 1.0 / np.arange(1.0, 3001.0)
    counts = Counter(random.choice(3000, 3000, p=chances / chances.sum()).tolist())
    result = calibrated(questions, [counts[at] for at in range(3000)], 7)
    certificate = result.calibration.certificate
    assert certificate.certified
    assert "betting test too" in certificate.method
    assert result.repeats == 3000 - len(counts)
