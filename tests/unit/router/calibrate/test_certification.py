"""Thresholds, what they do with evidence, and whether certificates hold."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from services.router.calibrate import bounds
from services.router.calibrate.candidates import measured, propose
from services.router.calibrate.cascade import EvidenceTable, outcome
from services.router.calibrate.certification import (
    BETTING,
    EXACT,
    calibrate,
    pairs_missing,
)
from services.router.policy.calibration import (
    SKIPPED,
    Judgement,
    Pair,
    Rung,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Certainty, Measure
from services.router.policy.difficulty import DifficultyModel

EPSILON, DELTA = 0.05, 0.1


def drawn(
    seed: int,
    count: int,
    *,
    worse: float = 0.1,
    better: float = 0.02,
    signal: float = 1.0,
    graded: bool = False,
    propensities: tuple[float, ...] = (1.0,),
) -> list[Pair]:
    """Pairs of two tiers; `signal` is how much gain and certainty tell, from 0 to 1."""
    random = np.random.default_rng(seed)
    pairs = []
    for kind, noise, more, drawn_with in zip(
        random.random(count),
        random.random(count),
        random.random(count),
        random.choice(propensities, count),
        strict=True,
    ):
        low, top = (0.0, 1.0) if kind < worse else (1.0, 0.0) if kind < worse + better else (1, 1)
        if graded:
            low, top = 0.2 + 0.6 * low, 0.2 + 0.6 * top
        sign = signal * (kind < worse) + 0.5 * noise
        pairs.append(
            Pair(
                gains=(min(1.0, 0.3 * sign + 0.2 * more),),
                certainties=(-sign,),
                qualities=(low, top),
                costs=(1.0, 10.0),
                propensity=float(drawn_with),
            )
        )
    return pairs


def run(fit: list[Pair], certify: list[Pair], epsilon: float = EPSILON, tiers: int = 2):
    return calibrate(
        fit,
        certify,
        tiers=tiers,
        epsilon=epsilon,
        delta=DELTA,
        measure=Measure.MEAN,
        shadow_share=0.05,
    )


# --- rungs -------------------------------------------------------------------------------------


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


# --- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [-1.0, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("accept", [None, -1.0])
@pytest.mark.parametrize("valid", [True, False])
def test_what_is_not_known_of_evidence_counts_as_a_rung_counts_it(
    skip: float, accept: float | None, *, valid: bool
) -> None:
    rung = Rung(skip, accept)
    for gain in (None, 0.0, 0.2, 0.4, 0.7):
        for certainty in (None, -2.0, -1.0, -0.5):
            pair = Pair((gain,), (certainty,), (0.0, 1.0), (1.0, 10.0), (valid,))
            seen = outcome(EvidenceTable.of([pair]), Thresholds((rung,)), 0.0)
            runs = rung.enters(gain)
            stands = runs and rung.accepts(certainty, valid=valid)
            assert seen.ran[0].tolist() == [runs, not stands]
            assert seen.answered[0] == (0 if stands else 1)


def test_evidence_of_nothing_or_of_two_ladders_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        EvidenceTable.of([])
    three = Pair((0.1, 0.1), (-1.0, -1.0), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="same number"):
        EvidenceTable.of([*drawn(1, 2), three])
    with pytest.raises(ValueError, match="as many rungs"):
        outcome(EvidenceTable.of(drawn(1, 2)), Thresholds.safe(3), 0.0)


def test_candidates_go_from_safe_to_aggressive() -> None:
    evidence = EvidenceTable.of(drawn(3, 800, signal=0.3))
    found = propose(evidence, Measure.MEAN, 0.05, 0.2)
    assert len(found) > 5
    for one, next_one in pairwise(found):
        assert one.cost >= next_one.cost
    assert found[0].loss < found[-1].loss
    assert all(one.loss < 0.2 and one.cost < evidence.top_cost for one in found)
    again = measured(evidence, found[0].thresholds, 0.05)
    assert (again.loss, again.cost) == (found[0].loss, found[0].cost)


@pytest.mark.parametrize("unknown", [{}, {"gains": (None,)}, {"certainties": (None,)}])
def test_from_the_top_tier_alone_to_the_cheapest_candidate_no_step_is_large(
    unknown: dict[str, object],
) -> None:
    """A proof that fails at one falls back to the one before: there had better be one near by."""
    pairs = [replace(pair, **unknown) for pair in drawn(3, 800)]  # type: ignore[arg-type]
    evidence = EvidenceTable.of(pairs)
    costs = [one.cost for one in propose(evidence, Measure.MEAN, 0.05, 0.2)]
    steps = [one - other for one, other in pairwise((evidence.top_cost, *costs))]
    assert min(costs) < 0.3 * evidence.top_cost
    assert max(steps) < 0.06 * evidence.top_cost


# --- tests -------------------------------------------------------------------------------------


def exact_size(samples: int, worse: float, better: float, epsilon: float) -> float:
    """Probability that the exact test refutes, by adding up every outcome."""
    total = 0.0
    for ups in range(samples + 1):
        for downs in range(samples + 1 - ups):
            if bounds.exact_p_value(ups, downs, samples, epsilon, DELTA) > DELTA:
                continue
            same = samples - ups - downs
            ways = math.comb(samples, ups) * math.comb(samples - ups, downs)
            total += ways * worse**ups * better**downs * (1 - worse - better) ** same
    return total


@pytest.mark.parametrize("better", [0.0, 0.02, 0.1, 0.4])
def test_the_exact_test_is_wrong_no_more_often_than_told(better: float) -> None:
    assert exact_size(30, better + 0.1, better, 0.1) <= DELTA


def test_a_larger_tolerance_is_easier_and_more_loss_harder() -> None:
    values = [bounds.exact_p_value(10, 5, 500, one, DELTA) for one in (0.01, 0.02, 0.04)]
    assert values == sorted(values, reverse=True)
    values = [bounds.exact_p_value(one, 5, 500, 0.03, DELTA) for one in (5, 10, 20)]
    assert values == sorted(values)


@pytest.mark.parametrize("samples", [20, 1_000, 50_000])
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_rounding_never_makes_the_exact_test_easier(
    samples: int, epsilon: float, share: float
) -> None:
    """Beside the same tail as sums of binomials: of what differs, so many are worse."""
    worse = round(samples * (share / 2 + epsilon))
    better = round(samples * share / 2)
    spent = bounds.CONFINED_AT * DELTA
    most = bounds.upper_share(worse + better, samples, spent)
    differing = np.arange(samples + 1)
    tails = [
        binom.pmf(differing, samples, one)
        @ binom.cdf((differing + worse - better) // 2, differing, (one + epsilon) / (2 * one))
        for one in np.linspace(epsilon, most, bounds.GRID)
    ]
    found = bounds.exact_p_value(worse, better, samples, epsilon, DELTA)
    assert max(tails) + spent < found <= max(tails) + spent + 2 * bounds.ROUNDING


def test_the_upper_limit_of_a_share_is_that_of_clopper_and_pearson() -> None:
    assert bounds.upper_share(0, 100, 0.05) == pytest.approx(1 - 0.05**0.01, abs=1e-12)
    assert bounds.upper_share(5, 100, 0.025) == pytest.approx(0.11284, abs=1e-4)
    assert bounds.upper_share(100, 100, 0.05) == 1.0
    for count, samples, level in ((1, 2, 0.5), (3, 40, 0.0005), (700, 9_000, 0.0025)):
        limit = bounds.upper_share(count, samples, level)
        assert binom.cdf(count, samples, limit) == pytest.approx(level, rel=1e-6)


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
        bet = bounds.planned_bet(0.0, 0.3, 300, EPSILON, DELTA)
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
    bet = bounds.planned_bet(planned, 0.2, 100, epsilon, DELTA)
    p_value = bounds.betting_p_value(np.array(losses), np.ones(len(losses)), epsilon, bet)
    assert 0.0 < p_value <= 1.0


# --- certificates ------------------------------------------------------------------------------


def test_evidence_that_tells_much_is_certified_and_saves() -> None:
    certificate = run(drawn(1, 800), drawn(2, 1200)).certificate
    assert certificate.certified
    assert certificate.loss <= certificate.bound <= EPSILON
    assert certificate.saving > 0.5
    assert certificate.method == EXACT
    assert sum(certificate.tier_shares) == pytest.approx(1.0)
    assert certificate.tier_shares[-1] == certificate.escalation_rate
    assert certificate.pairs_missing == 0


def test_graded_or_unevenly_drawn_evidence_takes_the_betting_test() -> None:
    graded = run(drawn(1, 800, graded=True), drawn(2, 1200, graded=True)).certificate
    uneven = run(
        drawn(1, 800, propensities=(0.05, 0.1)), drawn(2, 1500, propensities=(0.05, 0.1))
    ).certificate
    assert graded.method == uneven.method == BETTING
    assert graded.certified
    assert uneven.certified


def test_a_certificate_uses_most_of_what_may_be_lost() -> None:
    found = [run(drawn(2 * one, 300), drawn(2 * one + 1, 600)).certificate for one in range(8)]
    assert all(one.certified for one in found)
    assert sum(one.bound for one in found) / len(found) > 0.6 * EPSILON


@pytest.mark.parametrize("signal", [0.0, 0.4])
def test_certificates_are_wrong_no_more_often_than_told(signal: float) -> None:
    """The truth is read off a large sample of the same traffic."""
    truth = EvidenceTable.of(drawn(10_000, 20_000, worse=0.12, better=0.04, signal=signal))
    wrong, runs = 0, 40
    for seed in range(runs):
        fit = drawn(2 * seed, 200, worse=0.12, better=0.04, signal=signal)
        certify = drawn(2 * seed + 1, 400, worse=0.12, better=0.04, signal=signal)
        certificate = run(fit, certify).certificate
        loss = float(outcome(truth, certificate.thresholds, 0.0).losses.mean())
        wrong += certificate.certified and loss > EPSILON
    assert wrong / runs <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / runs)


def test_too_little_evidence_keeps_the_top_tier_and_says_how_much_is_missing() -> None:
    for fit, certify in (([], []), (drawn(1, 20), drawn(2, 30)), (drawn(1, 300), drawn(2, 30))):
        certificate = run(fit, certify).certificate
        assert not certificate.certified
        assert certificate.thresholds == Thresholds.safe(2)
        assert certificate.escalation_rate == 1.0
        assert certificate.pairs_missing is not None
        assert certificate.pairs_missing > 0


def test_so_many_pairs_as_were_missing_are_mostly_enough() -> None:
    missing = run(drawn(1, 120), drawn(2, 30)).certificate.pairs_missing
    assert missing is not None
    total = 150 + missing
    certified = sum(
        run(drawn(2 * seed, total // 5 * 4), drawn(2 * seed + 1, total // 5)).certificate.certified
        for seed in range(10)
    )
    assert certified >= 6


def test_a_lower_tier_that_only_harms_is_never_certified() -> None:
    hopeless = drawn(1, 400, worse=0.9, better=0.0, signal=0.0)
    found = run(hopeless, drawn(2, 800, worse=0.9, better=0.0, signal=0.0))
    assert not found.certificate.certified
    assert found.certificate.pairs_missing is None or found.certificate.pairs_missing > 0
    assert pairs_missing([], 400, 800, EPSILON, DELTA, exact=True) is None


def test_a_tier_that_costs_as_much_as_the_top_saves_nothing_and_is_not_used() -> None:
    def dear(pairs: list[Pair]) -> list[Pair]:
        return [replace(pair, costs=(10.0, 10.0)) for pair in pairs]

    assert not run(dear(drawn(1, 400)), dear(drawn(2, 800))).certificate.certified


def test_a_ladder_of_three_is_calibrated_jointly() -> None:
    def three(seed: int, count: int) -> list[Pair]:
        one, two = drawn(seed, count, worse=0.3), drawn(seed + 100, count, worse=0.05)
        return [
            Pair(
                gains=(low.gains[0], middle.gains[0]),
                certainties=(low.certainties[0], middle.certainties[0]),
                qualities=(low.qualities[0], middle.qualities[0], 1.0),
                costs=(1.0, 3.0, 20.0),
            )
            for low, middle in zip(one, two, strict=True)
        ]

    certificate = run(three(1, 600), three(2, 1200), tiers=3).certificate
    assert certificate.certified
    assert len(certificate.thresholds.rungs) == 2
    assert all(share > 0.02 for share in certificate.tier_shares[:2])
    assert certificate.saving > 0.6


@pytest.mark.parametrize(
    "setting", [{"epsilon": 0.0}, {"epsilon": 1.0}, {"delta": 0.0}, {"delta": math.nan}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    settings = {"epsilon": EPSILON, "delta": DELTA, **setting}
    with pytest.raises(ValueError, match="must be in"):
        calibrate([], [], tiers=2, measure=Measure.MEAN, shadow_share=0.05, **settings)
    with pytest.raises(ValueError, match="shadow_share"):
        calibrate([], [], tiers=2, measure=Measure.MEAN, shadow_share=1.5, epsilon=0.1, delta=0.1)
