"""``ledger``: what was asked, what it cost and saved, and what became of it, from its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command.ending import USAGE, end
from pennyweight.command.options import Json
from pennyweight.command.show import (
    add_columns,
    console,
    line,
    money,
    percent,
    print_json,
    print_table,
    say,
)
from pennyweight.ledger.reader import LedgerError, opened
from pennyweight.ledger.sums import By, Sums, add_up, total

COSTS = (
    *("requests", "from cache", "prompt tokens", "output tokens"),
    *("paid", "shadow", "saved", "share"),
)
OUTCOMES = ("known", "resolved", "cost of a resolved task", "rated", "mean rating")


def ledger(
    folder: Annotated[
        Path,
        typer.Option(help="Where the router writes.", envvar="PENNYWEIGHT_ROUTER_LEDGER_FOLDER"),
    ] = Path("state/ledger"),
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.ROUTE,
    *,
    as_json: Json = False,
) -> None:
    """Add up the ledger: requests, tokens, money, what was saved, and what became of answers.

    Shadow runs gather evidence in the background; what they cost is taken off what was saved. The
    cost of a resolved task is what was paid for requests of known outcome, for each resolved one,
    shadow runs included.
    """
    try:
        with opened(folder) as files:
            rows, notes = add_up(files, by), [*files.unreadable.notes(), *_gaps(files.gaps())]
    except LedgerError as error:
        end(str(error), error.hint, code=USAGE)
    if as_json:
        for row in rows:
            print_json(by.value, row, saved=row.saved)
    else:
        whole = [*rows, total(rows)]
        screen = console()
        print_table(screen, _table(by, COSTS, [_costs(row) for row in whole]))
        if any(row.known or row.rated for row in rows):
            print_table(screen, _table(by, OUTCOMES, [_outcomes(row) for row in whole]))
    for note in notes:
        say(console(stderr=True), note, "yellow")


def _gaps(gaps: Mapping[str, int]) -> Sequence[str]:
    """A sentence where routers were killed."""
    if not gaps:
        return ()
    names = ", ".join(f"{process}: {missing:,}" for process, missing in sorted(gaps.items()))
    least = f"At least {sum(gaps.values()):,} are missing ({names})"
    beyond = (
        "what they answered in their last half second is in no count, nor is what was under way"
    )
    return (f"Routers were killed before they had written all records. {least}; {beyond}.",)


def _costs(sums: Sums) -> list[str]:
    counts = (sums.requests, sums.cached, sums.prompt_tokens, sums.output_tokens)
    return [
        line(sums.name) or "-",
        *(f"{count:,}" for count in counts),
        money(sums.paid),
        money(sums.shadow),
        money(sums.saved),
        percent(sums.saved / sums.baseline if sums.baseline else None),
    ]


def _outcomes(sums: Sums) -> list[str]:
    return [
        line(sums.name) or "-",
        f"{sums.known:,}",
        percent(sums.resolved / sums.known if sums.known else None),
        money(round(sums.known_cost / sums.resolved)) if sums.resolved else "-",
        f"{sums.rated:,}",
        f"{sums.ratings / sums.rated:+.2f}" if sums.rated else "-",
    ]


def _table(by: By, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    """A row for each but the last, which is the foot where there are several."""
    table = Table(show_footer=len(cells) > 2)  # noqa: PLR2004 -- two rows and their total
    add_columns(table, (by.value,), numbers=titles, footers=cells[-1])
    for row in cells[:-1]:
        table.add_row(*row)
    return table
