"""What is decided for many recorded requests at once is what a router decides for each."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.calibrate.cascade import Outcome, outcome, table_of
from services.router.calibrate.evidence import Record, TierResult
from services.router.policy.calibration import Judgement, Rung, Thresholds, TierModels
from services.router.policy.cascade import Cascade, first_look
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.difficulty import DifficultyModel
from services.router.routes.artefact import Model
from tests.making.policies import calibrated, ladder, quality, route

STEPS = [step / 4 for step in range(-8, 9)]
"""Few values, so that many of them meet a threshold exactly."""


def model(weights: dict[int, float]) -> DifficultyModel:
    return DifficultyModel(weights, {}, 0.0, ((-1.0, -1.0), (1.0, 1.0)))


log_prob = st.sampled_from([-step / 2 for step in range(9)])
certainty = st.none() | st.builds(Certainty, log_prob, log_prob, log_prob)
measures = st.sampled_from(list(Measure))


@st.composite
def judgements(draw: st.DrawFn) -> Judgement:
    """Of one to three lower tiers, each with a model that looks at a feature of its own."""
    measure = draw(measures)
    rungs, models = [], []
    for at in range(draw(st.integers(1, 3))):
        before = model({at: 1.0}) if draw(st.booleans()) else None
        skips = [-1.0, 1.0] if before is None else [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]
        asks = st.none() | st.sampled_from([-2.0, -1.0, -0.5, 0.0])
        rungs.append(Rung(draw(st.sampled_from(skips)), draw(asks)))
        after = model({at: 1.0, 40: -0.5}) if measure is Measure.LEARNED else None
        models.append(TierModels(before, after))
    return Judgement(Thresholds(tuple(rungs), measure), tuple(models), first_k=4)


@st.composite
def records(draw: st.DrawFn, tiers: int) -> Record:
    results = [
        TierResult(
            Model(f"t{at}", "", ""),
            quality=draw(st.sampled_from([0.0, 0.5, 1.0])),
            certainty=draw(certainty),
            micro_usd=draw(st.floats(0, 10)),
            engine_ms=draw(st.floats(0, 10)),
            valid=draw(st.booleans()),
        )
        for at in range(tiers)
    ]
    features = tuple((at, draw(st.sampled_from(STEPS))) for at in range(tiers - 1))
    return Record("", "", features, draw(st.floats(0.1, 1.0)), tuple(results))


cases = judgements().flatmap(
    lambda made: st.tuples(
        st.just(made), st.lists(records(len(made.models) + 1), min_size=1, max_size=6)
    )
)


def routed(judgement: Judgement, record: Record) -> tuple[list[bool], int]:
    """Which tiers run, and the one that answers, as a router decides."""
    tiers = len(record.tiers)
    calibration = replace(calibrated(Rung(1.0, None)), judgement=judgement)
    names = (f"t{at}" for at in range(tiers))
    made = route("chat", *ladder(*names), quality=quality(calibration=calibration))
    cascade, ran = Cascade(first_look(made, ()), record.features), [False] * tiers
    while True:
        step = cascade.step()
        ran[step.rung] = True
        answer = record.tiers[step.rung]
        if not step.checked or cascade.stands(answer.certainty, valid=answer.valid):
            return ran, step.rung


@given(case=cases, shadow=st.floats(0, 1), cost=st.sampled_from(["micro_usd", "engine_ms"]))
def test_many_requests_climb_as_each_does_in_a_router(
    case: tuple[Judgement, list[Record]], shadow: float, cost: str
) -> None:
    judgement, many = case
    seen = outcome(table_of(judgement, many, cost, 0.1), judgement.thresholds, shadow)
    for at, record in enumerate(many):
        ran, answered = routed(judgement, record)
        assert seen.ran[at].tolist() == ran
        assert seen.answered[at] == answered
        tiers = record.tiers
        assert seen.losses[at] == tiers[-1].quality - tiers[answered].quality
        costs = [getattr(tier, cost) for tier in tiers]
        spent = sum(one for one, ran_it in zip(costs, ran, strict=True) if ran_it)
        assert seen.costs[at] == pytest.approx(spent + shadow * (sum(costs) - spent))


def one_request(judgement: Judgement, *results: TierResult) -> Outcome:
    return outcome(table_of(judgement, [Record("", "", (), 1.0, results)]), judgement.thresholds, 0)


def test_a_tier_that_is_passed_over_costs_nothing_but_its_shadow_run() -> None:
    small = TierResult(Model("small", "", ""), 1.0, None, 1.0, 1.0)
    large = TierResult(Model("large", "", ""), 1.0, None, 8.0, 8.0)
    assert one_request(Judgement.safe(2), small, large).costs.tolist() == [8.0]
    answers = Judgement(Thresholds((Rung(1.0, None),)), (TierModels(),), 1)
    assert one_request(answers, small, large).costs.tolist() == [1.0]
