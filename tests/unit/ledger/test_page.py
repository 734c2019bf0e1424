"""docs/ledger.md has every field, and its queries give what it says they give."""

import json
import re
from pathlib import Path

import duckdb
import pytest

from pennyweight.ledger import schema
from pennyweight.ledger.reader import opened
from pennyweight.ledger.sums import By, add_up
from tests.making.ledger import attempt, line, outcome, pair, plain, request
from tools import ledger_fields

PAGE = ledger_fields.PAGE.read_text()
SETUP = re.findall(r"```sql setup\n(.*?)```", PAGE, re.DOTALL)
QUERIES = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
MONDAY = "2026-11-30T08:00:00.000Z"

SMALL = attempt("small", 6, output_tokens=30)
UNSURE = attempt("small", 6, output_tokens=30, verdict="unsure", committed=False)
LARGE = attempt(
    "large", 80, output_tokens=35, cause="escalation", engine_ms=26.0, began_ms=20.5, took_ms=27.0
)
SHADOW = attempt("large", 80, output_tokens=35, cause="evidence", verdict="evidence")
FAILED = attempt("small", 0, output_tokens=0, verdict="failed", committed=False, engine_ms=None)
AGAIN = attempt("small", 6, output_tokens=30, cause="retry")
LEFT = attempt("small", 2, output_tokens=10, verdict="left")

RECORDS = [
    request("1", SMALL, baseline_micro_usd=80, attributes={"feature": "chat"}),
    request("2", SMALL, SHADOW, baseline_micro_usd=80, attributes={"feature": "chat"}),
    pair("2", shadow_micro_usd=80),
    request(
        "3",
        UNSURE,
        LARGE,
        baseline_micro_usd=80,
        attributes={"feature": "search"},
        reason="escalated",
        first_text_ms=47.6,
        total_ms=47.8,
    ),
    request("4", baseline_micro_usd=80, attributes={"feature": "search"}),
    request("5", FAILED, AGAIN, baseline_micro_usd=80, attributes={}),
    request("6", LEFT, status="CANCELLED", baseline_micro_usd=30, tier="small", time=MONDAY),
    request("7", SMALL, baseline_micro_usd=80, attributes={"feature": "search"}, time=MONDAY),
    request("8", SMALL, baseline_micro_usd=80, attributes={"feature": "chat"}, time=MONDAY),
    outcome("1", resolved=True),
    outcome("2", resolved=False, rating=-1.0),
    outcome("2", resolved=True, time=MONDAY),
    outcome("3", resolved=True),
    outcome("7", resolved=True, time=MONDAY),
    outcome("8", rating=0.5, time=MONDAY),
]


def table(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", row.strip()) for row in text.strip().splitlines()]


@pytest.fixture
def ledger(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """As the page sets it up."""
    (tmp_path / "a.jsonl").write_text("".join(line(record) for record in RECORDS))
    (setup,) = SETUP
    assert "state/ledger/" in setup
    database = duckdb.connect()
    database.execute(setup.replace("state/ledger/", f"{tmp_path}/"))
    return database


def test_the_page_has_the_fields_of_the_schema() -> None:
    assert ledger_fields.page(PAGE) == PAGE, "run: python -m tools.ledger_fields"


def test_every_class_of_the_schema_is_on_the_page() -> None:
    classes = {one for one in vars(schema).values() if isinstance(one, type)}
    ours = {one for one in classes if one.__module__ == schema.__name__}
    assert ours == set(ledger_fields.TITLES)


def test_the_example_is_a_record() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(shown) == plain(RECORDS[3])


def test_there_are_queries() -> None:
    assert len(QUERIES) == 3


@pytest.mark.parametrize(("query", "shown"), QUERIES, ids=range(len(QUERIES)))
def test_a_query_gives_what_the_page_shows(
    ledger: duckdb.DuckDBPyConnection, query: str, shown: str
) -> None:
    asked = ledger.execute(query)
    titles = [column[0] for column in asked.description or ()]
    rows = [["" if cell is None else str(cell) for cell in row] for row in asked.fetchall()]
    assert table(shown) == [titles, *rows]


def test_the_command_adds_up_the_same(ledger: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    (days, _), *_ = QUERIES
    with opened(tmp_path) as files:
        sums = add_up(files, By.DAY)
    rows = [(row.name, row.requests, row.paid + row.shadow, row.saved) for row in sums]
    assert ledger.execute(days).fetchall() == rows
