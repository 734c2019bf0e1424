"""One page that shows runs beside each other: load, replicas, time to the first text, money.

The page is one HTML file without anything from elsewhere; its pictures are SVG, drawn by
matplotlib, in the colours of the reader's screen, light or dark.
"""

import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.scaler.simulator.course import HOUR, Course
from services.scaler.simulator.silicon import Floats
from services.scaler.simulator.trial import thinned

MAX_POINTS = 1500
MAX_COURSES = 8
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#14b8a6", "#ca8a04", "#ec4899")
"""Of runs, in turn; each stands out on white and on black."""
INK = "#010203"
"""What matplotlib draws where the page's own colour is to be."""

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


def page(title: str, note: str, courses: Mapping[str, Course], *, aim: float = 0.99) -> str:
    """The page.

    Args:
        title: of it.
        note: what was simulated, in a sentence or two.
        courses: runs over the same trace, by the name of the policy; at most 8.
        aim: share of answers that are to begin in time.

    Raises:
        ValueError: there is no run, or too many.
    """
    if not 1 <= len(courses) <= MAX_COURSES:
        raise ValueError(f"a page shows from 1 to {MAX_COURSES} runs, not {len(courses)}")
    few = {name: thinned(course, MAX_POINTS) for name, course in courses.items()}
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n<p>{html.escape(note)}</p>\n"
        f"{_table(courses, aim)}\n{_pictures(few)}\n</body></html>\n"
    )


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


def _pictures(courses: Mapping[str, Course]) -> str:
    import matplotlib as mpl  # noqa: PLC0415 - whoever only simulates needs none
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "pennyweight", "text.color": INK,
        "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9.0, 9.5), layout="constrained")
        figure.patch.set_alpha(0.0)
        load, replicas, ttft, money = figure.subplots(4, 1, sharex=True)
        some = next(iter(courses.values()))
        unit, name = _unit(some.ticks.at)
        load.plot(some.ticks.at / unit, some.ticks.arrived, color=INK, linewidth=0.8)
        load.set_ylabel("load\n(mean requests a second)")
        for colour, course in zip(COLOURS, courses.values(), strict=False):
            at = course.ticks.at / unit
            sizes = course.ticks.ready + course.ticks.starting
            drawn = {"color": colour, "linewidth": 1.0}
            replicas.step(at, course.ticks.ready, where="post", **drawn)
            ttft.plot(at, np.maximum(course.ticks.ttft, 1e-3), **drawn)
            money.plot(at, _spent(course.ticks.at, sizes, course), **drawn)
        replicas.set_ylabel("ready replicas")
        ttft.set_ylabel("time to first text (s)")
        ttft.set_yscale("log")
        priced = some.usd is not None
        money.set_ylabel("cost so far (USD)" if priced else "replica-hours so far")
        money.set_xlabel(name)
        for axes in (load, replicas, ttft, money):
            axes.patch.set_alpha(0.0)
            axes.grid(visible=True, color=INK, alpha=0.12, linewidth=0.6)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    picture = written.getvalue()
    return picture[picture.index("<svg") :].replace(INK, "currentColor")


def _unit(at: Floats) -> tuple[float, str]:
    if at[-1] > 2 * 86_400.0:
        return 86_400.0, "days"
    return (HOUR, "hours") if at[-1] > 2 * HOUR else (60.0, "minutes")


def _spent(at: Floats, sizes: Floats, course: Course) -> Floats:
    hours = np.asarray(np.cumsum(sizes * np.diff(at, prepend=0.0)) / HOUR, float)
    if course.usd is None or not course.replica_hours:
        return hours
    return hours * (course.usd / course.replica_hours)
