"""Scaling policies on days that none was tuned on, in every cell: ours, others', and who knows all.

Ours is the core with the defaults of scaling.yaml, one setting for all. Baselines come in two
settings, one for all cells and one for each cell, found on other days by ``python -m bench.tune``
and kept in ``bench/tuned.json``, as is what a clairvoyant needs. All see the demand in work, ours
as it makes it out of tokens, baselines exactly. A cell is a trace, a mean load and a start time;
see `scaling_cells`. Costs are mean replicas that were paid for; attainment is TTFT within 2 s.

All cells are served by ours and by each baseline's one setting. `--whole` adds the settings for
single cells, wrong models and none, another model of language and the tighter objective, and single
requests; `--quick` is Azure's hour alone, `--ours` leaves the others out.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench import report, scaling_cells, scaling_checks
from bench.scaling_ours import Scores, core_of, scored
from bench.scaling_scores import OURS, Compared, over, percent, shown
from bench.tune import COMMAND, tuned, without_lead
from services.scaler.policy.sizing.settings import Scale, Work
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.course import Course
from services.scaler.simulator.fluid import run as serve
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.page import page
from services.scaler.simulator.search import ATTAINMENT, tried
from services.scaler.simulator.silicon import Serving
from services.scaler.simulator.trial import Replica, read_as, trial

DRAWN = "azure8.w60"


def run(*, quick: bool, whole: bool, ours: bool, data: Path) -> None:
    """Serves all cells, and prints what came of them."""
    if gone := scaling_cells.missing(data):
        report.say(f"backtest: needs {', '.join(gone)}; give the folder with --data")
        return
    read = scaling_cells.read(data)
    groups = scaling_cells.groups(read, "score", read.serving, quick=quick)
    cells = [cell for group in groups for cell in group]
    compared = _compared(read.serving, groups, whole=whole, ours=ours)
    _tables(compared, cells, whole=whole)
    if whole:
        scaling_checks.others(read, cells, compared, quick=quick)
        scaling_checks.by_request(read, ours=ours)
    if not ours:
        _page(read, groups[0])
    if not quick:
        _time(read)
    for cell in cells:
        report.figure(f"backtest.{cell.name}.attainment", percent(compared.ours[cell.name]), "%")
    if compared.clairvoyant:
        _gap(compared)


def _compared(
    serving: Serving, groups: Sequence[Sequence[Cell]], *, whole: bool, ours: bool
) -> Compared:
    kept = tuned()
    cells = [cell for group in groups for cell in group]
    report.say(f"ours in {len(cells)} cells")
    scores = scored(cells, [Work(capacity=serving.capacity)])[0]
    single: dict[str, Scores] = {}
    each: dict[str, Scores] = {}
    for name, family in ({} if ours else families(serving)).items():
        if name not in kept["baselines"]:
            report.say(f"{family.title}: not tuned; run {COMMAND}")
            continue
        report.say(family.title)
        settings = kept["baselines"][name]
        for into in (single, each):
            into[name] = {}
        for group in [without_lead(one) for one in groups]:
            own = [settings["each"].get(cell.name) or settings["single"] for cell in group]
            held, used = tried(family, [settings["single"], *(own if whole else [])], group)
            for at, cell in enumerate(group):
                single[name][cell.name] = float(held[0, at]), float(used[0, at])
                if whole:
                    each[name][cell.name] = float(held[at + 1, at]), float(used[at + 1, at])
    known = {cell.name: kept["clairvoyant"].get(cell.name, {}) for cell in cells}
    least = {cell: float(found["replicas"]) for cell, found in known.items() if "replicas" in found}
    # Where no programme was solved: that share of the work, on replicas that are always full.
    floor = {
        cell.name: known[cell.name].get("floor", ATTAINMENT * scaling_cells.load_of(cell))
        for cell in cells
    }
    return Compared(scores, single, each, least, floor)


def _tables(compared: Compared, cells: Sequence[Cell], *, whole: bool) -> None:
    note = (
        "Each: % in time, mean replicas paid for; ! below 99 %. Clairvoyant: a schedule of who"
        " knows all arrivals, >= 99 %. Floor: what no schedule can go below, with fractions of"
        " replicas; what is possible lies between both. Settings were found on other days; w:"
        " seconds of a start."
    )
    tables = [("One setting for all cells", compared.single)]
    if whole and compared.each:
        tables.append(("Others with a setting for each cell", compared.each))
    for title, rows in tables:
        report.table(
            f"Unseen days. {title}",
            ("cell", "floor", "clairvoyant", OURS, *rows),
            [
                (
                    cell.name,
                    f"{compared.floor[cell.name]:.2f}",
                    _replicas(compared.clairvoyant, cell),
                    shown(compared.ours[cell.name]),
                    *(shown(scores[cell.name]) for scores in rows.values()),
                )
                for cell in cells
            ],
            note=note,
        )


def _replicas(known: Mapping[str, float], cell: Cell) -> str:
    return f"{known[cell.name]:.2f}" if cell.name in known else "-"


def _gap(compared: Compared) -> None:
    """How much of what the best single setting of others costs too much is saved."""
    settings = tuned()["baselines"]
    rows = []
    for name, scores in {OURS: compared.ours, **compared.single}.items():
        fails = sum(one[0] < ATTAINMENT for one in scores.values())
        rows.append(
            (name, f"{compared.over_clairvoyant(scores):.3f}",
             f"{over(scores, compared.floor):.3f}", f"{fails} of {len(scores)}",
             "yes" if name == OURS or settings[name]["holds"] else "no")
        )  # fmt: skip
    report.table(
        "One setting over all cells",
        ("policy", "cost over clairvoyant", "over the floor", "cells below 99 %",
         "held all on its tuning days"),
        rows,
    )  # fmt: skip
    ours = compared.over_clairvoyant(compared.ours)
    report.figure("backtest.over_clairvoyant", ours, "x")
    able = {
        name: compared.over_clairvoyant(scores) for name, scores in compared.single.items()
        if settings[name]["holds"]
    }  # fmt: skip
    if able:
        best = min(able, key=lambda name: able[name])
        report.say(f"the best single setting of others is {best}'s: {able[best]:.3f}")
        report.figure("backtest.gap_closed", 100 * (able[best] - ours) / (able[best] - 1.0), "%")
        floors = [over(scores, compared.floor) for scores in (compared.single[best], compared.ours)]
        to_floor = 100 * (floors[0] - floors[1]) / (floors[0] - 1.0)
        report.figure("backtest.gap_to_floor_closed", to_floor, "%")


def _page(read: scaling_cells.Data, hours: Sequence[Cell]) -> None:
    cell = next(one for one in hours if one.name == DRAWN)
    pool = replace(cell.pool, usd_per_hour=3.0)
    courses: dict[str, Course] = {
        OURS: serve(pool, cell.arrivals, core_of(cell, Work(capacity=read.serving.capacity)))
    }
    for name, family in families(read.serving).items():
        knobs = tuned()["baselines"].get(name, {}).get("each", {}).get(cell.name)
        if knobs:
            courses[family.title] = serve(pool, cell.arrivals, Alone(family, knobs, read.serving))
    path = Path(tempfile.gettempdir()) / "pennyweight-backtest.html"
    note = (
        "Azure's conversation trace of 2023 at a mean load of 8 replicas (Llama-3.1-8B on H100,"
        " $3 an hour), starts of 60 s; baselines with the knobs found for this cell on other draws."
    )
    path.write_text(page("Backtest: azure8.w60", note, courses))
    report.say(f"picture: {path}")


def _time(read: scaling_cells.Data) -> None:
    """How long two weeks take, from rates to the course."""
    replica = Replica(read.serving.capacity, read.serving.places, 60.0)
    times = 8.0 * read.serving.throughput / float(read.servegen.per_second.mean())
    begin = time.perf_counter()
    trial(
        Scale(max=64, work=Work(capacity=read.serving.capacity)),
        read_as(read.servegen, replica, times=times),
    )
    report.figure("simulate.time_14_days", time.perf_counter() - begin, "s")
