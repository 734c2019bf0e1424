"""``pennyweight calibrate``: what is refused, each in a sentence with status 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.router.calibrate import work
from services.router.calibrate.__main__ import main
from tests.making.paired import ROUTES, STATED, labelled, lines, record, write_routes

REFUSED, INTERRUPTED = 2, 130

Said = Callable[[], tuple[str, str]]


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (["--tolerance", "0"], "--tolerance: must be in (0, 1), got 0"),
        (["--tolerance", "nan"], "--tolerance: must be in (0, 1), got nan"),
        (["--confidence", "1"], "--confidence: must be in (0, 1), got 1"),
        (["--certify-share", "1"], "--certify-share: must be in (0, 1), got 1"),
        (["--evidence-share", "2"], "--evidence-share: must be in [0, 1], got 2"),
        (["--first-tokens", "0"], "--first-tokens: must be at least 1, got 0"),
        (["--epsilon", "1"], "--epsilon: must be in (0, 1), got 1"),
        (["--delta", "1.5"], "--delta: must be in (0, 1), got 1.5"),
        (["--shadow", "-1"], "--shadow: must be in [0, 1], got -1"),
        (["--first-k", "-3"], "--first-k: must be at least 1, got -3"),
        (["--cost", "euro"], "Invalid value for '--cost'"),
        (["--measure", "luck"], "Invalid value for '--measure'"),
        (["--ladder", "small"], "--ladder: must be at least two of small, large, got 'small'"),
        (["--ladder", "small,huge"], "--ladder: must be at least two of small, large"),
        (["--ladder", "small,small"], "--ladder: must be at least two of small, large"),
        (["--route", "suport"], "has no route 'suport'; it has support"),
        (["--routes-file", "nowhere.yaml"], "--routes-file: nowhere.yaml: cannot be read"),
        (["--labelled", "nowhere.jsonl"], "--labelled: nowhere.jsonl cannot be read"),
        (["--labelled", "policies"], "--labelled: policies cannot be read"),
        (["--seed", "7"], "--seed: is no longer taken"),
        (["--since", "yesterday"], "--since: must be as 2026-11-28T15:42:19Z, got 'yesterday'"),
        (["--since", "2027-01-01"], "no pair of support can be used (200: older than --since)"),
        (["--lowest-propensity", "0"], "--lowest-propensity: must be in (0, 1], got 0"),
        (["--lowest-propensity", "0.2"], "a pair was drawn with a lower one, 0.05, got 0.2"),
        (["--out", "pairs.jsonl"], "--out: pairs.jsonl/support.json cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    option: list[str], rule: str, tree: Path, said: Said
) -> None:
    assert main([*labelled(tree, 200), *option]) == REFUSED
    out, err = said()
    assert out == ""
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
        (
            ROUTES.replace("[small, large]", "[small, huge]"),
            "line 6: routes.support.ladder: no such tier",
        ),
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


def test_a_ledger_and_a_file_exclude_each_other(tree: Path, said: Said) -> None:
    assert main([*labelled(tree, 1), "--ledger", "state/ledger"]) == REFUSED
    assert "--ledger and --labelled: give one of them, not both" in said()[1]


def test_a_route_must_be_named(said: Said) -> None:
    assert main([]) == REFUSED
    assert "Missing option '--route'" in said()[1]


def test_an_interrupt_ends_it_with_its_own_status(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "calibrate_records", interrupted)
    assert main(labelled(tree, 10)) == INTERRUPTED
    assert not (tree / "policies" / "calibration").exists()
