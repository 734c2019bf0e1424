"""What a benchmark prints: what it is doing, one table, and lines that a program can read."""

import statistics
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_started = time.monotonic()
_console = Console(width=None if sys.stdout.isatty() else 110)


def say(text: str) -> None:
    """Says what happens now, with the seconds since the start."""
    print(f"{time.monotonic() - _started:6.1f} s  {text}", file=sys.stderr, flush=True)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> None:
    """Prints a table; all columns but the first are figures."""
    shown = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    for number, column in enumerate(columns):
        # Names stay whole; figures may take two lines.
        shown.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        shown.add_row(*row)
    _console.print(shown)


def figure(name: str, value: float, unit: str) -> None:
    """Prints one figure. Units: ms, s, us, /s, x, MiB, % (0 to 100)."""
    # Three digits, and three after the point below 1, so that rounding reaches no aim.
    digits = 3 if abs(value) < 1.0 else max(0, 3 - len(str(int(abs(value)))))
    print(f"figure {name} {value:.{digits}f} {unit}", flush=True)


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


median = statistics.median
