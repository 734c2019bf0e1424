"""Ledgers of every age are read; what is no record is counted and named, and stops nothing."""

import gzip
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pennyweight.ledger import reader
from pennyweight.ledger.lines import Unreadable, record_of
from pennyweight.ledger.money import Money, money_of
from pennyweight.ledger.reader import ExtraMissing, LedgerError, NoLedger, opened
from tests.making import old_ledger
from tests.making.ledger import TIME, attempt, gap, line, outcome, pair, plain, request

GOOD = line(request("r1", attempt())) + line(pair()) + line(outcome(resolved=True))

FOREIGN: dict[str, tuple[bytes, int]] = {
    "cut short": (GOOD[:200].encode(), 1),
    "cut short in between": ((GOOD[:200] + "\n" + GOOD).encode(), 1),
    "zeros of a crash": (b"\0" * 4096, 1),
    "zeros in between": (b"\0" * 4096 + b"\n" + GOOD.encode(), 1),
    "no UTF-8": (b'{"kind": "request", "handle": "\xff\xfe"}\n', 1),
    "no objects": (b'123\n[1, 2]\n"x"\nnull\n', 4),
    "no record": (b'{"a": 1}\n', 1),
    "deep": (b"[" * 100_000 + b"\n", 1),
    "nothing": (b"\n\n", 0),
}


def kinds(folder: Path) -> tuple[list[tuple[str, int]], Unreadable]:
    """How many records of each kind a folder has, and what was left out."""
    with opened(folder) as ledger:
        query = "SELECT kind, count(*) FROM lines GROUP BY kind ORDER BY kind"
        return ledger.base.execute(query).fetchall(), ledger.unreadable


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_record_is_counted_and_named(tmp_path: Path, what: str) -> None:
    data, lines = FOREIGN[what]
    (tmp_path / "a.jsonl").write_bytes(data.replace(GOOD.encode(), b""))
    (tmp_path / "b.jsonl").write_text(GOOD)
    found, unreadable = kinds(tmp_path)
    assert found == [("outcome", 1), ("pair", 1), ("request", 1)]
    assert unreadable == Unreadable({"a.jsonl": lines} if lines else {})


@pytest.mark.parametrize("what", FOREIGN)
def test_good_lines_around_it_are_read(tmp_path: Path, what: str) -> None:
    data, lines = FOREIGN[what]
    (tmp_path / "a.jsonl").write_bytes(GOOD.encode() + data.rstrip(b"\n") + b"\n" + GOOD.encode())
    found, unreadable = kinds(tmp_path)
    copies = 2 + data.count(GOOD.encode())
    assert found == [("outcome", copies), ("pair", copies), ("request", copies)]
    assert unreadable == Unreadable({"a.jsonl": lines} if lines else {})


@pytest.mark.parametrize("name", ["binary", "packed", "utf-16"])
def test_a_foreign_file_leaves_the_others_readable(tmp_path: Path, name: str) -> None:
    data = {
        "binary": Random(1).randbytes(300_000),
        "packed": gzip.compress(GOOD.encode()),
        "utf-16": GOOD.encode("utf-16"),
    }[name]
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl").write_text(GOOD)
    found, unreadable = kinds(tmp_path)
    assert sum(count for _, count in found) == 3
    assert list(unreadable.lines) == ["a.jsonl"]


def test_files_that_were_compressed_are_read_and_others_named(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD.encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    (tmp_path / "b.jsonl.gz").write_bytes(packed)  # a copy of what lies beside it
    (tmp_path / "b.jsonl").write_text(GOOD)
    (tmp_path / "c.jsonl.gz").write_bytes(packed[:-20])
    (tmp_path / "d.jsonl.zst").write_bytes(b"?")
    found, unreadable = kinds(tmp_path)
    assert found == [("outcome", 2), ("pair", 2), ("request", 2)]
    assert unreadable.lines == {}
    assert sorted(unreadable.files) == ["b.jsonl.gz", "c.jsonl.gz", "d.jsonl.zst"]
    assert unreadable.files["b.jsonl.gz"] == "b.jsonl is there too"
    with opened(tmp_path) as ledger:
        assert len(ledger.records("chat", ["pair"])) == 2


def test_a_folder_of_compressed_files_alone_is_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert sum(count for _, count in kinds(tmp_path)[0]) == 3


def test_lines_of_a_younger_schema_or_without_their_fields_are_named(tmp_path: Path) -> None:
    def without(record: Any, name: str) -> str:
        fields = plain(record)
        del fields[name]
        return json.dumps(fields) + "\n"

    younger = json.dumps(plain(request("r2", attempt())) | {"schema": 3}) + "\n"
    lacking = without(request("r3", attempt()), "micro_usd") + without(pair(), "shadow_micro_usd")
    (tmp_path / "a.jsonl").write_text(GOOD + younger + lacking + "torn\n")
    found, unreadable = kinds(tmp_path)
    assert found == [("outcome", 1), ("pair", 1), ("request", 1)]
    assert unreadable.lines == {"a.jsonl": 4}
    (note,) = unreadable.notes()
    assert note == (
        "Lines that could not be read and are left out: 4 (a.jsonl: 4); of them 1 of a younger "
        "schema, 2 without fields that a record has."
    )
    assert record_of(younger) is None


def test_a_file_that_cannot_be_read_at_all_is_named(tmp_path: Path) -> None:
    (tmp_path / "endless.jsonl").write_bytes(b'{"a": "' + b"x" * 40_000_000)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "nowhere.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "b.jsonl").write_text(GOOD + GOOD[:9])
    found, unreadable = kinds(tmp_path)
    assert sum(count for _, count in found) == 3
    assert unreadable.lines == {"b.jsonl": 1}
    assert set(unreadable.files) == {"endless.jsonl", "folder.jsonl", "nowhere.jsonl"}
    notes = unreadable.notes()
    assert notes[0] == "Lines that could not be read and are left out: 1 (b.jsonl: 1)."
    assert "left out: 3 (endless.jsonl: " in notes[1]


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoLedger, match=r"no \*\.jsonl files"), opened(tmp_path):
        pass
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(LedgerError, match="can be read") as refused, opened(tmp_path):
        pass
    assert "folder.jsonl" in refused.value.hint


def test_times_of_every_age_are_timestamps(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        old_ledger.lines(
            old_ledger.request("1"),
            old_ledger.outcome("2"),
            old_ledger.first_days(),
            old_ledger.request("3", time="of old"),
        )
        + line(request("4"))
    )
    with opened(tmp_path) as ledger:
        rows = ledger.base.execute("SELECT request_id, schema, time FROM lines").fetchall()
    times = {name: (schema, time and time.isoformat()) for name, schema, time in rows}
    assert times == {
        None: (1, None),
        "1": (1, "2026-09-21T14:13:20.500000"),
        "2": (1, "2026-11-02T10:00:00"),
        "3": (1, None),
        "4": (2, "2026-11-28T15:42:19.123000"),
    }


def test_whole_records_of_a_route(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD + line(outcome("r2", route="other")))
    (tmp_path / "b.jsonl").write_text(old_ledger.lines(old_ledger.outcome("r3", route="chat")))
    with opened(tmp_path) as ledger:
        found = ledger.records("chat", ("pair", "outcome"))
    assert sorted(found, key=lambda record: (record["kind"], record["request_id"])) == [
        plain(outcome(resolved=True)),
        {**old_ledger.outcome("r3", route="chat"), "time": "2026-11-02T10:00:00.000Z"},
        plain(pair()),
    ]


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ExtraMissing) as missing, opened(tmp_path):
        pass
    assert "pennyweight[ledger]" in missing.value.hint


# --- one line at a time --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "time"),
    [
        (old_ledger.request("1"), "2026-09-21T14:13:20.500Z"),
        (old_ledger.outcome("1"), "2026-11-02T10:00:00.000Z"),
        (old_ledger.request("1", time=1e300), None),
        (old_ledger.first_days(), None),
        (plain(request()), TIME),
    ],
)
def test_a_record_has_its_kind_and_the_one_spelling_of_time(
    record: dict[str, Any], time: str | None
) -> None:
    found = record_of(json.dumps(record))
    assert found == {"kind": "request", **record, "time": time}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_record_is_none(what: str) -> None:
    data, _ = FOREIGN[what]
    for part in data.replace(GOOD.encode(), b"").split(b"\n"):
        assert record_of(part) is None


def test_evidence_is_spent_once() -> None:
    """In the pair of its request before, in the request's attempts now."""
    before = [old_ledger.request("1"), old_ledger.pair("1", 40)]
    attempts = (attempt(), attempt("large", 40, cause="evidence", verdict="evidence"))
    now = [plain(request("1", *attempts)), plain(pair("1"))]
    for records in (before, now):
        assert sum(money_of(record).spent for record in records) == 43
    assert money_of(old_ledger.request("1", paid=None)).spent == 0
    assert money_of(plain(outcome())) == Money()


def test_columns_are_fields_of_the_schema() -> None:
    fields = set().union(*(plain(record) for record in (request(), pair(), outcome(), gap())))
    assert set(reader.COLUMNS) <= fields
