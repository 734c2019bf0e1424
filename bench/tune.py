"""``python -m bench.tune [--data FOLDER]``: searches what `python -m bench backtest` compares with.

Takes half an hour or so: the knobs of every baseline on the tuning days, and the clairvoyant
schedules of the days that are scored. What is found goes to ``bench/tuned.json``, a part at a time.
``--only ours`` tries changes of our own defaults on the tuning days, ``--only forecast`` the core's
forecast on those of ServeGen; neither keeps anything.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import report, scaling_cells, scaling_ours
from services.common.files import write_whole
from services.scaler.simulator import clairvoyant
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.baselines import families
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.search import Size, search

TUNED = Path(__file__).with_name("tuned.json")
COMMAND = "python -m bench.tune"
FLOOR_SECONDS = 7200.0
"""Longest trace that the floor's linear programme is solved for in minutes."""
SEARCHED_DAYS = 1.0
"""Knobs are searched on so many days; the choice among the best is made on all."""
SHORTS = (0.75, 0.4)
"""Shares of the objective that clairvoyant schedules are made for; the cheapest that holds wins."""
LEAD_SECONDS = 7200.0
"""Baselines learn nothing, so that this much of the day before is enough for them."""


def tuned() -> dict[str, Any]:
    """What was found; empty parts where nothing was."""
    if not TUNED.exists():
        return {"command": COMMAND, "baselines": {}, "clairvoyant": {}}
    found: dict[str, Any] = json.loads(TUNED.read_text())
    return found


def keep(part: str, name: str, value: Any) -> None:
    """Keeps one result."""
    found = tuned()
    found[part][name] = value
    write_whole(TUNED, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


def baselines(
    data: scaling_cells.Data, names: list[str], size: Size, chosen_on: float | None
) -> None:
    """Searches the knobs of these families; the choice is made on so many days, None: all."""
    serving = data.serving
    hours = scaling_cells.hours(data, "tune", serving)
    days = scaling_cells.days(data, "tune", serving, scored=chosen_on)
    part = scaling_cells.days(data, "tune", serving, scored=min(SEARCHED_DAYS, chosen_on or 6.0))
    groups = [hours, without_lead(part)]
    whole = [hours, without_lead(days)]
    measure = {cell.name: scaling_cells.load_of(cell) for group in whole for cell in group}
    known = families(serving)
    for name in names or list(known):
        found = search(known[name], groups, whole, measure, size=size, seed=1, tell=report.say)
        report.say(f"{name}: {found.cost:.3f} x the mean load, holds every cell: {found.holds}")
        value = {
            "single": found.single, "holds": found.holds, "cost": round(found.cost, 4),
            "each": found.each, "tried": found.tried,
            "days": chosen_on or 6.0,
        }  # fmt: skip
        keep("baselines", name, value)


def without_lead(cells: Sequence[Cell]) -> list[Cell]:
    """The same with a short lead-in; those of one trace share its arrivals, as lanes do."""
    if cells[0].pool.warm <= LEAD_SECONDS:
        return list(cells)
    kept: dict[int, Arrivals] = {}
    short = []
    for cell in cells:
        arrivals = kept.get(id(cell.arrivals))
        if arrivals is None:
            begin = cell.pool.warm - LEAD_SECONDS
            arrivals = cell.arrivals.between(begin, cell.arrivals.seconds)
            kept[id(cell.arrivals)] = arrivals
        short.append(Cell(cell.name, arrivals, replace(cell.pool, warm=LEAD_SECONDS)))
    return short


def ours(data: scaling_cells.Data, chosen_on: float | None) -> None:
    """What changes of single knobs of the core come to on the tuning days."""
    cells = scaling_cells.hours(data, "tune", data.serving)
    cells += scaling_cells.days(data, "tune", data.serving, scored=chosen_on or 6.0)
    report.table(
        "Ours on the tuning days, with one knob changed",
        ("change", "worst, % in time", "cells below 99 %", "replicas by mean load"),
        scaling_ours.variants(cells, data.serving.capacity),
    )


def forecast(data: scaling_cells.Data, chosen_on: float | None) -> None:
    """What the core's forecast comes to on ServeGen's tuning days."""
    cells = scaling_cells.days(data, "tune", data.serving, scored=chosen_on or 6.0)
    report.table(
        "Ours on ServeGen's tuning days, without a forecast and with the day before",
        ("cell", "off", "season", "error of season", "of none"),
        scaling_ours.forecasts(cells, data.serving.capacity),
        note="Each: % in time, mean replicas paid for; mean errors of ten minutes' growth.",
    )


def clairvoyants(data: scaling_cells.Data, wanted: list[str]) -> None:
    """The clairvoyant schedule and the floor of each cell that is scored."""
    groups = (
        (scaling_cells.hours(data, "score", data.serving), 5.0),
        (scaling_cells.days(data, "score", data.serving), 30.0),
    )
    for cells, slot in groups:
        traces = {cell.name.rsplit(".", 1)[0] for cell in cells}
        for trace in sorted(traces):
            if not wanted or trace in wanted:
                _clairvoyant([cell for cell in cells if cell.name.startswith(trace + ".")], slot)


def _clairvoyant(cells: list[Cell], slot: float) -> None:
    # A day of lead-in would be planned for nothing.
    lead = min(cells[0].pool.warm, 3600.0)
    arrivals = cells[0].arrivals.between(cells[0].pool.warm - lead, cells[0].arrivals.seconds)
    pool = replace(cells[0].pool, warm=lead)
    starts = [cell.pool.starts[0] for cell in cells]
    # Where lengths drift a schedule needs something to spare; an hour is quickly planned twice.
    shares = SHORTS if arrivals.seconds < FLOOR_SECONDS else SHORTS[:1]
    found = [
        clairvoyant.best_schedules(
            pool, arrivals, starts, slot=slot, short=short, tell=report.say
        )
        for short in shares
    ]  # fmt: skip
    for cell, *tries in zip(cells, *found, strict=True):
        able = [one for one in tries if one is not None]
        best = min(able, key=lambda one: one.replicas, default=None)
        if best is None:
            report.say(f"{cell.name}: no schedule keeps the attainment")
            continue
        value = {
            "replicas": round(best.replicas, 4), "attainment": round(best.attainment, 5),
            "price": round(best.price, 5),
        }  # fmt: skip
        if arrivals.seconds < FLOOR_SECONDS:
            own = replace(pool, starts=cell.pool.starts)
            value["floor"] = round(clairvoyant.floor(own, arrivals, slot=slot), 4)
        report.say(f"{cell.name}: {value}")
        keep("clairvoyant", cell.name, value)


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--family", action="append", default=[], help="a baseline; default: all")
    parser.add_argument(
        "--cell", action="append", default=[], help="a trace, such as azure8; default: all"
    )
    parser.add_argument("--tried", type=float, default=1.0, help="times as many settings")
    parser.add_argument("--days", type=float, help="that the choice is made on; default: all six")
    parser.add_argument("--only", choices=["baselines", "clairvoyant", "ours", "forecast"])
    arguments = parser.parse_args()
    if gone := scaling_cells.missing(arguments.data):
        parser.error(f"--data: {', '.join(gone)} missing")
    data = scaling_cells.read(arguments.data)
    part = float(arguments.tried)
    size = Size(first=round(400 * part), kept=round(64 * part), near=round(64 * part))
    parts: dict[str, Callable[[], None]] = {
        "baselines": lambda: baselines(data, arguments.family, size, arguments.days),
        "clairvoyant": lambda: clairvoyants(data, arguments.cell),
        "ours": lambda: ours(data, arguments.days),
        "forecast": lambda: forecast(data, arguments.days),
    }
    for name in [arguments.only] if arguments.only else ["baselines", "clairvoyant"]:
        parts[name]()


if __name__ == "__main__":
    main()
