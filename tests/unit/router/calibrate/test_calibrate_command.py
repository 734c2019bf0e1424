"""``pennyweight calibrate``: what is asked, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.router.calibrate.__main__ import main
from services.router.calibrate.cascade import outcome, table_of
from services.router.calibrate.labelled import from_labelled
from services.router.policy.certainty import Measure
from services.router.routes.artefact import Artefact, Model
from services.router.routes.artefact_file import read
from tests.making.paired import LADDER, STATED, labelled, lines, record, write_routes

CERTIFIED, REFUSED, MISSING = 0, 2, 3

Said = Callable[[], tuple[str, str]]


def artefact(tree: Path) -> Artefact:
    return read(tree / "policies" / "calibration" / "support.json")


# --- what comes of it --------------------------------------------------------------------------


def test_three_thousand_pairs_certify_a_small_tier(tree: Path, said: Said) -> None:
    assert main([*labelled(tree, 3000), "--tolerance", "0.03"]) == CERTIFIED
    certificate = artefact(tree).certificate
    assert certificate.certified
    assert certificate.bound <= 0.03
    assert certificate.saving > 0.5
    out, err = said()
    assert "Certified." in out
    assert err == ""
    page = (tree / "policies" / "calibration" / "support.html").read_text()
    assert "<svg" in page


def test_the_same_evidence_again_leaves_the_calibration_as_it_is(tree: Path, said: Said) -> None:
    path = tree / "policies" / "calibration" / "support.json"
    asked = [*labelled(tree, 600), "--tolerance", "0.03"]
    ended = main(asked)
    before = json.loads(path.read_text())
    assert "stays as it is" not in said()[0]
    path.write_text(json.dumps(before))  # other bytes that say the same: they must not be replaced
    bytes_before = path.read_bytes()
    assert main(asked) == ended
    assert path.read_bytes() == bytes_before
    assert "of the same evidence: it stays as it is" in " ".join(said()[0].split())
    main([*labelled(tree, 601), "--tolerance", "0.03"])
    assert json.loads(path.read_text())["data"]["pairs"] != before["data"]["pairs"]


def test_three_thousand_pairs_of_a_hopeless_tier_certify_nothing(tree: Path, said: Said) -> None:
    assert main(labelled(tree, 3000, small_right=False)) == MISSING
    certificate = artefact(tree).certificate
    assert not certificate.certified
    assert certificate.pairs_missing is None
    assert "no thresholds keep the tolerance and save anything" in said()[0]


def test_fifty_pairs_are_too_few_and_it_says_how_many_are_missing(tree: Path, said: Said) -> None:
    assert main(labelled(tree, 50)) == MISSING
    found = artefact(tree)
    missing = found.certificate.pairs_missing
    assert missing is not None
    assert 100 < missing < 5000
    note = f"at least {missing:,} more pairs are needed. Until then the top tier answers every"
    assert note in said()[0]
    assert not any(rung.enters(0.0) for rung in found.judgement.thresholds.rungs)
    page = (tree / "policies" / "calibration" / "support.html").read_text()
    assert f"Not certified: at least {missing:,} more pairs are needed." in page


def test_pairs_that_are_nearly_enough_tell_about_how_many_are_missing(
    tree: Path, said: Said
) -> None:
    assert main([*labelled(tree, 300), "--tolerance", "0.01"]) == MISSING
    missing = artefact(tree).certificate.pairs_missing
    out, _ = said()
    assert f"about {missing:,} more pairs are needed." in out
    assert "This was look 1 at this evidence. The next one may take 10.4% of the risk" in out


def test_repeats_are_counted_and_add_nothing(tree: Path, said: Said) -> None:
    """Three pairs of each question are no more than one."""
    copies = [{**record(at), "request_id": f"{at} {copy}"} for at in range(120) for copy in "abc"]
    (tree / "pairs.jsonl").write_text(lines(*copies))
    assert main(["--route", "support", "--labelled", "pairs.jsonl"]) == MISSING
    found = artefact(tree)
    assert (found.data.pairs, found.data.repeats) == (360, 240)
    assert found.certificate.n_fit + found.certificate.n_certify == 120
    out, _ = said()
    assert "240 pairs ask what an older one had asked" in out
    missing = found.certificate.pairs_missing
    assert f"at least {missing:,} more pairs of further questions are needed." in out
    page = (tree / "policies" / "calibration" / "support.html").read_text()
    assert "240 pairs repeat a question" in page


def test_what_is_decided_is_as_it_was_certified(tree: Path) -> None:
    """The thresholds, read back, keep the tolerance on traffic that nothing was learned from."""
    assert main([*labelled(tree, 1200), "--tolerance", "0.04"]) == CERTIFIED
    judgement = artefact(tree).judgement
    (tree / "new.jsonl").write_text(lines(*map(record, range(5000, 6000))))
    evidence = table_of(judgement, from_labelled(tree / "new.jsonl").records)
    seen = outcome(evidence, judgement.thresholds, 0.0)
    assert (seen.answered == 0).sum() > 400
    assert seen.losses.mean() <= 0.04


@pytest.mark.parametrize("quality", [0.0, 1.0])
def test_a_judge_that_tells_no_answers_apart_is_pointed_out(
    quality: float, tree: Path, said: Said
) -> None:
    pairs = [record(number, small_right=True) for number in range(600)]
    for pair in pairs:
        for tier in pair["tiers"]:
            tier["quality"] = quality
    (tree / "pairs.jsonl").write_text(lines(*pairs))
    args = ["--route", "support", "--labelled", "pairs.jsonl", "--tolerance", "0.03"]
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


def test_labels_do_not_tell_how_often_the_routes_judge_finds_answers_worse(tree: Path) -> None:
    main(labelled(tree, 300))
    assert artefact(tree).spare is None
    ledger = tree / "state" / "ledger"
    ledger.mkdir(parents=True)
    (ledger / "a.jsonl").write_text(lines(*map(record, range(300))))
    main(["--route", "support"])
    assert artefact(tree).spare is not None


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
    options = ["--tolerance", "0.07", "--confidence", "0.8", "--evidence-share", "0.02"]
    options += ["--measure", "mean", "--first-tokens", "4"]
    assert main([*labelled(tree, 1500), *options]) == CERTIFIED
    found = artefact(tree)
    certificate = found.certificate
    assert (certificate.epsilon, certificate.delta, certificate.shadow_share) == (0.07, 0.2, 0.02)
    assert (found.judgement.thresholds.measure, found.judgement.first_k) == (Measure.MEAN, 4)
    out, _ = said()
    assert "Routers will not use it as the routes file stands" in out
    assert "allows a loss of 0.07, the route's tolerance is 0.05" in out
    assert "may be wrong with probability 0.2, the route's confidence is 0.9" in out
    assert "compare mean, which needs the whole answer" in out


def test_what_options_were_called_before_still_works_and_is_pointed_out(
    tree: Path, said: Said
) -> None:
    before = ["--epsilon", "0.07", "--delta", "0.2", "--shadow", "0.02", "--first-k", "4"]
    main([*labelled(tree, 50), *before])
    found = artefact(tree)
    certificate = found.certificate
    assert (certificate.epsilon, certificate.delta, found.judgement.first_k) == (0.07, 0.2, 4)
    assert said()[1] == (
        "--epsilon is now --tolerance. --delta is now --confidence, 1 minus it. --shadow is now"
        " --evidence-share. --first-k is now --first-tokens."
    )
    assert main(["--help"]) == CERTIFIED
    out, _ = said()
    assert not any(old in out for old in ("--epsilon", "--delta", "--shadow", "--first-k"))


def test_other_first_tokens_than_the_routes_are_pointed_out(tree: Path, said: Said) -> None:
    write_routes(tree, STATED)
    assert main([*labelled(tree, 1500), "--first-tokens", "4"]) == CERTIFIED
    assert "compare the first 4 tokens, the route's first_tokens is 6" in said()[0]


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
    pair = record(number)
    pair["tiers"][0]["version"] = version
    return pair


def test_the_models_are_those_that_the_evidence_names(tree: Path, said: Said) -> None:
    write_routes(tree, STATED.replace("model: tiny,", "model: tiny, version: '8',"))
    (tree / "pairs.jsonl").write_text(lines(*(with_version(one, "7") for one in range(60))))
    main(["--route", "support", "--labelled", "pairs.jsonl"])
    assert artefact(tree).ladder == (Model("small", "tiny", "int8", "7"), LADDER[1])
    out, _ = said()
    assert "was calibrated for small (tiny int8 version 7), support now has small" in out


def test_pairs_that_name_no_models_are_of_those_that_serve_now(tree: Path) -> None:
    write_routes(tree, STATED.replace("model: tiny,", "model: tiny, version: '8',"))
    pairs = [record(number) for number in range(60)]
    for pair in pairs:
        for tier in pair["tiers"]:
            del tier["model"], tier["precision"]
    (tree / "pairs.jsonl").write_text(lines(*pairs))
    main(["--route", "support", "--labelled", "pairs.jsonl"])
    assert artefact(tree).ladder == (Model("small", "tiny", "int8", "8"), LADDER[1])


def test_the_routes_ladder_picks_the_tiers_of_a_pair(tree: Path, said: Said) -> None:
    pairs = [record(number) for number in range(60)]
    for pair in pairs:
        pair["tiers"].insert(1, {**pair["tiers"][0], "tier": "medium", "model": "m"})
    (tree / "pairs.jsonl").write_text(lines(*pairs))
    args = ["--route", "support", "--labelled", "pairs.jsonl"]
    assert main(args) == MISSING
    assert artefact(tree).ladder == LADDER

    medium = "medium: {model: m, precision: int8, tokenizer: t, max_sequence_tokens: 512}"
    text = STATED.replace("  large: {", f"  {medium}\n  large: {{")
    write_routes(tree, text.replace("[small, large]", "[small, medium, large]"))
    assert main([*args, "--ladder", "small,large"]) == MISSING
    assert artefact(tree).ladder == LADDER
    assert "small < large, not small < medium < large" in said()[0]


# --- looks at the evidence ---------------------------------------------------------------------


def looks(tree: Path) -> list[dict[str, Any]]:
    path = tree / "policies" / "calibration" / "support.looks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_looks_are_counted_wherever_the_result_goes(tree: Path, said: Said) -> None:
    options = ["--measure", "mean", "--tolerance", "0.06"]
    assert main([*labelled(tree, 400), *options]) == CERTIFIED
    assert artefact(tree).certificate.look == 1
    assert "look" not in said()[0]
    assert main([*labelled(tree, 450), *options, "--out", str(tree / "elsewhere")]) == CERTIFIED
    found = read(tree / "elsewhere" / "support.json").certificate
    assert (found.look, found.delta) == (2, 0.05)
    assert found.level == pytest.approx(0.05 * 0.104, rel=0.01)
    assert "number 2 at this evidence, which may take 10.4% of that" in said()[0]
    main([*labelled(tree, 450), *options, "--certify-share", "0.5"])
    assert artefact(tree).certificate.look == 3
    main([*labelled(tree, 450), *options])  # the second again
    assert artefact(tree).certificate.look == 2
    assert [one["number"] for one in looks(tree)] == [1, 2, 3]
    assert all(one["certified"] for one in looks(tree))


def test_what_tests_nothing_is_no_look(tree: Path) -> None:
    assert main(labelled(tree, 50)) == MISSING
    assert not (tree / "policies" / "calibration" / "support.looks.jsonl").exists()
    assert main([*labelled(tree, 400), "--measure", "mean", "--tolerance", "0.06"]) == CERTIFIED
    assert artefact(tree).certificate.look == 1


def test_looks_that_cannot_be_counted_certify_nothing(tree: Path, said: Said) -> None:
    (tree / "policies" / "calibration" / "support.looks.jsonl").mkdir(parents=True)
    assert main([*labelled(tree, 300), "--measure", "mean"]) == REFUSED
    assert "support.looks.jsonl cannot be read" in said()[1]
    assert not (tree / "policies" / "calibration" / "support.json").exists()


def test_fresh_evidence_begins_anew_once_something_is_certified(tree: Path, said: Said) -> None:
    options = ["--measure", "mean", "--tolerance", "0.06"]
    path = tree / "pairs.jsonl"
    old = [{**record(at), "time": "2026-11-01T00:00:00Z"} for at in range(400)]
    new = [{**record(at), "time": "2026-11-09T00:00:00Z"} for at in range(400, 900)]
    path.write_text(lines(*old))
    args = ["--route", "support", "--labelled", str(path), *options]
    assert main(args) == CERTIFIED
    path.write_text(lines(*old, *new))
    assert main([*args, "--since", "2026-11-02T00:00:00Z"]) == CERTIFIED
    assert artefact(tree).certificate.look == 1
    assert artefact(tree).data.left_out == {"older than --since": 400}
    assert main(args) == CERTIFIED  # with pairs that were looked at before
    assert artefact(tree).certificate.look == 2
