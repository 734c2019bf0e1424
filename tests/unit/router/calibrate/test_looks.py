"""Looks at a route's evidence are counted, and each may risk less than the one before."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from services.router.calibrate.certification import calibrate
from services.router.calibrate.evidence import BadEvidence
from services.router.calibrate.looks import (
    Look,
    file_of,
    keep,
    look_of,
    looks_in,
    moment,
    numbered,
)
from services.router.calibrate.process import Settings
from services.router.calibrate.spending import level
from services.router.policy.calibration import SKIPPED, Pair, Rung
from services.router.policy.certainty import Measure
from tests.making.calibrations import write_calibration
from tests.unit.router.calibrate.test_questions import record

SETTINGS = Settings(epsilon=0.02, delta=0.05)
LADDER = ("small", "large")
LOOK = Look(1, LADDER, "a", "2026-11-01T00:00:00Z", "2026-11-08T00:00:00.500Z", 0.02, 0.05)


def test_all_looks_together_take_no_more_than_is_allowed_and_the_first_most_of_it() -> None:
    levels = [level(0.05, look) for look in range(1, 20_000)]
    assert levels == sorted(levels, reverse=True)
    assert 0.0499 < math.fsum(levels) < 0.05
    assert levels[0] > 0.8 * 0.05
    with pytest.raises(ValueError, match="look must be at least 1, got 0"):
        level(0.05, 0)


def test_each_look_is_another_number() -> None:
    assert numbered(LOOK, []).number == 1
    assert numbered(replace(LOOK, asked="b"), [LOOK]).number == 2
    more = [LOOK, replace(LOOK, number=2, asked="b")]
    assert numbered(replace(LOOK, asked="c"), more).number == 3


def test_the_same_again_is_no_further_look() -> None:
    more = [LOOK, replace(LOOK, number=2, asked="b")]
    assert numbered(replace(LOOK, number=0), more).number == 1


def test_other_models_are_another_claim() -> None:
    other = replace(LOOK, ladder=("small version 2", "large"), asked="b")
    assert numbered(other, [LOOK]).number == 1
    assert numbered(replace(LOOK, asked="c"), [LOOK, other]).number == 2


@pytest.mark.parametrize(
    ("before", "now", "number"),
    [
        ({"certified": True}, {}, 1),
        ({}, {}, 2),  # it failed
        ({"certified": True}, {"since": "2026-11-08T00:00:00Z"}, 2),  # some pairs are the same
        ({"certified": True}, {"since": ""}, 2),  # nobody knows
        ({"certified": True, "until": ""}, {}, 2),
        ({"certified": True, "epsilon": 0.05}, {}, 2),  # something looser was certified
        ({"certified": True, "delta": 0.1}, {}, 2),
        ({"certified": True}, {"epsilon": 0.03}, 1),
    ],
)
def test_a_certificate_lets_fresh_evidence_begin_anew(
    before: dict[str, object], now: dict[str, object], number: int
) -> None:
    fresh = replace(LOOK, asked="b", since="2026-11-08T01:00:00.600+01:00", until="2026-12-01")
    looks = [replace(LOOK, **before)]  # type: ignore[arg-type] -- by its fields' names
    assert numbered(replace(fresh, **now), looks).number == number  # type: ignore[arg-type]


def test_a_look_is_told_by_its_evidence_and_by_everything_that_is_asked() -> None:
    records = [record("1", "a"), record("2", "b")]
    window = ("", "")
    looks = [
        look_of(records, LADDER, SETTINGS, window),
        look_of(records[:1], LADDER, SETTINGS, window),
        look_of(records, LADDER, replace(SETTINGS, epsilon=0.03), window),
        look_of(records, LADDER, replace(SETTINGS, certify_share=0.5), window),
        look_of(records, LADDER, replace(SETTINGS, measures=(Measure.MEAN,)), window),
    ]
    assert len({look.asked for look in looks}) == len(looks)
    same = look_of(list(records), LADDER, replace(SETTINGS, look=3), window)
    assert same == looks[0]


# --- the file ----------------------------------------------------------------------------------


def test_looks_are_kept_beside_the_calibration(tmp_path: Path) -> None:
    artefact = tmp_path / "calibration" / "support.json"
    path = file_of(artefact)
    assert path == tmp_path / "calibration" / "support.looks.jsonl"
    assert looks_in(path, artefact) == []
    looks = [LOOK, replace(LOOK, number=2, asked="b", certified=True)]
    keep(path, looks)
    assert looks_in(path, artefact) == looks


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"number": 1}',
        json.dumps({**asdict(LOOK), "number": 0}),
        json.dumps({"number": 0, "ladder": [], "asked": "", "since": "", "until": ""}),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "support.looks.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(BadEvidence, match=r"support\.looks\.jsonl, line 1: no look"):
        looks_in(path, tmp_path / "support.json")


def test_without_the_file_a_certificate_is_a_look_that_was_taken(tmp_path: Path) -> None:
    artefact = tmp_path / "support.json"
    made = write_calibration(artefact, "support", LADDER, Rung(1.0, -0.5))
    (look,) = looks_in(file_of(artefact), artefact)
    assert (look.number, look.certified, look.epsilon) == (1, True, made.certificate.epsilon)
    assert look.ladder == tuple(map(str, made.ladder))
    nothing = replace(made.certificate, certified=False)
    judgement = replace(made.judgement, thresholds=replace(nothing.thresholds, rungs=(SKIPPED,)))
    nothing = replace(nothing, thresholds=judgement.thresholds)
    write_calibration(
        artefact, "support", LADDER, SKIPPED, certificate=nothing, judgement=judgement
    )
    assert looks_in(file_of(artefact), artefact) == []
    artefact.write_text("{")
    assert looks_in(file_of(artefact), artefact) == []


def test_times_are_compared_as_times() -> None:
    assert moment("2026-11-08T01:00:00+01:00") == moment("2026-11-08T00:00:00Z")
    assert moment("2026-11-08T00:00:00") == moment("2026-11-08T00:00:00Z")
    assert moment("yesterday") is None


# --- with known truth --------------------------------------------------------------------------


def test_eight_looks_at_growing_evidence_are_wrong_no_more_often_than_told() -> None:
    """Nothing cheaper keeps the tolerance; whoever tries eight times gets lucky much oftener."""
    delta, runs = 0.1, 60
    hopeful = [Pair((None,), (-1.0,), (1.0, 1.0), (1.0, 10.0))] * 100
    wrong = uncounted = 0
    for run in range(runs):
        random = np.random.default_rng(run)
        certify: list[Pair] = []
        lucky = counted = False
        for look in range(1, 9):
            for kind in random.random(60):
                qualities = (0.0, 1.0) if kind < 0.1 else (1.0, float(kind > 0.149))
                certify.append(Pair((None,), (-1.0,), qualities, (1.0, 10.0)))
            counted |= certified(hopeful, certify, delta, look)
            lucky |= certified(hopeful, certify, delta, 1)
        wrong += counted
        uncounted += lucky
    assert wrong / runs <= delta < 1.5 * delta < uncounted / runs


def certified(fit: list[Pair], certify: list[Pair], delta: float, look: int) -> bool:
    return calibrate(
        fit,
        certify,
        tiers=2,
        epsilon=0.05,
        delta=delta,
        measure=Measure.MEAN,
        shadow_share=0.05,
        look=look,
    ).certificate.certified
