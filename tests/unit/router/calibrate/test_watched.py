"""The level that the guardrail starts from, in the terms of the judge that watches."""

from dataclasses import replace

import pytest

from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.watched import spare_of, watch_of, watched_loss
from services.router.policy.calibration import Judgement, Rung, Thresholds, TierModels
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.routes import JudgeKind
from services.router.routes.artefact import Model


def record(
    small: str | None,
    large: str,
    sure: float,
    propensity: float = 1.0,
    qualities: tuple[float, float] = (1.0, 1.0),
) -> Record:
    certainty = Certainty(sure, sure, sure)
    tiers = (
        TierResult(Model("small", "", ""), qualities[0], certainty, 1.0, 1.0, answer=small),
        TierResult(Model("large", "", ""), qualities[1], None, 8.0, 8.0, answer=large),
    )
    return Record("", "", (), propensity, tiers)


JUDGEMENT = Judgement(Thresholds((Rung(1.0, -1.0),), Measure.MEAN), (TierModels(),), 4)
MATCH = watch_of(JudgeKind.MATCH, 0.0)


def test_answers_that_stand_and_differ_are_lost_to_a_judge_that_compares() -> None:
    records = [record("a", "a.", -0.1), record("a", "b", -0.1), record("a", "b", -2.0)]
    assert watched_loss(JUDGEMENT, records, MATCH) == pytest.approx(1 / 3)
    assert watched_loss(Judgement.safe(2), records, MATCH) == 0.0


def test_rarely_drawn_records_count_more() -> None:
    records = [record("a", "a", -0.1, 1.0), record("a", "b", -0.1, 0.5)]
    assert watched_loss(JUDGEMENT, records, MATCH, 0.5) == pytest.approx(2 / 3)


def test_questions_count_as_often_as_they_were_asked() -> None:
    records = [record("a", "a", -0.1), replace(record("a", "b", -0.1), asked=3.0)]
    assert watched_loss(JUDGEMENT, records, MATCH) == pytest.approx(3 / 4)


def test_the_level_is_unknown_without_answers_or_a_judge_that_needs_no_more() -> None:
    assert watched_loss(JUDGEMENT, [record(None, "a", -0.1)], MATCH) is None
    assert watched_loss(JUDGEMENT, [record("a", "a", -0.1)], watch_of(JudgeKind.MODEL, 0)) is None
    assert watched_loss(JUDGEMENT, [], MATCH) is None


def test_similar_answers_lose_a_part() -> None:
    watch = watch_of(JudgeKind.SIMILARITY, 0.0)
    lost = watched_loss(JUDGEMENT, [record("go to the bank", "go to a bank", -0.1)], watch)
    assert lost is not None
    assert 0.0 < lost < 1.0


def test_answers_that_are_better_make_up_for_worse_ones() -> None:
    records = [
        record(None, "a", -0.1, qualities=qualities)
        for qualities in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.25, 0.5))
    ]
    # Two of four are worse, a quarter of a point is lost in four.
    assert spare_of(JUDGEMENT, records, None) == pytest.approx(0.5 - 0.25 / 4)
    assert spare_of(JUDGEMENT, records[:1], None) == 0.0
    assert spare_of(JUDGEMENT, [], None) is None


def test_what_makes_up_is_told_in_the_terms_of_the_judge_that_watches() -> None:
    records = [record("a", "a", -0.1, qualities=(1.0, 0.0)), record("a", "b", -0.1)]
    assert spare_of(JUDGEMENT, records, MATCH) == 0.0  # the same or not: nothing is better
    assert spare_of(JUDGEMENT, records, watch_of(JudgeKind.MODEL, 0)) == pytest.approx(0.5)
