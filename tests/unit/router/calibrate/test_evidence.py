"""Outcomes judge the pairs that they are of, when the ledger is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.router.calibrate.evidence import BadEvidence, from_ledger


def pair(number: int = 1, **changes: Any) -> dict[str, Any]:
    """What the router writes of a request whose judge waits for its outcome."""
    record = {
        "kind": "pair",
        "request_id": f"r{number}",
        "route": "support",
        "time": "2026-11-01T00:00:00.000+00:00",
        "propensity": 0.2,
        "features": [[0, 1.0]],
        "answered": "small",
        "digests": ["aa", "bb"],
        "tiers": [
            {"tier": name, "model": name, "precision": "int8", "quality": None}
            for name in ("small", "large")
        ],
    }
    return record | changes


def outcome(number: int = 1, **changes: Any) -> dict[str, Any]:
    record = {
        "kind": "outcome",
        "request_id": f"r{number}",
        "route": "support",
        "time": "2026-11-02T00:00:00.000+00:00",
        "resolved": None,
        "rating": None,
        "corrected_digest": None,
    }
    return record | changes


def read(folder: Path, *records: dict[str, Any]) -> tuple[list[list[float]], dict[str, int]]:
    """The qualities of each usable pair, and what was left out."""
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    found = from_ledger(folder, "support")
    return [[one.quality for one in record.tiers] for record in found.records], dict(found.left_out)


def test_an_outcome_judges_the_pair_of_its_request(tmp_path: Path) -> None:
    found = read(tmp_path, pair(), outcome(corrected_digest="bb"))
    assert found == ([[0.0, 1.0]], {})


def test_the_outcome_may_stand_in_another_file_and_before_its_pair(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_text(json.dumps(outcome(resolved=False)) + "\n")
    assert read(tmp_path, pair()) == ([[0.0, 1.0]], {})


@pytest.mark.parametrize("answered", ["large", 1])
def test_the_tier_that_answered_may_be_named_or_numbered(
    answered: str | int, tmp_path: Path
) -> None:
    found = read(tmp_path, pair(answered=answered), outcome(resolved=True))
    assert found == ([[0.0, 1.0]], {})
    found = read(tmp_path, pair(answered=answered), outcome(rating=0.0))
    assert found == ([[0.0, 0.5]], {})


def test_of_several_outcomes_the_first_counts(tmp_path: Path) -> None:
    later = outcome(corrected_digest="aa", time="2026-11-03T00:00:00.000+00:00")
    assert read(tmp_path, later, pair(), outcome(corrected_digest="bb"))[0] == [[0.0, 1.0]]


def test_what_a_judge_has_said_stays(tmp_path: Path) -> None:
    said = pair()
    for tier, quality in zip(said["tiers"], (0.5, 0.75), strict=True):
        tier["quality"] = quality
    assert read(tmp_path, said, outcome(corrected_digest="aa"))[0] == [[0.5, 0.75]]


def test_of_a_trimmed_prompt_the_tiers_answers_count(tmp_path: Path) -> None:
    trimmed = pair(digests=["aa", "bb", "cc"])
    assert read(tmp_path, trimmed, outcome(corrected_digest="cc"))[0] == [[0.0, 0.0]]
    assert read(tmp_path, trimmed, outcome(corrected_digest="bb"))[0] == [[0.0, 1.0]]


@pytest.mark.parametrize(
    "records",
    [
        [pair()],
        [pair(), outcome(2, resolved=True)],
        [pair(), outcome(route="other", resolved=True)],
        [pair(), outcome()],
        [pair(), outcome(rating=7.0)],
        [pair(), outcome(resolved="yes", rating="good", corrected_digest=3)],
        [pair(answered="medium"), outcome(resolved=True)],
        [pair(answered=2), outcome(resolved=True)],
        [pair(answered=None), outcome(resolved=True)],
        [pair(digests=["aa"]), outcome(resolved=True)],
        [pair(digests=None), outcome(resolved=True)],
    ],
)
def test_a_pair_that_no_outcome_tells_of_is_left_out_and_counted(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert read(tmp_path, *records) == ([], {"not judged": 1})


def test_outcomes_alone_are_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(BadEvidence, match="no pairs of route support"):
        read(tmp_path, outcome(resolved=True))


def test_pairs_measured_by_other_first_tokens_are_left_out_where_that_matters(
    tmp_path: Path,
) -> None:
    tiers = [{"tier": name, "quality": 1.0} for name in ("small", "large")]
    records = [pair(1, tiers=tiers, first_k=8), pair(2, tiers=tiers, first_k=4)]
    records.append(pair(3, tiers=tiers))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    assert len(from_ledger(tmp_path, "support").records) == 3
    found = from_ledger(tmp_path, "support", first_k=8)
    assert {one.request_id for one in found.records} == {"r1", "r3"}
    assert found.left_out == {"another number of first tokens": 1}


def test_pairs_weigh_by_their_propensity_unless_it_was_the_same_for_every_request(
    tmp_path: Path,
) -> None:
    tiers = [{"tier": name, "quality": 1.0} for name in ("small", "large")]
    records = [
        pair(1, tiers=tiers, propensity=0.05),
        pair(2, tiers=tiers, propensity=0.05, uniform=True),
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    found = from_ledger(tmp_path, "support").records
    assert sorted(one.propensity for one in found) == [0.05, 1.0]
