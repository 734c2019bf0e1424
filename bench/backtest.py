"""Scaling policies on days that none was tuned on, in every cell: ours, others', and who knows all.

Ours is the core with the defaults of scaling.yaml, one setting for all. Baselines come in two
settings, one for all cells and one for each cell, found on other days by ``python -m bench.tune``
and kept in ``bench/tuned.json``, as is what a clairvoyant needs. All see the demand in work, ours
as it makes it out of tokens, baselines exactly. A cell is a trace, a mean load and a start time;
see `scaling_cells`. Costs are mean replicas that were paid for; attainment is TTFT within 2 s.

All cells are served by ours and by each baseline's one setting. `--whole` adds the settings for
single cells, wrong models, another model and the tighter objective, and single requests; `--quick`
is Azure's hour alone, `--ours` leaves the others out.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import report, scaling_cells
from bench.scaling_ours import Scores, core_of, scored
from bench.tune import COMMAND, tuned, without_lead
from services.scaler.policy.sizing.settings import Capacity, Scale, Work
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.course import Course
from services.scaler.simulator.fluid import Sizer
from services.scaler.simulator.fluid import run as serve
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.page import page
from services.scaler.simulator.search import ATTAINMENT, tried
from services.scaler.simulator.silicon import Serving, scaled
from services.scaler.simulator.tokens import run_tokens
from services.scaler.simulator.trial import Replica, read_as, trial

OURS = "ours"
CHECKED = "azure8.w60"
"""The cell that is served request by request too, and drawn."""
WRONG_DAYS = 1.0
"""Days of ServeGen that wrong models, other models and the tighter objective are scored on."""


@dataclass(frozen=True)
class Compared:
    """What was measured in all cells.

    Attributes:
        ours: the core.
        single, each: baselines with one setting, and with one for each cell, by family.
        clairvoyant: mean replicas of who knows all, by cell.
    """

    ours: Scores
    single: Mapping[str, Scores]
    each: Mapping[str, Scores]
    clairvoyant: Mapping[str, float]

    def over_clairvoyant(self, scores: Scores) -> float:
        """Mean cost by the clairvoyant's, over the cells that it is known for."""
        shares = [scores[cell][1] / least for cell, least in self.clairvoyant.items()]
        return sum(shares) / len(shares)


def run(*, quick: bool, whole: bool, ours: bool, data: Path) -> None:
    """Serves all cells, and prints what came of them."""
    if gone := scaling_cells.missing(data):
        report.say(f"backtest: needs {', '.join(gone)}; give the folder with --data")
        return
    read = scaling_cells.read(data)
    hours = scaling_cells.hours(read, "score", read.serving)
    groups = [hours]
    if not quick:
        groups.append(scaling_cells.days(read, "score", read.serving))
    cells = [cell for group in groups for cell in group]
    compared = _compared(read.serving, groups, whole=whole, ours=ours)
    _tables(compared, cells, whole=whole)
    if whole:
        _others(read, hours, quick=quick)
        if not ours:
            _by_request(read, compared)
    if not ours:
        _page(read, hours)
    if not quick:
        _time(read)
    for cell in cells:
        # Down to a tenth: rounding up would reach an aim that was missed.
        held = math.floor(1000 * compared.ours[cell.name][0]) / 10
        report.figure(f"backtest.{cell.name}.attainment", held, "%")
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
    least = {
        cell.name: float(kept["clairvoyant"][cell.name]["replicas"])
        for cell in cells if cell.name in kept["clairvoyant"]
    }  # fmt: skip
    return Compared(scores, single, each, least)


def _shown(score: tuple[float, float]) -> str:
    mark = "" if score[0] >= ATTAINMENT else "!"
    return f"{100 * score[0]:.2f}{mark} {score[1]:.2f}"


def _tables(compared: Compared, cells: Sequence[Cell], *, whole: bool) -> None:
    kept = tuned()["clairvoyant"]
    note = (
        "Each: % in time, mean replicas paid for; ! below 99 %. Clairvoyant: a schedule of who\n"
        "knows all arrivals, >= 99 %. Settings were found on other days; w: seconds of a start."
    )
    tables = [("One setting for all cells", compared.single)]
    if whole:
        tables.append(("Others with a setting for each cell", compared.each))
    for title, rows in tables:
        report.table(
            f"Unseen days. {title}",
            ("cell", "clairvoyant", OURS, *rows),
            [
                (
                    cell.name,
                    f"{kept[cell.name]['replicas']:.2f}" if cell.name in kept else "-",
                    _shown(compared.ours[cell.name]),
                    *(_shown(scores[cell.name]) for scores in rows.values()),
                )
                for cell in cells
            ],
            note=note,
        )


def _gap(compared: Compared) -> None:
    """How much of what the best single setting of others costs too much is saved."""
    settings = tuned()["baselines"]
    rows = []
    for name, scores in {OURS: compared.ours, **compared.single}.items():
        fails = sum(one[0] < ATTAINMENT for one in scores.values())
        rows.append(
            (name, f"{compared.over_clairvoyant(scores):.3f}", f"{fails} of {len(scores)}",
             "yes" if name == OURS or settings[name]["holds"] else "no")
        )  # fmt: skip
    report.table(
        "One setting over all cells",
        ("policy", "cost over clairvoyant", "cells below 99 %", "held all on its tuning days"),
        rows,
    )
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


def _others(read: scaling_cells.Data, hours: Sequence[Cell], *, quick: bool) -> None:
    """The core with wrong models, another model on other GPUs, and a tighter objective."""
    true = read.serving.capacity
    cases: list[tuple[str, Sequence[Cell], Capacity]] = []
    days = [] if quick else scaling_cells.days(read, "score", read.serving, scored=WRONG_DAYS)
    for speed in (0.8, 1.0, 1.2):
        # A policy that takes a replica for faster than it is.
        label = "right" if speed == 1.0 else f"takes it for {1.0 / speed:.2f} x as fast"
        cases.append((label, [*hours, *days], scaled(true, 1.0 / speed)))
    large, other = read.serving_70b("trtllm"), read.serving_70b("vllm")
    share = other.throughput / large.throughput
    large_cells = scaling_cells.hours(read, "score", large)
    cases.append(("70B FP8 on 2 H200, right", large_cells, large.capacity))
    cases.append(
        (f"70B FP8 on 2 H200, by vLLM's rows ({share:.2f} x)", large_cells, other.capacity)
    )
    tight = scaling_cells.hours(read, "score", read.serving, step=0.25, objective=0.5)
    cases.append(("TTFT within 0.5 s", tight, true))
    rows = []
    for label, cells, capacity in cases:
        report.say(f"ours, {label}")
        scores = scored(cells, [Work(capacity=capacity)])[0]
        worst = min(scores, key=lambda name: scores[name][0])
        below = sum(one[0] < ATTAINMENT for one in scores.values())
        loads = [scores[cell.name][1] / scaling_cells.load_of(cell) for cell in cells]
        rows.append(
            (label, f"{len(scores)}", f"{100 * scores[worst][0]:.2f} ({worst})", f"{below}",
             f"{sum(loads) / len(loads):.3f}")
        )  # fmt: skip
    report.table(
        "Ours where its model of a replica, the model served or the objective is another",
        ("case", "cells", "worst, % in time", "cells below 99 %", "replicas by mean load"),
        rows,
        note=f"Azure's hour{'' if quick else f', and ServeGen over {WRONG_DAYS:g} day'}; "
        "models other than 8B: Azure's alone.",
    )


def _by_request(read: scaling_cells.Data, compared: Compared) -> None:
    """Winners again, request by request, where lengths matter most: on Azure's hour."""
    serving, kept = read.serving, tuned()["baselines"]
    known = families(serving)
    requests, cells = scaling_cells.hour_requests(read, "score", serving, load=8.0)
    rows = []
    for cell in [one for one in cells if one.name == CHECKED]:
        makers: dict[str, Callable[[], Sizer]] = {
            OURS: partial(core_of, cell, Work(capacity=serving.capacity))
        }
        for name, found in kept.items():
            knobs = found["each"].get(cell.name)
            if name != "static" and knobs is not None:
                makers[f"{name}, its own setting"] = partial(Alone, known[name], knobs, serving)
        for name, make in makers.items():
            report.say(f"request by request: {cell.name}, {name}")
            course = run_tokens(cell.pool, requests, make())
            key = name.split(",")[0]
            fluid = compared.ours if name == OURS else compared.each[key]
            rows.append(
                (cell.name, name, _shown(fluid[cell.name]),
                 _shown((course.attainment, course.replicas)))
            )  # fmt: skip
    report.table(
        "Azure's hour at a mean load of 8, as a fluid and request by request",
        ("cell", "policy", "fluid", "request by request"),
        rows,
    )


def _page(read: scaling_cells.Data, hours: Sequence[Cell]) -> None:
    cell = next(one for one in hours if one.name == CHECKED)
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
