"""How things read on a screen: money, time, the one line about an answer."""

import dataclasses
import datetime as dt
import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pennyweight.answers import Candidate, Decision, Finished

PIPED_WIDTH = 140
"""Columns of tables that no terminal shows."""

UNBOUNDED_WIDTH = 10_000
"""Columns in which every table has its natural width."""

BORDER, PADDING = 1, 2
"""Columns that a line of a table takes, and the blanks about a cell."""

_MICRO_USD, _MICRO_USD_OF_A_CENT = 1_000_000, 10_000

# Answers come from a model: nothing in them may steer the terminal.
_STEERING = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """A console, on a file or else a standard stream; wide enough for tables where it is piped.

    Text is never markup: what policies, models and people wrote is shown as it stands.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    width = PIPED_WIDTH if piped else None
    return Console(
        file=file, stderr=stderr, highlight=False, markup=False, emoji=False, width=width
    )


def add_columns(
    table: Table, words: Sequence[str], *, numbers: Sequence[str] = (), footers: Sequence[str] = ()
) -> None:
    """Adds columns of words to a table, then those of numbers, which are never broken."""
    for place, name in enumerate((*words, *numbers)):
        right = place >= len(words)
        foot = footers[place] if footers else ""
        table.add_column(name, foot, justify="right" if right else "left", no_wrap=right)


def say(screen: Console, text: Text | str, style: str = "") -> None:
    """A sentence: words stay whole on a terminal, and lines stay whole in a file."""
    screen.print(text, style=style or None, soft_wrap=not screen.is_terminal)


def print_table(screen: Console, table: Table, caption: str = "", *, named_by: int = 1) -> None:
    """A table, or a list of its rows where the screen is too narrow to keep its words whole.

    Args:
        screen: prints it.
        table: with text in its cells, and no other tables.
        caption: stands below.
        named_by: how many of the first columns say in a list what it goes on about.
    """
    if _fit(screen, table):
        screen.print(table)
    else:
        _print_rows(screen, table, named_by)
    if caption:
        say(screen, Text(caption, style="dim italic"))


def _fit(screen: Console, table: Table) -> bool:
    """Gives each column of a table its width, at least its longest word's; False: no room.

    Rich itself would rather break words than leave a wider column less.
    """
    unbounded = screen.options.update(width=UNBOUNDED_WIDTH)
    narrowest, widest = [], []
    for column in table.columns:
        cells = (column.header, *column.cells, column.footer)
        measured = [Measurement.get(screen, unbounded, cell) for cell in cells]
        widest.append(max(one.maximum for one in measured))
        narrow = max(one.minimum for one in measured)
        narrowest.append(widest[-1] if column.no_wrap else narrow)
    room = screen.width - BORDER * (len(widest) + 1) - PADDING * len(widest)
    if sum(narrowest) > room:
        return False
    if sum(widest) > room:
        spare = room - sum(narrowest)
        wanted = sum(widest) - sum(narrowest)
        for column, least, most in zip(table.columns, narrowest, widest, strict=True):
            column.width = least + spare * (most - least) // wanted
    return True


def _print_rows(screen: Console, table: Table, named_by: int) -> None:
    titles = [str(column.header) for column in table.columns]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    if table.show_footer:
        rows.append(tuple(column.footer for column in table.columns))
    for row in rows:
        name = " ".join(str(cell) for cell in row[:named_by] if str(cell))
        if name:
            say(screen, name, "bold")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for title, cell in list(zip(titles, row, strict=True))[named_by:]:
            if str(cell):
                grid.add_row(f"  {title}", cell)
        screen.print(grid)


def money(micro_usd: int) -> str:
    """Micro-dollars below a cent, dollars above."""
    if abs(micro_usd) < _MICRO_USD_OF_A_CENT:
        return f"{micro_usd:,} µ$"
    digits = 4 if abs(micro_usd) < _MICRO_USD else 2
    sign = "-" if micro_usd < 0 else ""
    return f"{sign}${abs(micro_usd) / _MICRO_USD:,.{digits}f}"


def dollars(micro_usd: int) -> str:
    """Dollars and cents, as of replicas; below a cent with more digits."""
    fine = 0 < abs(micro_usd) < _MICRO_USD_OF_A_CENT
    return f"${micro_usd / _MICRO_USD:,.{6 if fine else 2}f}"


def milliseconds(seconds: float | None) -> str:
    """Milliseconds; a dash where there is nothing to tell."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"  # noqa: PLR2004


def points(quality: float | None) -> str:
    """Quality in points of a hundred; a dash where it is not known."""
    return "-" if quality is None else f"{100 * quality:.1f} points"


def percent(part: float | None) -> str:
    """A share; a dash where it is not known."""
    return "-" if part is None else f"{part:.0%}"


def moment(time: dt.datetime | None) -> str:
    """A time to the second, in UTC; a dash where there is none."""
    return "-" if time is None else time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def words(name: str) -> str:
    """An enum's name as words: ``fixed_tier`` is ``fixed tier``."""
    return name.replace("_", " ")


def plain(text: str) -> str:
    """Text without what could steer a terminal; lines and tabs stay."""
    return text.translate(_STEERING)


def line(text: str) -> str:
    """Plain text on one line, for names and reasons in a table."""
    return " ".join(plain(text).split())


def share(saved: int, baseline: int) -> str:
    """What part of the baseline was saved."""
    return f"{saved / baseline:.0%}" if baseline else "-"


def summary_line(summary: Finished) -> Text:
    """Tier, why, cache, tokens, time, money: one answer in one line."""
    decision, usage, cost = summary.decision, summary.usage, summary.cost
    about = "about " if cost.estimated else ""
    parts = [
        f"{decision.tier} ({decision.precision})",
        words(decision.reason),
        f"cache {words(decision.cache)}",
        f"{usage.prompt_tokens} + {usage.output_tokens} tokens",
        f"engine {milliseconds(summary.timings.engine_seconds)}",
        f"total {milliseconds(summary.timings.total_seconds)}",
        f"{about}{money(cost.micro_usd)}, saved {money(cost.saved_micro_usd)}",
    ]
    if summary.finish_reason == "length":
        parts.append("cut at the token limit")
    return Text(" · ".join(parts), style="dim")


def print_decision(screen: Console, decision: Decision) -> None:
    """A decision: the tiers it weighed as a table, then the sentence and what belongs to it."""
    if decision.candidates:
        print_table(screen, _candidates(decision.candidates))
    where = f"replica {decision.replica}" if decision.replica else "no replica"
    stale = " The fleet is the last known one." if decision.fleet_stale else ""
    details = [
        f"route {decision.route}",
        f"tier {decision.tier}",
        f"model {decision.model} {decision.precision}",
        where,
        f"cache {words(decision.cache)}",
        f"policy {decision.policy_version}",
    ]
    if decision.calibration_version:
        details.append(f"calibration {decision.calibration_version}")
    if decision.evidence_propensity:
        details.append(f"evidence {decision.evidence_propensity:.1%}")
    if decision.halted_levers:
        details.append(f"halted {', '.join(decision.halted_levers)}")
    sentence = (f"{plain(decision.explanation)}{stale}\n", "bold")
    say(screen, Text.assemble(sentence, (line(" · ".join(details)), "dim")))


def print_json(kind: str, value: Any, **more: Any) -> None:
    """One object on one line of standard output, with more of it; times are RFC 3339."""
    shown = {"kind": kind, **dataclasses.asdict(value), **more}
    print(json.dumps(shown, ensure_ascii=False, default=_as_json), flush=True)  # noqa: T201


def _as_json(value: Any) -> Any:
    """What JSON has no word for: a time, or a dataclass within what is shown."""
    return value.isoformat() if isinstance(value, dt.datetime) else dataclasses.asdict(value)


def _candidates(candidates: tuple[Candidate, ...]) -> Table:
    table = Table()
    add_columns(table, ("tier", "verdict", "predicted gain", "certainty"), numbers=("paid",))
    for one in candidates:
        table.add_row(
            line(one.tier),
            words(one.verdict),
            _against(points(one.predicted_gain), "skipped above", points(one.skip_above_gain)),
            _against(_log_prob(one.certainty), "stands from", _log_prob(one.accept_at_certainty)),
            money(one.micro_usd) if one.micro_usd else "-",
            style="bold" if one.verdict == "chosen" else None,
        )
    return table


def _against(value: str, what: str, threshold: str) -> str:
    return value if threshold == "-" else f"{value} ({what} {threshold})"


def _log_prob(certainty: float | None) -> str:
    return "-" if certainty is None else f"{certainty:.3f}"
