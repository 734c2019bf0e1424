"""Tables on screens of any width: words stay whole, and text is never markup."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pennyweight.answers import (
    Candidate,
    Decision,
    Lever,
    LeverList,
    LeverWatch,
    Route,
    RouteQuality,
    RouteWatch,
    Tier,
)
from pennyweight.command import fleet, levers, routes
from pennyweight.command import ledger as ledger_command
from pennyweight.command.show import add_columns, console, print_decision, print_table, say
from pennyweight.ledger.sums import By, Sums

TIER = Tier("small", "support-small", "int8", 100_000, 3_200_000, 4096, 1)
QUALITY = RouteQuality(0.01, "2026-11-21-0c1d", 0.0088, 0.17, 0.73)
ROUTES = [
    Route("support-chat", "Of [/INST] customers", (TIER, TIER), "", 64, 256, 20.0, QUALITY),
    Route("support-expert", "[slug] where it is dear", (TIER, TIER), "small", 64, 256, 20.0),
]
REASON = "the answers about [/INST] fees were wrong since the prices had changed"
WATCH = LeverWatch(1204, 0.004, 0.02, 0.31, 100_000)
LEVERS = (Lever("support-chat", "tier:small", "halted", "ada", REASON, watch=WATCH),)
REPLICA = fleet.Replica("small-cpu-1a2b3c", "ready", "127.0.0.1:18101")
POOLS = [
    fleet.Pool(
        *("small-cpu", "small", "support-small", "int8", "on_demand"),
        *(1, 2, 1, 0, 1.9, "out of memory [/x] at slot 18101", (REPLICA,)),
        why="1 replica: 12 requests wait [/x], 4 by replica are aimed at",
    )
]
SUMS = [Sums("support-chat", 3000, 700, 45_000, 60_000, 123_456, 2_345, 654_321, 780_122)] * 2
SUMS = [*SUMS, SUMS[0]]
CANDIDATES = (
    Candidate("small", "unsure", 0.031, 0.08, -0.71, -0.45, 3),
    Candidate("large", "chosen"),
)

TABLES = {
    "routes": lambda: routes._ladders(ROUTES),
    "qualities without shared state": lambda: routes._qualities(
        ROUTES[:1], {"support-chat": [Lever("support-chat", "tier:small", "unknown")]}
    ),
    "qualities": lambda: routes._qualities(ROUTES[:1], {"support-chat": LEVERS}),
    "levers": lambda: levers._table(LeverList(LEVERS, "v1", (RouteWatch("support-chat", WATCH),))),
    "pools": lambda: fleet._table(POOLS),
    "ledger": lambda: ledger_command._table(
        By.ROUTE, ledger_command.COSTS, [ledger_command._costs(one) for one in SUMS]
    ),
    "outcomes": lambda: ledger_command._table(
        By.ROUTE, ledger_command.OUTCOMES, [ledger_command._outcomes(one) for one in SUMS]
    ),
}


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=width, markup=False, emoji=False), table)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("name", TABLES)
def test_no_word_is_broken_or_cut(name: str, width: int) -> None:
    table = TABLES[name]()
    words = {
        word
        for place, column in enumerate(table.columns)
        for cell in (column.header if place else "", *column.cells, column.footer)
        for word in str(cell).split()
    }
    shown = printed(table, width)
    assert words <= set(re.split(r"[\s│┃]+", shown))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_the_tables_of_80_columns_are_tables_where_they_fit() -> None:
    assert "┏" in printed(TABLES["routes"](), 80)
    assert "┏" not in printed(TABLES["pools"](), 80)
    assert "┏" in printed(TABLES["pools"](), 120)


def test_a_list_names_what_it_goes_on_about() -> None:
    table = Table(show_footer=True)
    add_columns(table, ("route", "lever", "why"), footers=("all", "", "three"))
    table.add_row("chat", "cache", "a long word: " + "x" * 30)
    table.add_row("", "trimming", "")
    out = io.StringIO()
    print_table(Console(file=out, width=38), table, "policy v1", named_by=2)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        "chat cache",
        "  why a long word:",
        f"      {'x' * 30}",
        "trimming",
        "all",
        "  why three",
        "policy v1",
    ]


def test_the_console_of_the_commands_knows_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    screen = console()
    table = Table()
    table.add_column("[bold]title[/bold]")
    table.add_row("[/INST] :smile: [red]")
    screen.print(table)
    say(screen, "[slug] [/x]")
    said = capsys.readouterr().out
    for text in ("[bold]title[/bold]", "[/INST] :smile: [red]", "[slug] [/x]"):
        assert text in said


def test_a_decision_shows_what_it_is_told_as_it_stands() -> None:
    decision = Decision(
        *("chat", "v[1]", "small", "m[/x]", "int8", "r-0", "escalated"),
        *("large answers: \x1b[2J[/INST].", "miss", False, CANDIDATES),
    )
    out = io.StringIO()
    print_decision(Console(file=out, width=200, markup=False), decision)
    assert "large answers: [2J[/INST]." in out.getvalue()
    assert "model m[/x] int8" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_sentences_wrap_on_a_terminal_and_nowhere_else() -> None:
    sentence = Text("word " * 30)
    for terminal, lines in ((True, 4), (False, 1)):
        out = io.StringIO()
        say(Console(file=out, width=40, force_terminal=terminal), sentence)
        assert len(out.getvalue().splitlines()) == lines
