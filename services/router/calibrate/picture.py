"""Draws the cost-quality curve as SVG, by Matplotlib: no scripts, and no server to look at it.

Its colours are CSS variables with values for light and dark screens, so that it reads on both, by
itself and inside a page; `page` has that page.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from services.router.calibrate.certification import Point
from services.router.policy.calibration import Certificate


@dataclass(frozen=True)
class Shade:
    """A colour: how it is called in CSS, and its value on light and on dark screens."""

    name: str
    light: str
    dark: str


PAPER = Shade("paper", "#ffffff", "#15181c")
INK = Shade("ink", "#1f2328", "#e6e8ea")
MUTED = Shade("muted", "#6a737d", "#9aa4ae")
GRID = Shade("grid", "#e4e7ea", "#2e343b")
CERTIFIED = Shade("certified", "#1a7f37", "#4ac26b")
LIMIT = Shade("limit", "#c62828", "#ff8a80")
SHADES = (PAPER, INK, MUTED, GRID, CERTIFIED, LIMIT)

STYLE = (
    f":root {{ {' '.join(f'--{shade.name}: {shade.light};' for shade in SHADES)} }}"
    " @media (prefers-color-scheme: dark) {"
    f" :root {{ {' '.join(f'--{shade.name}: {shade.dark};' for shade in SHADES)} }} }}"
    " text { font-family: system-ui, sans-serif !important; }"
)

SIZES = {"wide": (7.6, 4.4), "narrow": (3.9, 4.2)}
"""Width and height in inches, of 72 units each."""

ROOM = 0.08
"""Share of the axes' length that stays free beyond the outermost values."""


CROWDED = 0.5
"""Cost from which on there is no room for words beside a point."""


def curve(certificate: Certificate, points: Sequence[Point], size: str = "wide") -> str:
    """The drawing: cost to the right, lost points of quality upwards.

    Args:
        certificate: of the calibration.
        points: every candidate, safe to aggressive.
        size: a key of `SIZES`.
    """
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": size, "font.size": 10.0}):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(SIZES[size], facecolor=PAPER.light, layout=layout)
        axes = figure.add_subplot()
        _frame(axes, narrow=size == "narrow")
        _limits(axes, certificate, points)
        _points(axes, certificate, points)
        _labels(axes, certificate, narrow=size == "narrow")
        if points:
            figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK.light)
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=unsaid)
    return _themed(file.getvalue())


def points_of(value: float) -> str:
    """So many points, or one point."""
    return f"{value:g} point{'' if value == 1.0 else 's'}"


def _frame(axes: Axes, *, narrow: bool) -> None:
    axes.set_facecolor(PAPER.light)
    axes.set_axisbelow(True)
    axes.grid(color=GRID.light, linewidth=1.0)
    axes.tick_params(colors=MUTED.light, length=0.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    broken = "\n" if narrow else " "
    cost = f"cost, % of what the top tier{broken}takes for every request"
    axes.set_xlabel(cost, color=INK.light)
    axes.set_ylabel(f"quality lost against{broken}the top tier, points of 100", color=INK.light)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _limits(axes: Axes, certificate: Certificate, points: Sequence[Point]) -> None:
    costs = [1.0, *(point.cost for point in points)]
    losses = [0.0, certificate.epsilon, certificate.bound, *(point.loss for point in points)]
    low, high = 100.0 * min(losses), 100.0 * max(losses)
    room = ROOM * (high - low)
    axes.set_xlim(0.0, max(costs) * (1.0 + ROOM / 2.0))
    axes.set_ylim(low - room, high + room)


def _points(axes: Axes, certificate: Certificate, points: Sequence[Point]) -> None:
    costs, losses = [1.0], [0.0]
    costs += [point.cost for point in points]
    losses += [100.0 * point.loss for point in points]
    axes.plot(costs, losses, color=MUTED.light, linewidth=1.0, zorder=2)
    for certified, face, name in (
        (True, CERTIFIED, "certified"),
        (False, PAPER, "not certified"),
    ):
        shown = [point for point in points if point.certified is certified]
        if not shown:
            continue
        axes.plot(
            [point.cost for point in shown],
            [100.0 * point.loss for point in shown],
            color=face.light,
            linestyle="none",
            marker="o",
            markersize=5.0,
            markerfacecolor=face.light,
            markeredgecolor=(CERTIFIED if certified else MUTED).light,
            label=name,
            zorder=3,
        )
    axes.plot([1.0], [0.0], marker="s", markersize=7.0, color=INK.light, zorder=4)
    if certificate.certified:
        cost, loss, bound = _chosen(certificate)
        axes.plot([cost, cost], [loss, bound], color=CERTIFIED.light, linewidth=2.0, zorder=4)
        axes.plot([cost], [bound], marker="_", markersize=12.0, color=CERTIFIED.light, zorder=4)
        axes.plot(
            *([cost], [loss]),
            color=CERTIFIED.light,
            marker="o",
            markersize=10.0,
            markeredgecolor=INK.light,
            markeredgewidth=1.5,
            zorder=5,
        )


def _labels(axes: Axes, certificate: Certificate, *, narrow: bool) -> None:
    tolerance = 100.0 * certificate.epsilon
    axes.axhline(tolerance, color=LIMIT.light, linestyle=(0, (6, 4)), linewidth=1.5, zorder=2)
    text = f"tolerance, {points_of(tolerance)}"
    corner = axes.get_xlim()[1], tolerance
    _label(axes, text, corner, LIMIT, offset=(-2, 5))
    _label(axes, "top tier", (1.0, 0.0), INK, offset=(-4, 8))
    if certificate.certified:
        cost, loss, bound = _chosen(certificate)
        lines = [
            f"certified: {cost:.0%} of the cost,",
            f"{loss:.1f} points lost here,",
            f"at most {bound:.1f} with {1.0 - certificate.delta:.0%} probability",
        ]
        if narrow:
            lines[2:] = [f"at most {bound:.1f} with", f"{1.0 - certificate.delta:.0%} probability"]
        # The curve falls to the right, so that above it there is room.
        text = "\n".join(lines)
        if cost > CROWDED:
            _label(axes, text, corner, CERTIFIED, offset=(-2, -8), below=True)
        else:
            _label(axes, text, (cost, loss), CERTIFIED, offset=(12, 4), side="left")


def _label(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    shade: Shade,
    *,
    offset: tuple[float, float],
    side: Literal["left", "right"] = "right",
    below: bool = False,
) -> None:
    """Text whose named side stands at a point, moved by points of type, above it or `below`."""
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        color=shade.light,
        horizontalalignment=side,
        verticalalignment="top" if below else "bottom",
        zorder=6,
    )


def _chosen(certificate: Certificate) -> tuple[float, float, float]:
    """Cost as a share of the top tier's, and lost points: measured, and at most."""
    return 1.0 - certificate.saving, 100.0 * certificate.loss, 100.0 * certificate.bound


def _themed(svg: str) -> str:
    """Matplotlib's SVG with colours that follow the screen, to stand in a page or by itself."""
    svg = svg[svg.index("<svg ") :]
    # Two drawings may stand in one page, so that no name may come twice but those that are used.
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    for shade in SHADES:
        svg = svg.replace(shade.light, f"var(--{shade.name})")
    head = '<svg role="img" aria-label="cost-quality curve" '
    return svg.replace("<svg ", head, 1).replace(
        "<defs>", f"<style>{escape(STYLE)}</style><defs>", 1
    )
