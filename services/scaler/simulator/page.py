"""One page that shows runs beside each other: load, replicas, time to the first text, money.

The page is one HTML file without anything from elsewhere; its pictures are SVG, drawn by
matplotlib, in the colours of the reader's screen, light or dark.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.scaler.simulator.course import HOUR, Course
from services.scaler.simulator.silicon import Floats
from services.scaler.simulator.trial import thinned

MAX_POINTS = 1500
MAX_COURSES = 8
MAX_PARTS = 40
"""Of a page; with the points of all it stays below 3 MB, which a message holds."""
MAX_POINTS_OF_ALL = 10_000
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#14b8a6", "#ca8a04", "#ec4899")
"""Of runs, in turn; each stands out on white and on black."""
INK = "#010203"
"""What matplotlib draws where the page's own colour is to be."""
SILENT = ("Creator", "Date", "Format", "Type")
"""What a picture says of itself unless it is told not to."""
LEAST_SHOWN = 1e-3
"""Seconds: nothing is below on a logarithmic axis."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --paper: #ffffff; --line: #d1d5db; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --paper: #111827; --line: #374151; }
}
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
svg { color: var(--ink); height: auto; width: 100%; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
i { border-radius: 2px; display: inline-block; height: .8em; margin-right: .5em; width: .8em; }
"""


@dataclass(frozen=True)
class Part:
    """Runs over the same trace.

    Attributes:
        name: of what was served, such as a pool; empty: it needs none.
        courses: by the name of the policy, from 1 to 8.
    """

    name: str
    courses: Mapping[str, Course]


def page(title: str, note: str, courses: Mapping[str, Course], *, aim: float = 0.99) -> str:
    """The page of runs over one trace; see `pages`."""
    return pages(title, note, [Part("", courses)], aim=aim)


def pages(title: str, note: str, parts: Sequence[Part], *, aim: float = 0.99) -> str:
    """The page.

    Args:
        title: of it.
        note: what was simulated, in a sentence or two.
        parts: one below the other; at most 40.
        aim: share of answers that are to begin in time.

    Raises:
        ValueError: there is no run, or too many.
    """
    counts = [len(part.courses) for part in parts]
    if not 1 <= len(parts) <= MAX_PARTS or not all(1 <= one <= MAX_COURSES for one in counts):
        raise ValueError(
            f"a page shows from 1 to {MAX_PARTS} parts of 1 to {MAX_COURSES} runs, not {counts}"
        )
    points = min(MAX_POINTS, MAX_POINTS_OF_ALL // sum(counts))
    shown = "\n".join(_part(part, points, aim) for part in parts)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n<p>{html.escape(note)}</p>\n{shown}\n</body></html>\n"
    )


def _part(part: Part, points: int, aim: float) -> str:
    few = {name: thinned(course, points) for name, course in part.courses.items()}
    heading = f"<h2>{html.escape(part.name)}</h2>\n" if part.name else ""
    return f"{heading}{_table(part.courses, aim)}\n{picture(few)}"


def _table(courses: Mapping[str, Course], aim: float) -> str:
    head = (
        "policy", "in time", "replica-hours", "mean replicas", "cost", "changes", "TTFT p95",
        "mean wait", "wasted starts",
    )  # fmt: skip
    rows = []
    for colour, (name, course) in zip(COLOURS, courses.items(), strict=False):
        mark = "" if course.attainment >= aim else " ⚠"
        cells = (
            f"{100 * course.attainment:.2f} %{mark}",
            f"{course.replica_hours:,.1f}",
            f"{course.replicas:.2f}",
            "-" if course.usd is None else f"${course.usd:,.2f}",
            f"{course.changes:,}",
            f"{course.ttft_p95:.2f} s",
            f"{course.wait:.2f} s",
            f"{course.wasted_hours:.1f} h",
        )
        label = f'<i style="background:{colour}"></i>{html.escape(name)}'
        rows.append(f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = "".join(f"<th>{name}</th>" for name in head)
    below = f"<p>⚠ fewer than {100 * aim:g} % in time.</p>"
    warned = below if any(one.attainment < aim for one in courses.values()) else ""
    return (
        f'<div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{warned}"
    )


def picture(courses: Mapping[str, Course]) -> str:
    """Runs over the same trace as one SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - whoever asks for no page needs none
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "pennyweight", "text.color": INK,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9.0, 9.5))  # laid out by hand: to measure all takes seconds
        figure.patch.set_alpha(0.0)
        load, replicas, ttft, money = figure.subplots(4, 1, sharex=True)
        figure.subplots_adjust(left=0.1, right=0.99, bottom=0.05, top=0.99, hspace=0.1)
        some = next(iter(courses.values()))
        unit, name = _unit(some.ticks.at)
        load.plot(some.ticks.at / unit, some.ticks.arrived, color=INK, linewidth=0.8)
        load.set_ylabel("load (requests a second)")
        for colour, course in zip(COLOURS, courses.values(), strict=False):
            ticks, at = course.ticks, course.ticks.at / unit
            drawn = {"color": colour, "linewidth": 1.0}
            replicas.step(at, ticks.ready, where="post", **drawn)
            ttft.plot(at, np.maximum(ticks.ttft, LEAST_SHOWN), **drawn)
            money.plot(at, _spent(ticks.at, ticks.ready + ticks.starting, course), **drawn)
        replicas.set_ylabel("ready replicas")
        ttft.set_ylabel("time to first text (s)")
        ttft.set_yscale("log")
        money.set_ylabel("replica-hours so far" if some.usd is None else "cost so far (USD)")
        money.set_xlabel(name)
        for axes in (load, replicas, ttft, money):
            axes.patch.set_alpha(0.0)
            if axes is not ttft:
                axes.set_ylim(bottom=0.0)
            axes.grid(visible=True, color=INK, alpha=0.12, linewidth=0.6)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata=dict.fromkeys(SILENT))
    svg = written.getvalue()
    return _small(svg[svg.index("<svg") :].replace(INK, "currentColor"))


def _small(svg: str) -> str:
    """Without names that nothing refers to, which a page has once, and with tenths of a point."""
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)


def _unit(at: Floats) -> tuple[float, str]:
    if at[-1] > 2 * 86_400.0:
        return 86_400.0, "days"
    return (HOUR, "hours") if at[-1] > 2 * HOUR else (60.0, "minutes")


def _spent(at: Floats, sizes: Floats, course: Course) -> Floats:
    hours = np.asarray(np.cumsum(sizes * np.diff(at, prepend=0.0)) / HOUR, float)
    if course.usd is None or not course.replica_hours:
        return hours
    return hours * (course.usd / course.replica_hours)
