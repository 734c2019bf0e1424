"""``ledger``: what was asked, what it cost and saved, and what became of it, from its files."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pennyweight.command.ending import USAGE, end
from pennyweight.command.show import console, money, percent

# Only what is added up; DuckDB skips the other fields of each line, and what a line lacks is NULL.
COLUMNS = {
    "kind": "VARCHAR",
    "request_id": "VARCHAR",
    "time": "VARCHAR",
    "handle": "VARCHAR",
    "tenant": "VARCHAR",
    "route": "VARCHAR",
    "tier": "VARCHAR",
    "answered": "VARCHAR",
    "cache": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "micro_usd": "BIGINT",
    "baseline_micro_usd": "BIGINT",
    "shadow_micro_usd": "BIGINT",
    "resolved": "BOOLEAN",
    "rating": "DOUBLE",
}

# A record without a kind is a request. Shadow runs and outcomes belong to the request of their id.
# A run whose request is not in these files still cost what it cost; an outcome says nothing without
# its request.
SUMS = """
    WITH requests AS (
        SELECT request_id, tenant, route, tier, cache IN ('exact', 'shared') AS cached,
            prompt_tokens, output_tokens, micro_usd AS paid, baseline_micro_usd AS baseline
        FROM lines WHERE coalesce(kind, 'request') = 'request' AND handle IS NOT NULL
    ), shadows AS (
        SELECT request_id AS id, any_value(tenant) AS tenant, any_value(route) AS route,
            any_value(answered) AS tier, sum(shadow_micro_usd) AS shadow
        FROM lines WHERE shadow_micro_usd IS NOT NULL GROUP BY ALL
    ), outcomes AS (
        SELECT request_id AS id, resolved, rating FROM lines WHERE kind = 'outcome'
        QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY time) = 1
    ), parts AS (
        SELECT requests.{by} AS name, 1 AS requests, cached, prompt_tokens, output_tokens, paid,
            0 AS shadow, baseline, resolved, rating,
            CASE WHEN resolved IS NOT NULL THEN paid + coalesce(shadows.shadow, 0) END AS told_cost
        FROM requests LEFT JOIN outcomes ON outcomes.id = requests.request_id
            LEFT JOIN shadows ON shadows.id = requests.request_id
        UNION ALL BY NAME
        SELECT coalesce(one.{by}, shadows.{by}) AS name, shadows.shadow
        FROM shadows LEFT JOIN requests AS one ON shadows.id = one.request_id
    )
    SELECT coalesce(name, ''), coalesce(sum(requests), 0)::BIGINT, count(*) FILTER (cached),
        coalesce(sum(prompt_tokens), 0)::BIGINT, coalesce(sum(output_tokens), 0)::BIGINT,
        coalesce(sum(paid), 0)::BIGINT, sum(shadow)::BIGINT, coalesce(sum(baseline), 0)::BIGINT,
        count(resolved), count(*) FILTER (resolved), coalesce(sum(told_cost), 0)::BIGINT,
        count(rating), coalesce(sum(rating), 0.0)::DOUBLE
    FROM parts GROUP BY ALL ORDER BY 6 DESC, 1
"""


class By(StrEnum):
    """What the table has a row for."""

    ROUTE = "route"
    TIER = "tier"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Sums:
    """What one row adds up; money is micro-USD.

    Attributes:
        name: of the route, tier or tenant.
        requests: that ended, well or not.
        cached: of them answered from the cache.
        paid: for them.
        shadow: paid for shadow runs, as evidence.
        baseline: what the top tier without a cache would have cost.
        told: requests of which somebody said whether they were resolved.
        resolved: of those, the resolved ones.
        told_cost: paid for `told`, their shadow runs included.
        rated: requests that somebody rated.
        ratings: their sum.
    """

    name: str
    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    paid: int = 0
    shadow: int = 0
    baseline: int = 0
    told: int = 0
    resolved: int = 0
    told_cost: int = 0
    rated: int = 0
    ratings: float = 0.0

    def cost_cells(self) -> list[str]:
        """The row of the table of costs."""
        saved = self.baseline - self.paid - self.shadow
        counts = (self.requests, self.cached, self.prompt_tokens, self.output_tokens)
        return [
            self.name or "-",
            *(f"{count:,}" for count in counts),
            money(self.paid),
            money(self.shadow),
            money(saved),
            percent(saved / self.baseline if self.baseline else None),
        ]

    def outcome_cells(self) -> list[str]:
        """The row of the table of outcomes."""
        return [
            self.name or "-",
            f"{self.told:,}",
            percent(self.resolved / self.told if self.told else None),
            money(round(self.told_cost / self.resolved)) if self.resolved else "-",
            f"{self.rated:,}",
            f"{self.ratings / self.rated:+.2f}" if self.rated else "-",
        ]


COSTS = (
    *("requests", "from cache", "prompt tokens", "output tokens"),
    *("paid", "shadow", "saved", "share"),
)
OUTCOMES = ("told", "resolved", "cost of a resolved task", "rated", "mean rating")


def ledger(
    folder: Annotated[
        Path,
        typer.Option(help="Where the router writes.", envvar="PENNYWEIGHT_ROUTER_LEDGER_FOLDER"),
    ] = Path("state/ledger"),
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.ROUTE,
) -> None:
    """Add up the ledger: requests, tokens, money, what was saved, and what became of answers.

    Shadow runs gather evidence in the background; what they cost is taken off what was saved. The
    cost of a resolved task is what was paid for requests of known outcome, for each resolved one,
    shadow runs included.
    """
    rows, unreadable = _read(folder, by)
    screen = console()
    screen.print(_table(by, COSTS, rows, [one.cost_cells() for one in [*rows, _total(rows)]]))
    if any(one.told or one.rated for one in rows):
        cells = [one.outcome_cells() for one in [*rows, _total(rows)]]
        screen.print(_table(by, OUTCOMES, rows, cells))
    if unreadable:
        note = f"Lines that could not be read and are left out: {unreadable}."
        console(stderr=True).print(note, style="yellow")


def _table(
    by: By, titles: Sequence[str], rows: Sequence[Sums], cells: Sequence[Sequence[str]]
) -> Table:
    table = Table(show_footer=len(rows) > 1)
    for title, foot in zip((by.value, *titles), cells[-1], strict=True):
        table.add_column(title, foot, justify="left" if title == by else "right")
    for row in cells[:-1]:
        table.add_row(*row)
    return table


def _total(rows: Sequence[Sums]) -> Sums:
    columns = zip(*(astuple(one)[1:] for one in rows), strict=True)
    return Sums("all", *(sum(column) for column in columns))


def _read(folder: Path, by: By) -> tuple[list[Sums], int]:
    """The rows, dearest first, and how many lines could not be read."""
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
        ((unreadable,),) = base.execute(
            "SELECT count(*) FROM lines WHERE kind IS NULL AND handle IS NULL"
        ).fetchall()
        rows = base.execute(SUMS.format(by=by.value)).fetchall()
    return [Sums(*row) for row in rows], unreadable
