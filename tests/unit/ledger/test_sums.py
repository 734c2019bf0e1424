"""Sums of a ledger: the same whatever age its lines have, and the same as in plain SQL."""

import json
from pathlib import Path

import duckdb
import pytest

from pennyweight.ledger.reader import FIGURE_MOST, opened
from pennyweight.ledger.schema import TextRecord
from pennyweight.ledger.sums import By, Sums, add_up, total
from tests.making import old_ledger
from tests.making.ledger import attempt, line, outcome, pair, request

EVIDENCE = attempt("large", 40, cause="evidence", verdict="evidence", committed=False)


def sums(folder: Path, by: By = By.ROUTE) -> list[Sums]:
    with opened(folder) as ledger:
        return add_up(ledger, by)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of schema 2 with records of every kind, and every field null in some."""
    unsure = attempt(verdict="unsure", committed=False)
    stood = attempt("large", 50, cause="escalation", engine_ms=None, estimated=True)
    (tmp_path / "a.jsonl").write_text(
        line(request("1", attempt(), EVIDENCE))
        + line(request("2", unsure, stood, attributes={"feature": "search"}))
        + line(request("3", attributes={}, time="2026-11-29T00:00:00.000Z"))
        + line(pair("1"))
        + line(outcome("2", resolved=True, rating=0.5))
    )
    (tmp_path / "b.jsonl").write_text(
        line(request("4", EVIDENCE, cache="exact", tenant="umbrella", status="CANCELLED"))
        + line(pair("4", kind="cached_pair", answered="", qualities=None, first_k=None))
        + line(pair("1", text=TextRecord(messages=(), answers=("x", "y"))))
        + line(outcome("1", resolved=False, corrected_digest="aa"))
    )
    (tmp_path / "c.jsonl").write_text(line(request("5", reused_prompt_tokens=7)))
    return tmp_path


def test_evidence_is_apart_from_what_was_paid(folder: Path) -> None:
    (chat,) = sums(folder)
    assert (chat.requests, chat.cached) == (5, 3)
    assert (chat.paid, chat.shadow, chat.baseline) == (3 + 53, 2 * 40, 5 * 40)
    assert chat.saved == 200 - 56 - 80
    assert (chat.known, chat.resolved, chat.known_cost) == (2, 1, 43 + 53)


def test_days_are_of_utc_and_in_their_order(folder: Path) -> None:
    days = [(row.name, row.requests, row.paid) for row in sums(folder, By.DAY)]
    assert days == [("2026-11-28", 4, 56), ("2026-11-29", 1, 0)]


def test_other_names_come_dearest_first(folder: Path) -> None:
    assert [row.name for row in sums(folder, By.TIER)] == ["large", "small"]
    assert [row.name for row in sums(folder, By.TENANT)] == ["acme", "umbrella"]


@pytest.mark.parametrize("by", By)
def test_every_table_has_the_same_total(folder: Path, by: By) -> None:
    whole = total(sums(folder, by))
    assert whole == total(sums(folder))
    assert whole.name == "all"


def test_old_and_new_lines_of_the_same_requests_have_the_same_sums(tmp_path: Path) -> None:
    old, new, both = (tmp_path / name for name in ("old", "new", "both"))
    for path in (old, new, both):
        path.mkdir()
    before = old_ledger.lines(
        old_ledger.request("1"),
        old_ledger.pair("1", 40),
        old_ledger.request("2", "large", 53, refused=["small"], refused_micro_usd=3),
        old_ledger.request("3", paid=0, cache="exact"),
        old_ledger.pair("3", 40, kind="cached_pair", answered=""),
        old_ledger.outcome("1", resolved=True, rating=1.0),
    )
    unsure = attempt(verdict="unsure", committed=False)
    now = (
        line(request("1", attempt(), EVIDENCE))
        + line(pair("1"))
        + line(request("2", unsure, attempt("large", 50, cause="escalation")))
        + line(request("3", EVIDENCE, cache="exact"))
        + line(pair("3", kind="cached_pair", answered=""))
        + line(outcome("1", resolved=True, rating=1.0))
    )
    (old / "a.jsonl").write_text(before)
    (new / "a.jsonl").write_text(now)
    for by in (By.ROUTE, By.TIER, By.TENANT):
        assert sums(old, by) == sums(new, by)
    assert sums(old)[0].known_cost == 43
    # Both in one folder, as different requests of theirs.
    (both / "old.jsonl").write_text(before)
    for number in "123":
        now = now.replace(f'"request_id":"{number}"', f'"request_id":"n{number}"')
    (both / "new.jsonl").write_text(now)
    (one,), (two,) = sums(old), sums(both)
    assert (two.requests, two.paid, two.shadow, two.baseline, two.known_cost) == (
        2 * one.requests, 2 * one.paid, 2 * one.shadow, 2 * one.baseline, 2 * one.known_cost
    )  # fmt: skip


def test_evidence_of_old_for_a_request_in_other_files_counts_on_its_own_day(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text(
        old_ledger.lines(old_ledger.request("1"), old_ledger.pair("gone", 7))
    )
    days = [(row.name, row.requests, row.shadow) for row in sums(tmp_path, By.DAY)]
    assert days == [("2026-09-21", 1, 0), ("2026-11-02", 0, 7)]


def test_plain_duckdb_reads_a_folder_and_agrees(folder: Path) -> None:
    """Nobody needs us to read a ledger."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(f"CREATE VIEW ledger AS SELECT * FROM read_json_auto('{folder}/*.jsonl')")
        types = {name: kind for name, kind, *_ in database.execute("DESCRIBE ledger").fetchall()}
        asked = database.execute(
            """
            SELECT count(*), sum(micro_usd), sum(baseline_micro_usd), sum(output_tokens)
            FROM ledger WHERE kind = 'request'
            """
        ).fetchone()
        evidence = database.execute(
            """
            SELECT sum(run.micro_usd)
            FROM (SELECT unnest(attempts) AS run FROM ledger WHERE kind = 'request')
            WHERE run.cause = 'evidence'
            """
        ).fetchone()
        days = database.execute(
            """
            SELECT strftime(time, '%Y-%m-%d') AS day, count(*) FROM ledger
            WHERE kind = 'request' GROUP BY day ORDER BY day
            """
        ).fetchall()
    (chat,) = sums(folder)
    assert types["time"] in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
    assert asked == (chat.requests, chat.paid + chat.shadow, chat.baseline, chat.output_tokens)
    assert evidence == (chat.shadow,)
    assert days == [(row.name, row.requests) for row in sums(folder, By.DAY)]


FIGURES = ("prompt_tokens", "output_tokens", "micro_usd", "baseline_micro_usd")


STRANGE = (2**63 - 1, -(2**63), 2**63, 10**40, -1, 1e308)


@pytest.mark.parametrize("field", [*FIGURES, "attempt", "missing", "shadow"])
def test_a_figure_that_no_record_has_is_told_and_ends_nothing(folder: Path, field: str) -> None:
    before, records = sums(folder), []
    for figure in STRANGE:
        record = json.loads(line(request("9", attempt())))
        match field:
            case "attempt":
                record["attempts"][0]["micro_usd"] = figure
            case "missing":
                record = {"kind": "gap", "schema": 2, "process": "p", "missing": figure}
            case "shadow":
                record = json.loads(line(pair("9"))) | {"shadow_micro_usd": figure}
            case _:
                record[field] = figure
        records.append(json.dumps(record) + "\n")
    (folder / "d.jsonl").write_text("".join(records))
    with opened(folder) as ledger:
        assert add_up(ledger, By.ROUTE) == before
        assert ledger.unreadable.lines == {"d.jsonl": len(STRANGE)}
        assert ledger.gaps() == {}


def test_sums_of_the_greatest_figures_are_exact(tmp_path: Path) -> None:
    most = dict.fromkeys(FIGURES, FIGURE_MOST)
    many = 3000  # together more than 64 bits
    (tmp_path / "a.jsonl").write_text(line(request("1", **most)) * many)
    (row,) = sums(tmp_path)
    assert (row.paid, row.prompt_tokens, row.baseline) == (many * FIGURE_MOST,) * 3


@pytest.mark.parametrize("time", [-9_223_372_036_854.0, 9.3e12, -1e300, 253_402_300_800.0])
def test_a_time_in_no_year_of_ours_is_unknown(tmp_path: Path, time: float) -> None:
    old = json.loads(old_ledger.lines(old_ledger.request("1"))) | {"time": time}
    (tmp_path / "a.jsonl").write_text(json.dumps(old) + "\n")
    (row,) = sums(tmp_path, By.DAY)
    assert (row.name, row.requests) == ("", 1)
