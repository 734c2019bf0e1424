"""One page that shows runs beside each other: load, replicas, time to the first text, money.

The page is one HTML file without anything from elsewhere; its pictures are SVG in the colours of
the reader's screen, light or dark.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.scaler.simulator.course import HOUR, Course
from services.scaler.simulator.drawing import Curve, Panel, drawn
from services.scaler.simulator.silicon import Floats
from services.scaler.simulator.trial import thinned

MAX_POINTS = 1500
MAX_COURSES = 8
MAX_PARTS = 40
"""Of a page; with the points of all it stays below 2 MB."""
MAX_POINTS_OF_ALL = 24_000
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#14b8a6", "#ca8a04", "#ec4899")
"""Of runs, in turn; each stands out on white and on black."""

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
    some = next(iter(courses.values()))
    unit, name = _unit(some.ticks.at)
    replicas, ttft, money = [], [], []
    for colour, course in zip(COLOURS, courses.values(), strict=False):
        ticks, at = course.ticks, course.ticks.at / unit
        replicas.append(Curve(at, ticks.ready, colour, steps=True))
        ttft.append(Curve(at, ticks.ttft, colour))
        money.append(Curve(at, _spent(ticks.at, ticks.ready + ticks.starting, course), colour))
    spent = "replica-hours so far" if some.usd is None else "cost so far (USD)"
    load = Curve(some.ticks.at / unit, some.ticks.arrived, "currentColor")
    return drawn(
        [
            Panel("load (mean requests a second)", [load]),
            Panel("ready replicas", replicas),
            Panel("time to first text (s)", ttft, logarithmic=True),
            Panel(spent, money),
        ],
        name,
    )


def _unit(at: Floats) -> tuple[float, str]:
    if at[-1] > 2 * 86_400.0:
        return 86_400.0, "days"
    return (HOUR, "hours") if at[-1] > 2 * HOUR else (60.0, "minutes")


def _spent(at: Floats, sizes: Floats, course: Course) -> Floats:
    hours = np.asarray(np.cumsum(sizes * np.diff(at, prepend=0.0)) / HOUR, float)
    if course.usd is None or not course.replica_hours:
        return hours
    return hours * (course.usd / course.replica_hours)
