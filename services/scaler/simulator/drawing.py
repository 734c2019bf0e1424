"""Curves over one axis of time, below each other, as SVG: plain text, in the reader's colours.

Written out by hand, so that a page needs nothing where trials run but what trials need anyway.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.scaler.simulator.silicon import Floats

WIDTH, LEFT, RIGHT = 900.0, 70.0, 10.0
HEIGHT, ABOVE, BELOW = 170.0, 22.0, 34.0
"""Of one panel, its title above, and the axis of time below the last."""
TICKS = 6
LOG_LEAST = 1e-3
"""Least value on a logarithmic axis."""


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        at, values: of one length, `at` rising.
        colour: as CSS has it.
        steps: each value holds until the next.
    """

    at: Floats
    values: Floats
    colour: str
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over one axis.

    Attributes:
        title: what the values are, and in what unit.
        curves: one at least.
        logarithmic: equal ratios are equal steps.
    """

    title: str
    curves: Sequence[Curve]
    logarithmic: bool = False


def drawn(panels: Sequence[Panel], axis: str) -> str:
    """The panels as one SVG; `axis` names what time is counted in."""
    end = max(float(curve.at[-1]) for panel in panels for curve in panel.curves)
    height = len(panels) * HEIGHT + BELOW
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}"'
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="currentColor"'
    parts = [f"{begin} {style}>"]
    for place, panel in enumerate(panels):
        parts += _panel(panel, place * HEIGHT, end)
    bottom = len(panels) * HEIGHT
    for value in _round_values(0.0, end):
        parts.append(_text(f"{value:g}", _across(value, end), bottom + 14.0, "middle"))
    parts.append(_text(axis, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 29.0, "middle"))
    return "\n".join([*parts, "</svg>"])


def _panel(panel: Panel, top: float, end: float) -> list[str]:
    low, high = _bounds(panel)
    first, last = top + ABOVE, top + HEIGHT - 8.0

    def down(values: Floats) -> Floats:
        of = np.log10(np.maximum(values, LOG_LEAST)) if panel.logarithmic else values
        return np.asarray(last - (of - low) / (high - low) * (last - first), float)

    parts = [_text(panel.title, LEFT, top + 15.0, "start")]
    for value in _marks(panel, low, high):
        at = float(down(np.array([value]))[0])
        parts.append(
            f'<path d="M{LEFT:g} {at:.1f}H{WIDTH - RIGHT:g}" stroke="currentColor" '
            'stroke-opacity=".15"/>'
        )
        parts.append(_text(f"{value:,g}", LEFT - 6.0, at + 4.0, "end"))
    for curve in panel.curves:
        across = LEFT + curve.at / max(end, 1e-9) * (WIDTH - RIGHT - LEFT)
        parts.append(
            f'<path d="{_path(across, down(curve.values), steps=curve.steps)}" '
            f'stroke="{curve.colour}" fill="none" stroke-linejoin="round"/>'
        )
    return parts


def _path(across: Floats, down: Floats, *, steps: bool) -> str:
    points = zip(across.tolist(), down.tolist(), strict=True)
    first, *others = ((f"{x:.1f}", f"{y:.1f}") for x, y in points)
    lines = [f"H{x}V{y}" if steps else f"L{x} {y}" for x, y in others]
    return f"M{first[0]} {first[1]}{''.join(lines)}"


def _bounds(panel: Panel) -> tuple[float, float]:
    """Least and greatest value of the axis, in logarithms where it is logarithmic."""
    most = max(float(curve.values.max(initial=0.0)) for curve in panel.curves)
    if not panel.logarithmic:
        return 0.0, 1.05 * most if most > 0.0 else 1.0
    least = min(float(curve.values.min(initial=most)) for curve in panel.curves)
    low, high = (math.log10(max(one, LOG_LEAST)) for one in (least, most))
    return math.floor(low), max(math.ceil(high), math.floor(low) + 1)


def _marks(panel: Panel, low: float, high: float) -> list[float]:
    if panel.logarithmic:
        return [10.0**power for power in range(round(low), round(high) + 1)]
    return _round_values(low, high)


def _round_values(low: float, high: float) -> list[float]:
    """Round numbers from one to the other, about as many as fit."""
    rough = max(high - low, 1e-9) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= rough)
    return [number * step for number in range(math.ceil(low / step), int(high / step) + 1)]


def _across(value: float, end: float) -> float:
    return LEFT + value / max(end, 1e-9) * (WIDTH - RIGHT - LEFT)


def _text(said: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(said)}</text>'
