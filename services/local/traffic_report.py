"""What the user sees of traffic: how far it is, then what the answers took."""

import asyncio
import time
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pennyweight import Client
from pennyweight.command.show import money, percent, share, words
from pennyweight.suggestions import hint_of
from services.local.stack import Stop
from services.local.traffic import Sum, Tally, Wanted, send

LEFT = ("tier", "why")
"""Columns of words; the rest are numbers."""


async def run_traffic(
    client: Client, questions: Iterator[str], wanted: Wanted, console: Console
) -> Tally:
    """Asks and shows; Ctrl-C ends the asking, not the showing. Returns what became of it.

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
    report.show()
    return tally


class Report:
    """What the user sees of it: a bar on a terminal, else a line for each tenth; then a table."""

    def __init__(self, console: Console, wanted: Wanted, tally: Tally) -> None:
        self._console = console
        self._wanted = wanted
        self._tally = tally
        self._began = time.monotonic()
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
        whole, done = tally.whole, tally.done
        note = (
            f"{tally.failures.total()} failed, {percent(tally.escalated)} escalated, "
            f"saved {share(whole.baseline - whole.paid, whole.baseline)}"
        )
        self._progress.update(self._task, completed=done, note=note)
        if not self._console.is_terminal and done * 10 // requests > self._said:
            self._said = done * 10 // requests
            self._console.print(f"{done:,} of {requests:,} · {note}", soft_wrap=True)

    def show(self) -> None:
        """The table, then how many were asked, what failed, and the money."""
        tally, whole = self._tally, self._tally.whole
        if tally.sums:
            self._console.print(_table(tally))
        seconds = time.monotonic() - self._began
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
        if tally.sums:
            self._console.print(
                Text.assemble(
                    f"Escalated {percent(tally.escalated)}. Paid {money(whole.paid)}; always the "
                    f"top tier, without a cache: {money(whole.baseline)}. ",
                    (f"Saved {share(whole.baseline - whole.paid, whole.baseline)}.", "bold green"),
                ),
                soft_wrap=True,
            )


def _table(tally: Tally) -> Table:
    whole = tally.whole
    table = Table(show_footer=len(tally.sums) > 1)
    cells = ("all", "", *_numbers(whole, whole))
    titles = (*LEFT, "answers", "share", "paid", "baseline", "saved")
    for title, foot in zip(titles, cells, strict=True):
        table.add_column(title, foot, justify="left" if title in LEFT else "right")
    for (tier, reason), sums in sorted(tally.sums.items(), key=lambda item: -item[1].answers):
        table.add_row(tier, words(reason), *_numbers(sums, whole))
    return table


def _numbers(sums: Sum, whole: Sum) -> tuple[str, ...]:
    return (
        f"{sums.answers:,}",
        percent(sums.answers / whole.answers),
        money(sums.paid),
        money(sums.baseline),
        share(sums.baseline - sums.paid, sums.baseline),
    )
