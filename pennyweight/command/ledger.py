"""``ledger``: what was asked, what it cost and what it saved, from the ledger's files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from pennyweight.command.outcome import USAGE, end
from pennyweight.command.show import console, money, share

# Only what is added up; DuckDB skips the other fields of each line.
COLUMNS = {
    "handle": "VARCHAR",
    "tenant": "VARCHAR",
    "route": "VARCHAR",
    "tier": "VARCHAR",
    "cache": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "micro_usd": "BIGINT",
    "baseline_micro_usd": "BIGINT",
}


class By(StrEnum):
    """What the table has a row for."""

    ROUTE = "route"
    TIER = "tier"
    TENANT = "tenant"


def ledger(
    folder: Annotated[
        Path,
        typer.Option(help="Where the router writes.", envvar="PENNYWEIGHT_ROUTER_LEDGER_FOLDER"),
    ] = Path("state/ledger"),
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.ROUTE,
) -> None:
    """Add up the ledger: requests, tokens, money, and what was saved."""
    rows, unreadable = _rows(folder, by)
    table = Table(show_footer=len(rows) > 1)
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    total = _cells("all", *totals)
    for title, foot in zip(
        (by, "requests", "from cache", "prompt tokens", "output tokens", "paid", "saved", "share"),
        total,
        strict=True,
    ):
        table.add_column(title, foot, justify="left" if title == by else "right")
    for row in rows:
        table.add_row(*_cells(*row))
    console().print(table)
    if unreadable:
        note = f"Lines that could not be read and are left out: {unreadable}."
        console(stderr=True).print(note, style="yellow")


def _rows(folder: Path, by: By) -> tuple[list[Any], int]:
    """Rows of name, requests, from cache, prompt tokens, output tokens, paid, baseline."""
    try:
        import duckdb  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError:
        end(
            "Reading the ledger needs DuckDB.",
            "Install the extra: python -m pip install 'pennyweight[ledger]'",
            code=USAGE,
        )
    if not any(folder.glob("*.jsonl")):
        end(
            f"No ledger in {folder}: there are no *.jsonl files.",
            "The router writes one there as soon as it has answered; name another with --folder.",
            code=USAGE,
        )
    with duckdb.connect() as base:
        base.read_json(
            str(folder / "*.jsonl"),
            columns=COLUMNS,
            format="newline_delimited",
            ignore_errors=True,  # a line that is being written is read as nothing
        ).create_view("lines")
        (unreadable,) = base.execute("SELECT count(*) FROM lines WHERE handle IS NULL").fetchall()[
            0
        ]
        rows = base.execute(
            f"""
            SELECT {by.value}, count(*),
                count(*) FILTER (cache IN ('exact', 'shared')),
                sum(prompt_tokens)::BIGINT, sum(output_tokens)::BIGINT,
                sum(micro_usd)::BIGINT, sum(baseline_micro_usd)::BIGINT
            FROM lines WHERE handle IS NOT NULL
            GROUP BY ALL ORDER BY 6 DESC, 1
            """  # noqa: S608 - `by` is one of three words
        ).fetchall()
    return rows, unreadable


def _cells(name: str, *numbers: int) -> list[str]:
    requests, cached, prompt, output, paid, baseline = numbers or (0,) * 6
    saved = baseline - paid
    return [
        name or "-",
        *(f"{number:,}" for number in (requests, cached, prompt, output)),
        money(paid),
        money(saved),
        share(saved, baseline),
    ]
