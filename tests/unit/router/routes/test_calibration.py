"""A route takes the calibration that was made for what it is now, and refuses every other."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.config import ConfigError
from services.router.policy.calibration import SKIPPED, Rung
from services.router.policy.certainty import Measure
from services.router.policy.difficulty import FEATURES_VERSION
from services.router.policy.routes import Calibrated, Quality
from services.router.routes.artefact import Data, Model
from services.router.routes.artefact_file import read
from services.router.routes.artefact_form import FORM
from services.router.routes.calibration import misfits
from tests.making.policies import calibrated
from tests.making.policy_folder import LADDERED, MODELS, Files

SURE = Rung(1.0, -0.5)
ANY = Rung(1.0, None)
REMEDY = "; calibrate again, or remove the file"

TOKENS = LADDERED.replace(
    "quality: {tolerance: 0.02}", "quality: {tolerance: 0.02, hold: tokens, first_tokens: 4}"
)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def loaded(files: Files, routes: str = LADDERED) -> Calibrated | None:
    quality = files.load(routes).routes["plain"].quality
    assert quality is not None
    return quality.calibration


def refused(files: Files, routes: str = LADDERED) -> str:
    """The one problem, without the place and the file."""
    with pytest.raises(ConfigError) as caught:
        files.load(routes)
    (problem,) = caught.value.problems
    path = files.routes.parent / "calibration/plain.json"
    place, _, said = problem.partition(f"{path}: ")
    assert place == "line 43: routes.plain.quality.calibration: "
    assert said.endswith(REMEDY)
    return said.removesuffix(REMEDY)


def test_a_calibration_is_taken_as_it_was_certified(files: Files) -> None:
    files.calibrate("plain", SURE)
    found = loaded(files)
    made = calibrated(SURE)
    assert found is not None
    assert (found.judgement, found.certificate) == (made.judgement, made.certificate)
    assert found.bands == made.bands
    assert found.version.startswith("2026-11-01T00:00:00Z-")


def test_what_its_judge_saw_is_taken_where_that_speaks_other_terms(files: Files) -> None:
    files.calibrate("plain", SURE)
    same = loaded(files)
    assert same is not None
    assert (same.level, same.spare) == (None, None)
    files.calibrate("plain", SURE, watched_loss=0.06, spare=0.0)
    other = loaded(files)
    assert other is not None
    assert (other.level, other.spare) == (0.06, 0.0)


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("2026-11-28T15:42:19.123Z", 1795880539.123),
        ("2026-11-28T16:42:19.123+01:00", 1795880539.123),
        ("2026-11-28T15:42:19.123", 1795880539.123),
        ("", -math.inf),
    ],
)
def test_how_young_its_evidence_is_is_known(files: Files, until: str, seconds: float) -> None:
    files.calibrate("plain", SURE, data=Data("test", "", until, 3000, {}, "micro_usd"))
    found = loaded(files)
    assert found is not None
    assert found.until == seconds


def test_policies_with_another_calibration_are_another_version(files: Files) -> None:
    versions = [files.load(LADDERED).version]
    files.calibrate("plain", SURE)
    versions.append(files.load(LADDERED).version)
    files.calibrate("plain", Rung(1.0, -0.6))
    versions.append(files.load(LADDERED).version)
    files.calibrate("plain", SURE)
    assert files.load(LADDERED).version == versions[1]
    assert len(set(versions)) == 3


@settings(max_examples=40)
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_one_that_was_cut_off_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    files = Files(tmp_path_factory.mktemp("cut"))
    path = files.calibrate("plain", SURE)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert refused(files).startswith("no JSON, perhaps cut off: ")


def test_one_that_was_changed_is_refused(files: Files) -> None:
    path = files.calibrate("plain", SURE)
    path.write_text(path.read_text().replace("-0.5", "-5.0"))
    assert refused(files) == "checksum: does not match: the file was changed or damaged"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "something.else"}, "kind: must be 'pennyweight.calibration'"),
        ({"form": FORM + 1}, f"form: this build reads {FORM}, got {FORM + 1}"),
        (
            {"features_version": FEATURES_VERSION + 1},
            f"features_version: this build reads {FEATURES_VERSION}, got {FEATURES_VERSION + 1}",
        ),
    ],
)
def test_one_of_another_form_is_refused(files: Files, change: dict[str, Any], said: str) -> None:
    path = files.calibrate("plain", SURE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert refused(files).startswith(said)


def test_one_of_another_route_is_refused(files: Files) -> None:
    path = files.calibrate("good", SURE)
    path.rename(path.with_name("plain.json"))
    assert "is for route good, not plain" in refused(files)


@pytest.mark.parametrize(
    "ladder",
    [
        (Model("small", "older", "int8"), MODELS[1]),
        (Model("small", "small", "int4"), MODELS[1]),
        (Model("small", "small", "int8", "v1"), MODELS[1]),
        (Model("tiny", "small", "int8"), MODELS[1]),
        (MODELS[0], Model("large", "larger", "fp8")),
    ],
)
def test_one_for_other_models_is_refused(files: Files, ladder: tuple[Model, ...]) -> None:
    files.calibrate("plain", SURE, ladder=ladder)
    assert "was calibrated for " in refused(files)


def test_one_for_a_longer_ladder_is_refused(files: Files) -> None:
    ladder = (*MODELS, Model("huge", "huge", "fp8"))
    files.calibrate("plain", SURE, SURE, ladder=ladder)
    assert "is for 3 tiers, plain has 2" in refused(files)


def test_one_that_promises_less_than_the_route_asks_for_is_refused(files: Files) -> None:
    files.calibrate("plain", SURE)  # 2 points, wrong with a probability of 5 %
    stricter = LADDERED.replace("tolerance: 0.02", "tolerance: 0.015")
    assert refused(files, stricter) == (
        "certificate: allows a loss of 0.02, the route's tolerance is 0.015"
    )
    surer = LADDERED.replace("tolerance: 0.02", "tolerance: 0.02, confidence: 0.99")
    assert refused(files, surer) == (
        "certificate: may be wrong with probability 0.05, the route's confidence is 0.99"
    )


@pytest.mark.parametrize("confidence", [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_one_that_promises_just_what_the_route_asks_for_is_taken(
    files: Files, confidence: float
) -> None:
    made = calibrated(SURE)
    certificate = replace(made.certificate, delta=round(1.0 - confidence, 6))
    files.calibrate("plain", calibration=replace(made, certificate=certificate))
    routes = LADDERED.replace("tolerance: 0.02", f"tolerance: 0.02, confidence: {confidence}")
    assert loaded(files, routes) is not None


def test_one_without_a_certificate_is_taken_if_it_sends_all_to_the_top(files: Files) -> None:
    made = calibrated(SKIPPED)
    nothing = replace(made.certificate, certified=False, epsilon=0.5)
    files.calibrate("plain", calibration=replace(made, certificate=nothing))
    assert loaded(files) is not None


def test_one_without_a_certificate_that_lets_lower_tiers_answer_is_refused(files: Files) -> None:
    made = calibrated(SURE)
    nothing = replace(made.certificate, certified=False)
    files.calibrate("plain", calibration=replace(made, certificate=nothing))
    assert refused(files) == "certificate: nothing was certified, yet lower tiers may answer"


def test_a_route_that_streams_after_some_tokens_can_look_at_those_alone(files: Files) -> None:
    files.calibrate("plain", SURE, measure=Measure.MEAN)
    assert refused(files, TOKENS).startswith("thresholds: compare mean, which needs the whole")
    files.calibrate("plain", ANY, measure=Measure.MEAN)  # nothing is compared
    assert loaded(files, TOKENS) is not None
    files.calibrate("plain", SURE, measure=Measure.FIRST_K)
    assert loaded(files, TOKENS) is not None


def test_one_that_looks_at_another_number_of_tokens_is_refused(files: Files) -> None:
    files.calibrate("plain", SURE, measure=Measure.FIRST_K)
    longer = TOKENS.replace("first_tokens: 4", "first_tokens: 5")
    assert refused(files, longer) == (
        "thresholds: compare the first 4 tokens, the route's first_tokens is 5"
    )
    assert refused(files, longer.replace("hold: tokens, ", "")).startswith("thresholds: ")
    files.calibrate("plain", ANY, measure=Measure.FIRST_K)
    assert loaded(files, longer) is not None


def test_one_that_is_no_file_is_refused(files: Files) -> None:
    (files.routes.parent / "calibration/plain.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"plain\.quality\.calibration: cannot be read: "):
        files.load(LADDERED)


@pytest.mark.parametrize(
    ("name", "serving", "asked", "said"),
    [
        ("plain", MODELS, {}, []),
        ("other", MODELS, {}, ["is for route plain, not other"]),
        ("plain", MODELS[:1], {}, ["for 2 tiers, plain has 1: small < large, not small"]),
        ("plain", MODELS[::-1], {}, ["calibrated for small", "calibrated for large"]),
        (
            "plain",
            (replace(MODELS[0], version="2"), MODELS[1]),
            {"tolerance": 0.01, "confidence": 0.99},
            ["plain now has small (small int8 version 2)", "loss of 0.02", "probability 0.05"],
        ),
    ],
)
def test_all_that_keeps_a_route_from_a_calibration_is_named(
    files: Files, name: str, serving: tuple[Model, ...], asked: dict[str, float], said: list[str]
) -> None:
    artefact = read(files.calibrate("plain", SURE))
    found = list(misfits(artefact, name, serving, Quality(**{"tolerance": 0.02, **asked})))
    assert len(found) == len(said)
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence


def test_every_calibration_that_is_wrong_is_named(files: Files) -> None:
    for route in ("good", "plain"):
        files.calibrate(route, SURE).write_text("{")
    with pytest.raises(ConfigError) as caught:
        files.load(LADDERED)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "routes.good.quality.calibration",
        "routes.plain.quality.calibration",
    ]
