"""``pennyweight calibrate``: what is asked, what is written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.router.calibrate.__main__ import main
from services.router.calibrate.artefact import Artefact, Model, read
from services.router.calibrate.evidence import from_labelled
from services.router.policy.certainty import Measure
from tests.unit.router.paired import LADDER, ROUTES, lines, record, write_routes

CERTIFIED, MISSING, REFUSED = 0, 3, 2

STATED = ROUTES.replace(
    "fixed_tier: small",
    "quality: {tolerance: 0.05, confidence: 0.9, hold: tokens, first_tokens: 6,"
    " evidence: {share: 0.1}}",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with a routes file, in which the command runs."""
    write_routes(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labelled(folder: Path, count: int, **changes: Any) -> list[str]:
    """Writes made-up pairs; the arguments that name them."""
    path = folder / "pairs.jsonl"
    path.write_text(lines(*(record(number, **changes) for number in range(count))))
    return ["--route", "support", "--labelled", str(path)]


def artefact(tree: Path) -> Artefact:
    return read(tree / "policies" / "calibration" / "support.json")


Said = Callable[[], tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What was printed on standard output and error, in one line each."""

    def flat() -> tuple[str, str]:
        out, err = capsys.readouterr()
        return " ".join(out.split()), " ".join(err.split())

    return flat


# --- what comes of it --------------------------------------------------------------------------


def test_three_thousand_pairs_certify_a_small_tier(tree: Path, said: Said) -> None:
    assert main([*labelled(tree, 3000), "--epsilon", "0.03"]) == CERTIFIED
    certificate = artefact(tree).certificate
    assert certificate.certified
    assert certificate.bound <= 0.03
    assert certificate.saving > 0.5
    out, err = said()
    assert "Certified." in out
    assert err == ""
    page = (tree / "policies" / "calibration" / "support.html").read_text()
    assert "<svg" in page


def test_three_thousand_pairs_of_a_hopeless_tier_certify_nothing(tree: Path, said: Said) -> None:
    assert main(labelled(tree, 3000, small_right=False)) == MISSING
    certificate = artefact(tree).certificate
    assert not certificate.certified
    assert certificate.pairs_missing is None
    assert "no cheaper thresholds keep the tolerance, however many pairs" in said()[0]


def test_fifty_pairs_are_too_few_and_it_says_how_many_are_missing(tree: Path, said: Said) -> None:
    assert main(labelled(tree, 50)) == MISSING
    found = artefact(tree)
    missing = found.certificate.pairs_missing
    assert missing is not None
    assert 100 < missing < 5000
    told = f"at least {missing:,} more pairs are needed. Until then the top tier answers every"
    assert told in said()[0]
    assert not any(rung.enters(0.0) for rung in found.judgement.thresholds.rungs)
    page = (tree / "policies" / "calibration" / "support.html").read_text()
    assert f"Not certified: at least {missing:,} more pairs are needed." in page


def test_pairs_that_are_nearly_enough_tell_about_how_many_are_missing(
    tree: Path, said: Said
) -> None:
    assert main([*labelled(tree, 300), "--epsilon", "0.01"]) == MISSING
    missing = artefact(tree).certificate.pairs_missing
    assert f"about {missing:,} more pairs are needed." in said()[0]


def test_what_is_decided_is_as_it_was_certified(tree: Path) -> None:
    """The thresholds, read back, keep the tolerance on traffic that nothing was learned from."""
    assert main([*labelled(tree, 1200), "--epsilon", "0.04"]) == CERTIFIED
    judgement = artefact(tree).judgement
    (tree / "new.jsonl").write_text(lines(*map(record, range(5000, 6000))))
    lost = saved = 0
    for one in from_labelled(tree / "new.jsonl").records:
        rung, small = judgement.thresholds.rungs[0], one.tiers[0]
        if rung.enters(judgement.gain(0, one.told)) and rung.accepts(
            judgement.certainty(0, one.told, small.certainty)
        ):
            saved += 1
            lost += one.tiers[1].quality - small.quality
    assert saved > 400
    assert lost / 1000 <= 0.04


@pytest.mark.parametrize("quality", [0.0, 1.0])
def test_a_judge_that_tells_no_answers_apart_is_pointed_out(
    quality: float, tree: Path, said: Said
) -> None:
    told = [record(number, small_right=True) for number in range(600)]
    for one in told:
        for tier in one["tiers"]:
            tier["quality"] = quality
    (tree / "pairs.jsonl").write_text(lines(*told))
    args = ["--route", "support", "--labelled", "pairs.jsonl", "--epsilon", "0.03"]
    assert main(args) == CERTIFIED
    found = artefact(tree)
    assert found.certificate.loss == 0.0
    assert found.certificate.escalation_rate < 0.1
    assert found.judgement.models[0].before is None
    out, _ = said()
    assert f"Every answer of every tier has quality {quality:g}" in out
    assert "there is nothing to learn" in out


def test_a_judge_that_tells_answers_apart_is_not(tree: Path, said: Said) -> None:
    main(labelled(tree, 300))
    assert "Every answer" not in said()[0]


# --- what is taken from the tree ---------------------------------------------------------------


def test_the_ledger_of_the_tree_is_the_default(tree: Path, said: Said) -> None:
    ledger = tree / "state" / "ledger"
    ledger.mkdir(parents=True)
    (ledger / "a.jsonl").write_text(lines(*map(record, range(120))) + '{"kind": "pair", "rou')
    assert main(["--route", "support"]) == MISSING
    assert artefact(tree).data.pairs == 120
    assert "120 from ledger" in said()[0]


def test_tolerance_confidence_hold_and_share_are_the_routes(tree: Path, said: Said) -> None:
    write_routes(tree, STATED)
    assert main(labelled(tree, 1500)) == CERTIFIED
    found = artefact(tree)
    certificate, judgement = found.certificate, found.judgement
    assert (certificate.epsilon, certificate.delta, certificate.shadow_share) == (0.05, 0.1, 0.1)
    assert (judgement.thresholds.measure, judgement.first_k) == (Measure.FIRST_K, 6)
    assert "Routers will not use it" not in said()[0]


def test_the_command_line_goes_before_the_routes_file(tree: Path, said: Said) -> None:
    write_routes(tree, STATED)
    options = ["--epsilon", "0.07", "--delta", "0.2", "--shadow", "0.02"]
    options += ["--measure", "mean", "--first-k", "4"]
    assert main([*labelled(tree, 1500), *options]) == CERTIFIED
    found = artefact(tree)
    certificate = found.certificate
    assert (certificate.epsilon, certificate.delta, certificate.shadow_share) == (0.07, 0.2, 0.02)
    assert (found.judgement.thresholds.measure, found.judgement.first_k) == (Measure.MEAN, 4)
    out, _ = said()
    assert "Routers will not use it as the routes file stands" in out
    assert "It allows a loss of 0.07; the route's tolerance is 0.05." in out
    assert "It is wrong with probability 0.2; the route allows 0.1." in out
    assert "It compares mean; of the route's first tokens there is first_k alone." in out


def test_other_first_tokens_than_the_routes_are_pointed_out(tree: Path, said: Said) -> None:
    write_routes(tree, STATED)
    assert main([*labelled(tree, 1500), "--first-k", "4"]) == CERTIFIED
    assert "It compares 4 tokens; the route's first_tokens is 6." in said()[0]


def test_a_route_that_states_no_quality_gets_the_defaults_and_is_told(
    tree: Path, said: Said
) -> None:
    main(labelled(tree, 50))
    certificate = artefact(tree).certificate
    assert (certificate.epsilon, certificate.delta) == (0.02, 0.05)
    assert "states no quality of support: defaults were taken" in said()[0]


def test_the_routes_own_file_is_written(tree: Path) -> None:
    text = STATED.replace("tolerance:", "calibration: made/for-support.json, tolerance:")
    write_routes(tree, text)
    main(labelled(tree, 50))
    assert read(tree / "policies" / "made" / "for-support.json").route == "support"
    assert (tree / "policies" / "made" / "for-support.html").exists()


def test_a_folder_can_be_named(tree: Path) -> None:
    main([*labelled(tree, 50), "--out", str(tree / "elsewhere")])
    assert read(tree / "elsewhere" / "support.json").route == "support"
    assert not (tree / "policies" / "calibration").exists()


# --- the models it is for ----------------------------------------------------------------------


def with_version(number: int, version: str) -> dict[str, Any]:
    told = record(number)
    told["tiers"][0]["version"] = version
    return told


def test_the_models_are_those_that_the_evidence_names(tree: Path, said: Said) -> None:
    write_routes(tree, STATED.replace("model: tiny,", "model: tiny, version: '8',"))
    (tree / "pairs.jsonl").write_text(lines(*(with_version(one, "7") for one in range(60))))
    main(["--route", "support", "--labelled", "pairs.jsonl"])
    assert artefact(tree).ladder == (Model("small", "tiny", "int8", "7"), LADDER[1])
    out, _ = said()
    assert "It is for small (tiny int8 version 7); the routes file now has small" in out


def test_pairs_that_name_no_models_are_of_those_that_serve_now(tree: Path) -> None:
    write_routes(tree, STATED.replace("model: tiny,", "model: tiny, version: '8',"))
    told = [record(number) for number in range(60)]
    for one in told:
        for tier in one["tiers"]:
            del tier["model"], tier["precision"]
    (tree / "pairs.jsonl").write_text(lines(*told))
    main(["--route", "support", "--labelled", "pairs.jsonl"])
    assert artefact(tree).ladder == (Model("small", "tiny", "int8", "8"), LADDER[1])


def test_the_routes_ladder_picks_the_tiers_of_a_pair(tree: Path, said: Said) -> None:
    told = [record(number) for number in range(60)]
    for one in told:
        one["tiers"].insert(1, {**one["tiers"][0], "tier": "medium", "model": "m"})
    (tree / "pairs.jsonl").write_text(lines(*told))
    args = ["--route", "support", "--labelled", "pairs.jsonl"]
    assert main(args) == MISSING
    assert artefact(tree).ladder == LADDER

    medium = "medium: {model: m, precision: int8, tokenizer: t, max_sequence_tokens: 512}"
    text = STATED.replace("  large: {", f"  {medium}\n  large: {{")
    write_routes(tree, text.replace("[small, large]", "[small, medium, large]"))
    assert main([*args, "--ladder", "small,large"]) == MISSING
    assert artefact(tree).ladder == LADDER
    assert "It is for the ladder small < large; the route's is small < medium" in said()[0]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (["--epsilon", "0"], "epsilon must be in (0, 1)"),
        (["--epsilon", "nan"], "epsilon must be in (0, 1)"),
        (["--delta", "1"], "delta must be in (0, 1)"),
        (["--certify-share", "1"], "certify_share must be in (0, 1)"),
        (["--shadow", "2"], "shadow_share must be in [0, 1]"),
        (["--first-k", "0"], "first_k must be at least 1"),
        (["--ladder", "small"], "--ladder: must be at least two of small, large, got 'small'"),
        (["--ladder", "small,huge"], "--ladder: must be at least two of small, large"),
        (["--ladder", "small,small"], "--ladder: must be at least two of small, large"),
        (["--route", "suport"], "has no route 'suport'; it has support"),
        (["--routes-file", "nowhere.yaml"], "--routes-file: nowhere.yaml: cannot be read"),
        (["--labelled", "nowhere.jsonl"], "--labelled: nowhere.jsonl cannot be read"),
        (["--labelled", "policies"], "--labelled: policies cannot be read"),
        (["--out", "pairs.jsonl"], "--out: pairs.jsonl/support.json cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    option: list[str], rule: str, tree: Path, said: Said
) -> None:
    assert main([*labelled(tree, 200), *option]) == REFUSED
    out, err = said()
    assert out == ""
    assert err.startswith("refused: ")
    assert rule in err
    assert not (tree / "policies" / "calibration").exists()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "pairs.jsonl holds no pairs"),
        ("\n\n", "pairs.jsonl holds no pairs"),
        (lines(record(1)) + '{"kind": "pa', "pairs.jsonl, line 2: no JSON"),
        ("[1]\n", "pairs.jsonl, line 1: must be a JSON object"),
        (
            lines(record(1)).replace('"micro_usd": 100', '"micro_usd": 0'),
            "--cost: no pair says what large cost in micro_usd",
        ),
        ('{"text": "a"}\n', "no pair of support can be used (1: fewer than two tiers)"),
        (
            lines(record(1), record(2)).replace('"quality": 1.0', '"quality": null'),
            "no pair of support can be used (2: not judged)",
        ),
    ],
)
def test_a_file_without_pairs_is_refused_in_a_sentence(
    text: str, rule: str, tree: Path, said: Said
) -> None:
    (tree / "pairs.jsonl").write_text(text)
    assert main(["--route", "support", "--labelled", "pairs.jsonl"]) == REFUSED
    assert rule in said()[1]


def test_a_tree_without_pairs_is_refused_in_a_sentence(tree: Path, said: Said) -> None:
    assert main(["--route", "support"]) == REFUSED
    assert "--ledger: state/ledger holds no *.jsonl files" in said()[1]
    ledger = tree / "state" / "ledger"
    ledger.mkdir(parents=True)
    (ledger / "a.jsonl").write_text(json.dumps({"kind": "request", "route": "support"}) + "\n")
    assert main(["--route", "support"]) == REFUSED
    assert "state/ledger holds no pairs of route support" in said()[1]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("routes: [", "not valid YAML"),
        (ROUTES.replace("[small, large]", "[small, huge]"), "support: ladder: no tier 'huge'"),
        (ROUTES.replace("[small, large]", "[small]"), "support has no tiers to choose from"),
        (STATED.replace("0.05", "5"), "routes.support.quality.tolerance"),
    ],
)
def test_a_routes_file_that_cannot_be_used_is_refused(
    text: str, rule: str, tree: Path, said: Said
) -> None:
    write_routes(tree, text)
    assert main(labelled(tree, 10)) == REFUSED
    assert rule in said()[1]


def test_a_ledger_and_a_file_exclude_each_other(tree: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*labelled(tree, 1), "--ledger", "state/ledger"])
    assert ended.value.code == REFUSED
