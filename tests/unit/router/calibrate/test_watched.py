"""The level that the guardrail starts from, in the terms of the judge that watches."""

from dataclasses import replace

import pytest

from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.watched import watch_of, watched_loss
from services.router.policy.calibration import Judgement, Rung, Thresholds, TierModels
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.routes import JudgeKind
from services.router.routes.artefact import Model


def record(small: str | None, large: str, sure: float, propensity: float = 1.0) -> Record:
    certainty = Certainty(sure, sure, sure)
    tiers = (
        TierResult(Model("small", "", ""), 1.0, certainty, 1.0, 1.0, answer=small),
        TierResult(Model("large", "", ""), 1.0, None, 8.0, 8.0, answer=large),
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
