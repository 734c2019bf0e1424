"""What the user sees of traffic: how far it is, then what the answers took."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pennyweight import Client
from pennyweight.command.show import money, percent, share, words
from pennyweight.ledger.money import Money
from pennyweight.suggestions import hint_of
from services.local.own_records import OwnRecord, OwnRecords
from services.local.stack import Stop
from services.local.traffic import Sum, Tally, Wanted, charged, send, total

LEFT = ("tier", "why")
"""Columns of words; the rest are numbers."""


async def run_traffic(
    client: Client,
    questions: Iterator[str],
    wanted: Wanted,
    console: Console,
    records: OwnRecords | None,
) -> Tally:
    """Asks and shows; Ctrl-C ends the asking, not the showing. Returns what became of it.

    Args:
        client: of the running stack.
        questions: to ask.
        wanted: how many, how fast, of which route.
        console: where it is shown.
        records: of the stack's ledger, which knows what evidence cost; None: not at hand.

    Raises:
        PennyweightError: the stack cannot be asked at all.
        ValueError: there is no such route.
    """
    names = [route.name for route in (await client.list_routes()).routes]
    if wanted.route not in names:
        raise ValueError(f"There is no route {wanted.route}. {hint_of(wanted.route, names)}")
    tally, stop = Tally(), Stop()
    with Report(console, wanted, tally) as report:
        work = asyncio.create_task(send(client, questions, wanted, tally, report.update))
        asked = asyncio.create_task(stop.asked.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, asked):
                task.cancel()
            await asyncio.gather(work, asked, return_exceptions=True)
    asking = time.monotonic() - report.began
    found = await records.settled(tally.handles) if records is not None else None
    report.show(asking, found)
    return tally


class Report:
    """What the user sees of it: a bar on a terminal, else a line for each tenth; then a table."""

    def __init__(self, console: Console, wanted: Wanted, tally: Tally) -> None:
        self._console = console
        self._wanted = wanted
        self._tally = tally
        self.began = time.monotonic()
        self._said = 0
        self._progress = Progress(
            TextColumn(f"asking {wanted.route}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=wanted.requests, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self) -> None:
        """Shows how far it is."""
        tally, requests = self._tally, self._wanted.requests
        done = tally.done
        note = f"{tally.failures.total()} failed, {percent(tally.escalated)} escalated"
        self._progress.update(self._task, completed=done, note=note)
        if not self._console.is_terminal and done * 10 // requests > self._said:
            self._said = done * 10 // requests
            self._console.print(f"{done:,} of {requests:,} · {note}", soft_wrap=True)

    def show(self, seconds: float, found: list[OwnRecord] | None) -> None:
        """The table, then how many were asked, what failed, and the money.

        Args:
            seconds: that the asking took.
            found: all requests as the ledger has them; None where it is not at hand.
        """
        tally, whole = self._tally, self._tally.whole
        sums = tally.sums if found is None else charged(found)
        if sums:
            self._console.print(_table(sums, evidence=found is not None))
        if tally.done < self._wanted.requests:
            why = "as the first all failed" if tally.hopeless else "when it was asked to"
            text = f"Stopped after {tally.done:,} of {self._wanted.requests:,}, {why}.\n"
            self._console.print(Text(text, style="yellow"), end="", soft_wrap=True)
        text = f"{whole.answers:,} answered in {seconds:,.1f} s ({whole.answers / seconds:,.1f}/s)"
        self._console.print(Text(f"{text}, {tally.failures.total():,} failed."), soft_wrap=True)
        if tally.failures:
            codes = ", ".join(f"{count:,} {code}" for code, count in tally.failures.most_common())
            self._console.print(
                Text(f"Failed: {codes}. The last: {tally.last_failure}", style="bold red"),
                soft_wrap=True,
            )
        if sums:
            self._console.print(
                _money(tally, total(sums.values()).money, known=found is not None), soft_wrap=True
            )


def _money(tally: Tally, sums: Money, *, known: bool) -> Text:
    """The money in sentences; `known` says whether that of evidence is in it."""
    evidence = f", {money(sums.shadow)} of it for evidence" if sums.shadow else ""
    text = Text.assemble(
        f"Escalated {percent(tally.escalated)}. Paid {money(sums.spent)}{evidence}; always the "
        f"top tier, without a cache: {money(sums.baseline)}. "
    )
    saved = share(sums.saved, sums.baseline)
    if known:
        return text.append(f"Saved {saved}.", "bold green")
    text.append(f"Saved {saved} before what evidence cost", "bold green")
    return text.append(": only the router's ledger knows that. Name its folder with --ledger.")


def _table(sums: Mapping[tuple[str, str], Sum], *, evidence: bool) -> Table:
    """A row for each tier and reason; `evidence` says whether its money is known."""
    whole = total(sums.values())
    table = Table(show_footer=len(sums) > 1)
    cells = ("all", "", *_numbers(whole, whole, evidence=evidence))
    titles = (*LEFT, "answers", "share", "paid", *(["evidence"] if evidence else []), "baseline")
    for title, foot in zip((*titles, "saved"), cells, strict=True):
        table.add_column(title, foot, justify="left" if title in LEFT else "right")
    for (tier, reason), one in sorted(sums.items(), key=lambda item: -item[1].answers):
        table.add_row(tier, words(reason), *_numbers(one, whole, evidence=evidence))
    return table


def _numbers(sums: Sum, whole: Sum, *, evidence: bool) -> tuple[str, ...]:
    of = sums.money
    return (
        f"{sums.answers:,}",
        percent(sums.answers / whole.answers if whole.answers else None),
        money(of.paid),
        *([money(of.shadow)] if evidence else []),
        money(of.baseline),
        share(of.saved, of.baseline),
    )
