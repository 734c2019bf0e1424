"""Ours in the cells of `scaling_cells`: the very core with its defaults, or with others."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat

from bench import report
from bench.scaling_cells import load_of
from services.scaler.policy.sizing.settings import Capacity, Forecast, Objectives, Scale, Work
from services.scaler.simulator.core import Core
from services.scaler.simulator.fluid import run as serve
from services.scaler.simulator.lanes import Cell

Score = tuple[float, float]
"""Attainment and mean replicas."""
Scores = dict[str, Score]
"""Of each cell, by its name."""

VARIANTS: Mapping[str, Work] = {
    "defaults": Work(),
    "hold 0": Work(hold=0.0),
    "hold 1": Work(hold=1.0),
    "utilization 0.95": Work(utilization=0.95),
    "utilization 1": Work(utilization=1.0),
    "usual_share 0": Work(usual_share=0.0),
    "usual_share 0.4": Work(usual_share=0.4),
    "volatility 0.9": Work(volatility=0.9),
    "queue_seconds 8": Work(queue_seconds=8.0),
    "late_gain 0.005": Work(late_gain=0.005),
    "headroom_max 0.5": Work(headroom_max=0.5),
}
"""Changes of a knob each that are tried around the defaults, on the tuning days."""


def core_of(cell: Cell, work: Work, forecast: Forecast = Forecast.OFF) -> Core:
    """The core with its defaults, but for these of demand."""
    pool = cell.pool
    objectives = Objectives(ttft_seconds=pool.objective)
    scale = Scale(max=1024, objectives=objectives, work=work, forecast=forecast)
    return Core(
        scale, size=pool.size, places=pool.serving.places, start_seconds=pool.starts[0]
    )  # fmt: skip


def _served(cell: Cell, work: Work) -> Score:
    course = serve(cell.pool, cell.arrivals, core_of(cell, work))
    return course.attainment, course.replicas


def scored(cells: Sequence[Cell], works: Sequence[Work]) -> list[Scores]:
    """The core under each of these, in each cell, on all cores of this machine."""
    pairs = [(cell, work) for work in works for cell in cells]
    # A policy under a long trace takes seconds, so processes are worth their start.
    with processes() as pool:
        found = iter(list(pool.map(_served, *zip(*pairs, strict=True))))
    return [{cell.name: next(found) for cell in cells} for _ in works]


def variants(cells: Sequence[Cell], capacity: Capacity) -> list[tuple[str, ...]]:
    """Rows of a table: what each of `VARIANTS` comes to."""
    rows: list[tuple[str, ...]] = []
    for name, work in VARIANTS.items():
        report.say(f"ours, {name}")
        scores = scored(cells, [replace(work, capacity=capacity)])[0]
        worst = min(scores, key=lambda cell: scores[cell][0])
        below = sum(held < 0.99 for held, _ in scores.values())
        loads = [scores[cell.name][1] / load_of(cell) for cell in cells]
        row = (name, f"{100 * scores[worst][0]:.2f} ({worst})", f"{below}",
               f"{sum(loads) / len(loads):.4f}")  # fmt: skip
        rows.append(row)
    return rows


def forecasts(cells: Sequence[Cell], capacity: Capacity) -> list[tuple[str, ...]]:
    """Rows of a table: each cell without the core's forecast, with it, and how right that was."""
    with processes() as pool:
        return list(pool.map(forecast_of, cells, repeat(Work(capacity=capacity))))


def forecast_of(cell: Cell, work: Work) -> tuple[str, ...]:
    """A row of `forecasts`; errors are mean ones of ten minutes' growth, as logarithms."""
    shown = [cell.name]
    for forecast in (Forecast.OFF, Forecast.SEASON):
        core = core_of(cell, work, forecast)
        course = serve(cell.pool, cell.arrivals, core)
        shown.append(f"{100 * course.attainment:.2f} {course.replicas:.3f}")
    season = core.memory.work.season
    errors = (
        error / season.judged if season.judged else 0.0 for error in (season.error, season.plain)
    )
    return (*shown, *(f"{error:.3f}" for error in errors))


def processes() -> ProcessPoolExecutor:
    """All cores of this machine."""
    return ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
