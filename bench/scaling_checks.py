"""What the backtest takes for granted, taken away: the model, the objective, the fluid.

The core has the same defaults in all of it. Wrong models of a replica, and none; another model of
language on other GPUs, also by the rows of another engine; a tighter objective; and single requests
on engines that go iteration by iteration instead of a fluid.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

from bench import report, scaling_cells
from bench.scaling_ours import Score, Scores, core_of, processes, scored
from bench.scaling_scores import OURS, Compared, percent, shown
from bench.tune import tuned
from services.scaler.policy.sizing.settings import Capacity, Work
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.course import Course
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.search import ATTAINMENT
from services.scaler.simulator.silicon import Serving, scaled
from services.scaler.simulator.tokens import run_tokens
from services.scaler.simulator.traces import Requests

TIGHT_STEP, TIGHT_SECONDS = 0.25, 0.5
"""The tighter objective, and the shorter steps that it is served in."""
FEWER_DAYS = 2.0
"""Of ServeGen, where no clairvoyant is known to compare with."""


def _models(true: Capacity) -> list[tuple[str, str, Capacity | None]]:
    """What else the policy may take a replica for; it has 0.8 and 1.2 times that speed."""
    return [
        ("fast", "takes it for 1.25 x as fast", scaled(true, 1.0 / 0.8)),
        ("slow", "takes it for 0.83 x as fast", scaled(true, 1.0 / 1.2)),
        ("learned", "given no model, learns it", None),
    ]


def others(
    read: scaling_cells.Data, cells: Sequence[Cell], compared: Compared, *, quick: bool
) -> None:
    """The core with wrong models and none, another model of language, a tighter objective."""
    true = read.serving.capacity
    large, other = read.serving_70b("trtllm"), read.serving_70b("vllm")
    share = other.throughput / large.throughput
    large_cells = _fewer(read, large, quick=quick)
    tight = _fewer(read, read.serving, quick=quick, step=TIGHT_STEP, objective=TIGHT_SECONDS)
    cases: list[tuple[str, str, Sequence[Cell], Capacity | None]] = [
        *((name, label, cells, capacity) for name, label, capacity in _models(true)),
        ("tight", f"TTFT within {TIGHT_SECONDS:g} s", tight, true),
        ("70b", "70B FP8 on 2 H200, right model", large_cells, large.capacity),
        ("70b_vllm", f"70B, by vLLM's rows ({share:.2f} x)", large_cells, other.capacity),
    ]
    rows = [_other("8B on H100, right model", cells, compared.ours, compared)]
    for name, label, of, capacity in cases:
        report.say(f"ours, {label}")
        scores = scored(of, [Work(capacity=capacity)])[0]
        rows.append(_other(label, of, scores, compared if of is cells else None))
        worst = min(scores.values())
        report.figure(f"backtest.{name}.attainment", percent(worst), "%")
        if of is cells and compared.clairvoyant:
            report.figure(
                f"backtest.{name}.over_clairvoyant", compared.over_clairvoyant(scores), "x"
            )
    report.table(
        "Ours where its model of a replica, the model served or the objective is another",
        ("case", "cells below 99 %", "worst, % in time", "over clairvoyant", "by mean load"),
        rows,
        note="Mean replicas paid for, by the clairvoyant's and by the mean load in full replicas."
        f" Where that is not known, {FEWER_DAYS:g} of ServeGen's days.",
    )


def _fewer(
    read: scaling_cells.Data,
    serving: Serving,
    *,
    quick: bool,
    step: float = 1.0,
    objective: float = 2.0,
) -> list[Cell]:
    cells = scaling_cells.hours(read, "score", serving, step=step, objective=objective)
    if not quick:
        cells += scaling_cells.days(
            read, "score", serving, step=step, objective=objective, scored=FEWER_DAYS
        )
    return cells


def _other(
    label: str, cells: Sequence[Cell], scores: Scores, compared: Compared | None
) -> tuple[str, ...]:
    worst = min(scores, key=lambda name: scores[name][0])
    below = sum(one[0] < ATTAINMENT for one in scores.values())
    loads = [scores[cell.name][1] / scaling_cells.load_of(cell) for cell in cells]
    known = compared is not None and compared.clairvoyant
    return (
        label, f"{below} of {len(scores)}", f"{100 * scores[worst][0]:.2f} ({worst})",
        f"{compared.over_clairvoyant(scores):.3f}" if compared and known else "-",
        f"{sum(loads) / len(loads):.3f}",
    )  # fmt: skip


def by_request(read: scaling_cells.Data, *, ours: bool) -> None:
    """Winners again, request by request, where lengths matter most: on Azure's hour."""
    serving = read.serving
    groups = [
        scaling_cells.hour_requests(read, "score", serving, load=load)
        for load in scaling_cells.LOADS
    ]
    tried: list[tuple[str, Capacity | None]] = [(OURS, serving.capacity)]
    tried += [(f"{OURS}, {label}", capacity) for _, label, capacity in _models(serving.capacity)]
    rows: dict[str, list[Future[Score]]] = defaultdict(list)
    with processes() as pool:
        for requests, cells in groups:
            for cell in cells:
                for name, capacity in tried:
                    rows[name].append(pool.submit(_ours_by_request, cell, requests, capacity))
                for name, family, knobs in () if ours else _settings(cell):
                    rows[name].append(pool.submit(_by_request, cell, requests, family, knobs))
        report.say(f"request by request: {sum(map(len, rows.values()))} runs")
        found = [(name, *(shown(done.result()) for done in row)) for name, row in rows.items()]
    report.table(
        "Azure's hour request by request",
        ("policy", *(cell.name for _, cells in groups for cell in cells)),
        found,
        note="Each: % in time, mean replicas paid for; ! below 99 %.",
    )


def _settings(cell: Cell) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Others' settings for all cells and for this one, with the family that they are of."""
    for name, found in tuned()["baselines"].items():
        # A static size is what it is, and its idle replicas take long to go through.
        if name != "static":
            yield name, name, found["single"]
            yield f"{name}, of this cell", name, found["each"].get(cell.name) or found["single"]


def _ours_by_request(cell: Cell, requests: Requests, capacity: Capacity | None) -> Score:
    return _score(run_tokens(cell.pool, requests, core_of(cell, Work(capacity=capacity))))


def _by_request(cell: Cell, requests: Requests, name: str, knobs: Mapping[str, float]) -> Score:
    serving = cell.pool.serving
    return _score(run_tokens(cell.pool, requests, Alone(families(serving)[name], knobs, serving)))


def _score(course: Course) -> Score:
    return course.attainment, course.replicas
