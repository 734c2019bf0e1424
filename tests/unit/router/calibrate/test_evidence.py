"""Outcomes judge the pairs that they are of, when the ledger is read."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from services.router.calibrate.evidence import BadEvidence, from_ledger
from services.router.policy.certainty import Certainty
from tests.making import ledger as making


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
    found = from_ledger(tmp_path, "support", lowest=0.05).records
    assert sorted(one.propensity for one in found) == [0.05, 1.0]


def test_propensities_that_differ_need_the_lowest_and_none_may_be_below_it(tmp_path: Path) -> None:
    """What the sample shows would leave out what was drawn so rarely that it is not in it."""
    tiers = [{"tier": name, "quality": 1.0} for name in ("small", "large")]
    records = [pair(at, tiers=tiers, propensity=share) for at, share in enumerate((0.2, 0.05))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    with pytest.raises(BadEvidence, match=r"--lowest-propensity: .* from 0\.05 to 0\.2: say the"):
        from_ledger(tmp_path, "support")
    with pytest.raises(BadEvidence, match=r"drawn with a lower one, 0\.05, got 0\.1"):
        from_ledger(tmp_path, "support", lowest=0.1)
    assert len(from_ledger(tmp_path, "support", lowest=0.0005).records) == 2


@pytest.mark.parametrize("number", [float("-inf"), float("nan")])
def test_what_no_router_would_take_for_certain_is_unknown_and_counts(
    number: float, tmp_path: Path
) -> None:
    sure = {"mean": number, "minimum": number, "first_k": -0.5}
    tiers = [{"tier": name, "quality": 1.0, "certainty": sure} for name in ("small", "large")]
    (tmp_path / "a.jsonl").write_text(json.dumps(pair(1, tiers=tiers)) + "\n")
    found = from_ledger(tmp_path, "support")
    assert [one.tiers[0].certainty for one in found.records] == [None]
    assert found.left_out == {}


# --- ledgers of every age, and what is none ----------------------------------------------------


def test_pairs_of_the_schema_and_of_before_are_read_from_one_folder(tmp_path: Path) -> None:
    judged = making.pair("r1", route="support", time="2026-11-28T00:00:00.000Z")
    (tmp_path / "new.jsonl").write_text(making.line(judged))
    (tmp_path / "old.jsonl").write_text(
        json.dumps(pair(2)) + "\n" + json.dumps(outcome(2, corrected_digest="bb")) + "\n"
    )
    found = from_ledger(tmp_path, "support", ("small", "large"))
    # Their models differ, and the youngest pair says which are wanted.
    assert found.left_out == {"another model or precision answered": 1}
    (record,) = found.records
    assert (record.request_id, record.time) == ("r1", "2026-11-28T00:00:00.000Z")
    assert [one.quality for one in record.tiers] == [0.5, 1.0]
    assert record.tiers[0].certainty == Certainty(-0.25, -1.0, -0.5)
    assert [one.micro_usd for one in record.tiers] == [3.0, 40.0]


def test_torn_lines_and_foreign_files_are_counted_and_named(tmp_path: Path) -> None:
    line = json.dumps(pair()) + "\n"
    (tmp_path / "0.jsonl").write_text(json.dumps(outcome(corrected_digest="bb")) + "\n")
    (tmp_path / "1.jsonl").write_text(line + line[:40])
    (tmp_path / "2.jsonl").write_bytes(b"\x7fELF\0\n\xff\xfe\n")
    (tmp_path / "3.jsonl").write_bytes(b'{"a": "' + b"x" * 40_000_000)
    found = from_ledger(tmp_path, "support")
    assert [record.request_id for record in found.records] == ["r1"]
    assert found.left_out == {
        "lines that cannot be read (1.jsonl, 2.jsonl)": 3,
        "files that cannot be read (3.jsonl)": 1,
    }


def test_a_folder_of_foreign_files_alone_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "core.jsonl").write_bytes(b"\x7fELF\0\n")
    with pytest.raises(BadEvidence, match=r"no pairs of route support.*core\.jsonl: 1"):
        from_ledger(tmp_path, "support")
    (tmp_path / "core.jsonl").write_bytes(b'{"a": "' + b"x" * 40_000_000)
    with pytest.raises(BadEvidence, match=r"Nothing in .* can be read.*core\.jsonl"):
        from_ledger(tmp_path, "support")


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(BadEvidence, match=r"needs DuckDB.*pennyweight\[ledger\]"):
        read(tmp_path, pair())
