"""The demo: asks real questions of a running stack and shows what each answer took."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pennyweight import Client, Delta, Finished, PennyweightError
from pennyweight.command.show import milliseconds, money, plain, share, words
from pennyweight.ledger.money import Money, total_of
from services.local.own_records import OwnRecord, OwnRecords
from services.local.questions import WAVES

FIXED = {"tier": 5, "why": 12, "cache": 6, "tokens": 6, "engine": 7, "paid": 6, "saved": 5}
"""Columns of known width; question and answer share what is left."""

NUMBERS = frozenset(("tokens", "engine", "paid", "saved"))

DISPENSABLE = frozenset(("tokens", "engine"))
"""Columns that narrow screens go without: what an answer cost and saved is the point."""

ROOMY_WIDTH, MAX_WIDTH = 120, 160
QUESTION_SHARE = 0.42

EXPLAINED = frozenset(("escalated", "skipped", "halted", "limited", "unavailable"))
"""Reasons whose decision is explained below the row."""

MILLION = 1_000_000


@dataclass(frozen=True)
class Row:
    """A question and what came of it: an answer with its summary, or an error."""

    question: str
    answer: str = ""
    summary: Finished | None = None
    error: str = ""


async def run_demo(client: Client, console: Console, records: OwnRecords) -> bool:
    """Asks all questions, printing each row as it is finished; `records` are of the ledger.

    Returns whether all succeeded.
    """
    width = min(console.width, MAX_WIDTH)
    columns = _columns(width)
    console.print(_line(columns, {title: Text(title, style="bold") for title in columns}))
    console.print(Text("─" * width, style="dim"))
    rows = []
    async for row in _ask_all(client):
        rows.append(row)
        console.print(_line(columns, _cells(row)))
        if row.summary is not None and row.summary.decision.reason in EXPLAINED:
            console.print(Text(f"  └ {row.summary.decision.explanation}", style="yellow"))
    done = [row.summary for row in rows if row.summary is not None]
    found = await records.settled({summary.handle for summary in done})
    console.print(_foot(rows, found))
    return all(row.summary is not None for row in rows)


def _columns(width: int) -> dict[str, int]:
    """The columns that a screen of this width has room for, and how wide each is."""
    roomy = width >= ROOMY_WIDTH
    fixed = {title: wide for title, wide in FIXED.items() if roomy or title not in DISPENSABLE}
    free = width - sum(fixed.values()) - len(fixed) - 2
    question = round(free * QUESTION_SHARE)
    return {"question": question, "answer": free - question, **fixed}


async def _ask_all(client: Client) -> AsyncIterator[Row]:
    for wave in WAVES:
        for finished in asyncio.as_completed([_ask(client, *question) for question in wave]):
            yield await finished


async def _ask(client: Client, route: str, question: str) -> Row:
    text, summary = "", None
    try:
        async for event in client.generate(route, question, attributes={"feature": "demo"}):
            if isinstance(event, Delta):
                text += event.text
            elif isinstance(event, Finished):
                summary = event
    except PennyweightError as error:
        return Row(question, text, error=str(error))
    return Row(question, text, summary)


def _cells(row: Row) -> dict[str, Text]:
    question = Text(row.question)
    if row.summary is None:
        return {"question": question, "answer": Text(plain(row.error), style="red")}
    decision, usage, cost = row.summary.decision, row.summary.usage, row.summary.cost
    cached = not row.summary.decision.replica
    return {
        "question": question,
        "answer": Text(plain(row.answer)),
        "tier": Text(decision.tier, style="bold"),
        "why": Text(words(decision.reason)),
        "cache": Text(words(decision.cache), style="green" if cached else "dim"),
        "tokens": Text(f"{usage.prompt_tokens}+{usage.output_tokens}"),
        "engine": Text("-" if cached else milliseconds(row.summary.timings.engine_seconds)),
        "paid": Text(money(cost.micro_usd)),
        "saved": Text(share(cost.saved_micro_usd, cost.baseline_micro_usd), style="green"),
    }


def _line(columns: Mapping[str, int], cells: Mapping[str, Text]) -> Table:
    """One row in columns of fixed width, so that rows can be printed as they come."""
    line = Table.grid(padding=(0, 1))
    for title, width in columns.items():
        right = title in NUMBERS
        line.add_column(width=width, justify="right" if right else "left", overflow="fold")
    line.add_row(*(cells.get(title, Text()) for title in columns))
    return line


def _foot(rows: list[Row], found: list[OwnRecord] | None) -> Text:
    """What was asked, and its money: as the ledger has it, or else as the callers were told."""
    done = [row.summary for row in rows if row.summary is not None]
    failed = len(rows) - len(done)
    costs = [summary.cost for summary in done]
    sums = total_of(
        [Money(cost.micro_usd, baseline=cost.baseline_micro_usd) for cost in costs]
        if found is None
        else [one.money for one in found]
    )
    evidence = f", {money(sums.shadow)} of it for evidence" if sums.shadow else ""
    cached = sum(not summary.decision.replica for summary in done)
    foot = Text("\n")
    if failed:
        foot.append(f"{failed} of {len(rows)} questions failed.\n", style="bold red")
    if not done:
        return foot
    million = MILLION / len(done)
    at_scale = (
        f"A million such requests: {money(round(sums.spent * million))} instead of "
        f"{money(round(sums.baseline * million))}, at the prices in policies/prices.yaml."
    )
    return foot.append_text(
        Text.assemble(
            f"{len(done)} answers, {cached} of them without a model.\n",
            f"Paid {money(sums.spent)}{evidence}; always the top tier, without a cache: "
            f"{money(sums.baseline)}. ",
            (f"Saved {share(sums.saved, sums.baseline)}.\n", "bold green"),
            (f"{at_scale}\n", "dim"),
        )
    )
