"""Whether certificates hold, and what they say where there is none."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.router.calibrate.cascade import EvidenceTable, outcome
from services.router.calibrate.certification import (
    BETTING,
    EXACT,
    Calibration,
    calibrate,
    pairs_missing,
)
from services.router.calibrate.spending import level
from services.router.policy.calibration import Pair, Thresholds
from services.router.policy.certainty import Measure
from tests.making.drawn import drawn

EPSILON, DELTA = 0.05, 0.1


def run(
    fit: list[Pair],
    certify: list[Pair],
    epsilon: float = EPSILON,
    tiers: int = 2,
    **settings: Any,
) -> Calibration:
    return calibrate(
        fit,
        certify,
        tiers=tiers,
        epsilon=epsilon,
        delta=DELTA,
        measure=Measure.MEAN,
        shadow_share=0.05,
        **settings,
    )


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
        drawn(1, 800, propensities=(0.05, 0.1)),
        drawn(2, 1500, propensities=(0.05, 0.1)),
        lowest_propensity=0.05,
    ).certificate
    assert graded.method == uneven.method == BETTING
    assert graded.certified
    assert uneven.certified


def strata(seed: int, count: int, lossy: float) -> list[Pair]:
    """Four requests in ten always lose, and are drawn with this propensity; the others are not."""
    random = np.random.default_rng(seed)
    chances = np.array([0.6 * 0.1, 0.4 * lossy])
    kinds = random.choice(2, count, p=chances / chances.sum())
    return [
        Pair(
            gains=(None,),
            certainties=(-0.1,),
            qualities=(1.0 - kind, 1.0),
            costs=(1.0, 10.0),
            propensity=(0.1, lossy)[kind],
        )
        for kind in kinds.tolist()
    ]


def test_what_was_drawn_too_rarely_to_be_seen_is_not_taken_for_none() -> None:
    """Of 1,500 pairs hardly one shows the four requests in ten that lose everything."""
    certified = 0
    for seed in range(20):
        fit, certify = strata(2 * seed, 500, 5e-5), strata(2 * seed + 1, 1000, 5e-5)
        assert sum(pair.propensity < 0.1 for pair in (*fit, *certify)) < 5
        seen = [pair for pair in certify if pair.propensity == 0.1]
        found = run(fit[:1] * 500, seen, lowest_propensity=5e-5).certificate
        assert found.method == BETTING
        certified += found.certified
        assert run(fit[:1] * 500, seen).certificate.certified  # where all were drawn alike
    assert certified == 0


def test_propensities_that_differ_need_the_lowest() -> None:
    fit, certify = drawn(1, 200, propensities=(0.05, 0.1)), drawn(2, 200, propensities=(0.05, 0.1))
    with pytest.raises(ValueError, match="propensities differ: the lowest must be said"):
        run(fit, certify)
    with pytest.raises(ValueError, match=r"a propensity is below 0\.06, 0\.05"):
        run(fit, certify, lowest_propensity=0.06)


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


def test_a_later_look_is_granted_less_and_misses_more_pairs() -> None:
    first, third = (run(drawn(1, 300), drawn(2, 200), look=look).certificate for look in (1, 3))
    assert (first.level, third.level) == (level(DELTA, 1), level(DELTA, 3))
    assert first.delta == third.delta == DELTA
    few = [run(drawn(1, 120), drawn(2, 30), look=look).certificate.pairs_missing for look in (1, 3)]
    assert few[0] is not None
    assert few[1] is not None
    assert few[0] < few[1]
