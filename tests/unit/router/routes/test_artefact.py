"""From evidence to the file that routers read, and everything that may be wrong with either."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.router.calibrate.__main__ import main
from services.router.calibrate.evidence import BadEvidence, from_ledger
from services.router.calibrate.labelled import from_labelled
from services.router.policy.certainty import Certainty
from services.router.routes.artefact_file import BadArtefact, read
from tests.making.paired import lines, record, write_routes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated route's artefact and picture."""
    ledger = tmp_path_factory.mktemp("ledger")
    (ledger / "a.jsonl").write_text(lines(*map(record, range(600))))
    (ledger / "b.jsonl").write_text(lines(*map(record, range(600, 1200))))
    out = tmp_path_factory.mktemp("out")
    arguments = [
        "--route",
        "support",
        "--ledger",
        str(ledger),
        "--tolerance",
        "0.04",
        "--out",
        str(out),
    ]
    assert main([*arguments, "--routes-file", str(write_routes(out))]) == 0
    return out


# --- evidence ----------------------------------------------------------------------------------


def test_pairs_of_other_routes_are_passed_over_and_torn_lines_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            record(1),
            record(2, route="other"),
            {"kind": "request", "route": "support"},
            {"no": "kind"},
        )
        + '{"kind":"pair","route":"support","ti\n'
        + lines(record(3))
        + '{"kind":"pair","rou'
    )
    found = from_ledger(tmp_path, "support")
    assert [one.request_id for one in found.records] == ["r1", "r3"]
    assert found.left_out == {"lines that cannot be read (a.jsonl)": 3}


def without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def with_tier(record: dict[str, Any], **changes: object) -> dict[str, Any]:
    small, large = record["tiers"]
    return {**record, "tiers": [{**small, **changes}, large]}


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (without(record(1), "text"), "neither features nor text"),
        ({**record(1), "features": [[1, "x"]]}, "features that are no numbers"),
        ({**record(1), "features": [[-1, 1.0]]}, "features out of range"),
        ({**record(1), "features": [[1, 1e999]]}, "features out of range"),
        ({**record(1), "propensity": 0}, "propensity not in (0, 1]"),
        ({**record(1), "propensity": "often"}, "propensity is no number"),
        ({**record(1), "tiers": record(1)["tiers"][:1]}, "fewer than two tiers"),
        (with_tier(record(1), quality=None), "not judged"),
        (with_tier(record(1), quality=1.5), "quality not in [0, 1]"),
        (with_tier(record(1), quality=float("nan")), "quality is not finite"),
        (with_tier(record(1), micro_usd=-1), "negative cost"),
        (with_tier(record(1), tier=None), "a tier without a name"),
        (record(2), "the same request twice"),
        (with_tier(record(1), model="older"), "another model or precision answered"),
        (with_tier(record(1), tier="medium"), "not every tier of the ladder answered"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted(
    damaged: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(lines(damaged, record(2)))
    found = from_labelled(tmp_path / "a.jsonl")
    assert [one.request_id for one in found.records] == ["r2"]
    assert found.left_out == {reason: 1}


@pytest.mark.parametrize(
    ("number", "known"), [(0.0, True), (-0.5, True), (0.5, False)], ids=["sure", "less", "no log"]
)
def test_nothing_but_zeros_is_as_sure_as_can_be(
    number: float, *, known: bool, tmp_path: Path
) -> None:
    given = {"mean": number, "minimum": number, "first_k": number}
    (tmp_path / "a.jsonl").write_text(lines(with_tier(record(1), certainty=given)))
    (one,) = from_ledger(tmp_path, "support").records
    assert one.tiers[0].certainty == (Certainty(number, number, number) if known else None)


def test_a_certainty_of_the_ledger_that_lacks_a_number_leaves_its_pair_out(tmp_path: Path) -> None:
    damaged = with_tier(record(1), certainty={"mean": -1})
    (tmp_path / "a.jsonl").write_text(lines(damaged, record(2)))
    found = from_ledger(tmp_path, "support")
    assert found.left_out == {"certainty is no number": 1}


def test_a_csv_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "text",
                "task_type",
                "small.quality",
                "small.mean",
                "small.minimum",
                "small.first_k",
                "small.micro_usd",
                "large.quality",
                "large.micro_usd",
            ]
        )
        table.writerow(["hello", "greeting", "0.5", "-0.1", "-0.3", "-0.2", "3", "1", "30"])
        table.writerow(["bye", "", "", "", "", "", "3", "1", "30"])
    found = from_labelled(path)
    (one,) = found.records
    assert [tier.quality for tier in one.tiers] == [0.5, 1.0]
    assert one.tiers[0].certainty is not None
    assert one.tiers[1].micro_usd == 30.0
    assert found.left_out == {"not judged": 1}


@pytest.mark.parametrize("text", ["", "\n\n", "no json\n", "[1]\n"])
def test_a_file_without_evidence_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(BadEvidence, match="--labelled"):
        from_labelled(tmp_path / "a.jsonl")
    with pytest.raises(BadEvidence, match="--ledger"):
        from_ledger(tmp_path, "support")
    with pytest.raises(BadEvidence, match="--ledger"):
        from_ledger(tmp_path / "nowhere", "support")
    with pytest.raises(BadEvidence, match="--labelled"):
        from_labelled(tmp_path / "nowhere.jsonl")


# --- the artefact ------------------------------------------------------------------------------


def test_any_cut_or_changed_byte_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "support.json").read_bytes()
    path, random = tmp_path / "support.json", Random(1)
    for _ in range(40):
        cut = random.randrange(len(whole))
        path.write_bytes(whole[:cut])
        with pytest.raises(BadArtefact, match=r"support\.json"):
            read(path)
        at = random.randrange(len(whole))
        other = bytes([whole[at] ^ 1])
        if other.isspace() and whole[at : at + 1].isspace():
            continue
        path.write_bytes(whole[:at] + other + whole[at + 1 :])
        with pytest.raises(BadArtefact, match=r"support\.json"):
            read(path)


def test_a_file_that_is_not_there_or_no_artefact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArtefact, match="cannot be read"):
        read(tmp_path / "none.json")
    for text in ("", "null", "{}", '{"kind": "other"}', "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(BadArtefact, match=r"a\.json"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("key", ["form", "features_version"])
def test_an_artefact_of_another_build_is_refused(key: str, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "support.json").read_text())
    document[key] = 99
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(BadArtefact, match=f"{key}: this build reads 1, got 99"):
        read(tmp_path / "a.json")


def test_an_artefact_of_before_says_nothing_of_worse_answers(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "support.json").read_text())
    assert read(folder / "support.json").spare == document.pop("spare") >= 0.0
    (tmp_path / "a.json").write_text(signed(document))
    assert read(tmp_path / "a.json").spare is None


def signed(document: dict[str, Any]) -> str:
    """The text of an artefact whose checksum is right whatever it says."""
    from services.router.routes.artefact_file import _checksum

    document.pop("checksum", None)
    return json.dumps({**document, "checksum": _checksum(document)})


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("thresholds", "rungs", 0, "skip_above_gain"), 2.0, "skip_above_gain must be in"),
        (("thresholds", "measure"), "guess", "thresholds"),
        (("thresholds", "rungs"), [], "thresholds"),
        (("certificate", "bound"), "low", "bound must be in"),
        (("certificate", "epsilon"), 7, "epsilon must be in"),
        (("certificate", "certified"), "yes", "certified must be true"),
        (("certificate", "look"), 0, "look must be at least 1"),
        (("certificate", "level"), 0.5, "level must be above 0 and at most delta"),
        (("certificate", "level"), "all", "level must be above 0 and at most delta"),
        (("models",), [], "models"),
        (("ladder",), [], "ladder"),
        (("route",), "", "route: must be a text"),
        (("first_k",), 0, "first_k"),
        (("bands", "escalation", "share"), 3, "bands"),
        (("data",), {}, "data"),
        (("watched_loss",), 2.0, "watched_loss: must be in"),
        (("spare",), -0.1, "spare: must be in"),
        (("spare",), "some", "spare: must be in"),
    ],
)
def test_values_out_of_range_are_refused_by_name(
    place: tuple[str | int, ...], value: object, said: str, folder: Path, tmp_path: Path
) -> None:
    document = json.loads((folder / "support.json").read_text())
    part: Any = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "a.json").write_text(signed(document))
    with pytest.raises(BadArtefact, match=said):
        read(tmp_path / "a.json")


def test_an_artefact_of_before_looks_and_repeats_were_counted_is_read(
    folder: Path, tmp_path: Path
) -> None:
    document = json.loads((folder / "support.json").read_text())
    for part, key in (
        ("certificate", "look"),
        ("certificate", "level"),
        ("data", "repeats"),
        ("data", "lowest_propensity"),
    ):
        del document[part][key]
    (tmp_path / "a.json").write_text(signed(document))
    found = read(tmp_path / "a.json")
    assert (found.certificate.look, found.certificate.level, found.data.repeats) == (1, None, 0)
