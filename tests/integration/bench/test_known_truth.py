"""The rules that certificates are measured beside, on populations whose truth is plain."""

import numpy as np
import pytest

from bench.baselines import gate, ucci
from bench.known_truth import Asked, best_cost, drawn, harder
from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.process import Settings
from services.router.policy.certainty import Certainty
from services.router.policy.difficulty import Signals, features
from services.router.routes.artefact import Model

SETTINGS = Settings(epsilon=0.02, delta=0.05, shadow_share=0.0, cost="engine_ms")
HARD = 0.1
"""Share of the questions that the small model answers wrongly, and is unsure of."""


def population(count: int, hard: float = HARD) -> list[Record]:
    """Every so manieth question is hard: its words, and the small model's certainty, say so."""
    models = [Model(name, name, "int8") for name in ("small", "large")]
    records = []
    for number in range(count):
        easy = number % 100 >= 100 * hard
        sure = -0.1 - number / count / 100 if easy else -2.0 - number / count
        text = f"where is my card number {number}" if easy else f"why was this refused {number}"
        tiers = (
            TierResult(models[0], float(easy), Certainty(sure, sure, sure), 0.0, 1.0),
            TierResult(models[1], 1.0, None, 0.0, 10.0),
        )
        records.append(Record(str(number), "", features(text, Signals()), 1.0, tiers))
    return records


def test_the_best_thresholds_lose_all_that_is_allowed_and_no_more() -> None:
    records = population(1000)
    # Nine tenths stand, and two hundredths that are wrong; the rest runs on both.
    assert best_cost(records, 0.02, SETTINGS) == pytest.approx((0.92 * 1 + 0.08 * 11) / 10)
    assert best_cost(records, HARD, SETTINGS) == pytest.approx(0.1)  # the small one for all


def test_what_costs_nothing_to_know_is_not_beaten_by_asking_both() -> None:
    assert best_cost(population(100, hard=1.0), 0.0, SETTINGS) == pytest.approx(1.0)


def test_harder_questions_come_three_times_as_often() -> None:
    records = population(1000)
    assert len(harder(records)) == 1000 + 2 * 100


def test_the_isotonic_map_finds_where_the_small_model_fails() -> None:
    records = population(1000)
    chosen = ucci(records[::2], records[1::2], 0.01)
    stands = chosen.stands(records)
    wrong = np.array([one.tiers[0].quality == 0.0 for one in records])
    assert (chosen.found, chosen.asks_first) == (True, True)
    assert stands[~wrong].all()
    assert stands[wrong].mean() < 0.2
    assert not ucci(population(300, 1.0), population(300, 1.0), 0.01).found


def test_the_gate_finds_them_by_the_question_alone_where_there_is_enough() -> None:
    records = population(2000)
    chosen = gate(records[::2], records[1::2], 0.01, 0.05)
    stands = chosen.stands(records)
    wrong = np.array([one.tiers[0].quality == 0.0 for one in records])
    assert (chosen.found, chosen.asks_first) == (True, False)
    assert not stands[wrong].any()
    assert stands.mean() > 0.5
    # Of 200 questions not even 200 right ones show that less than 1 in 100 fails.
    assert not gate(records[::2], records[1:400:2], 0.01, 0.05).found


def test_every_way_is_judged_on_the_population_itself() -> None:
    records = population(600)
    found = drawn(Asked(records, (0.02,), SETTINGS, 200, 400), seed=1)
    assert {way for way, _ in found} == {"ours", "UCCI", "C.-P. gate"}
    for truth in found.values():
        assert truth.certified or (truth.loss == 0.0)
        assert 0.1 <= truth.cost <= 1.1
