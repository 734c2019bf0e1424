"""What the backtest takes for granted, taken away: the model, the objective, the fluid.

The core has the same defaults in all of it. Wrong models of a replica, and none; another model of
language on other GPUs, also by the rows of another engine; a tighter objective; and single requests
on engines that go iteration by iteration instead of a fluid.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

from bench import report, scaling_cells
from bench.scaling_ours import Scores, core_of, processes, scored
from bench.scaling_scores import OURS, Compared, percent, shown
from bench.tune import tuned
from services.scaler.policy.sizing.settings import Capacity, Work
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.course import Course
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.search import ATTAINMENT
from services.scaler.simulator.silicon import scaled
from services.scaler.simulator.tokens import run_tokens
from services.scaler.simulator.traces import Requests

CHECKED = "azure8.w60"
"""The cell that is served request by request too, and drawn."""
TIGHT_STEP, TIGHT_SECONDS, TIGHT_DAYS = 0.25, 0.5, 2.0
"""The tighter objective, served in shorter steps, and so on fewer of ServeGen's days."""


def _models(true: Capacity) -> list[tuple[str, str, Capacity | None]]:
    """What else the policy may take a replica for; it has 0.8 and 1.2 times that speed."""
    return [
        ("fast", "takes it for 1.25 x as fast", scaled(true, 1.0 / 0.8)),
        ("slow", "takes it for 0.83 x as fast", scaled(true, 1.0 / 1.2)),
        ("learned", "given no model, learns it", None),
    ]


def others(
    read: scaling_cells.Data, cells: Sequence[Cell], compared: Compared, *, quick: bool
) -> Mapping[str, Scores]:
    """The core with wrong models and none, another model of language, a tighter objective."""
    true = read.serving.capacity
    large, other = read.serving_70b("trtllm"), read.serving_70b("vllm")
    large_cells = [
        cell for group in scaling_cells.groups(read, "score", large, quick=quick) for cell in group
    ]
    share = other.throughput / large.throughput
    tight = scaling_cells.hours(
        read, "score", read.serving, step=TIGHT_STEP, objective=TIGHT_SECONDS
    )
    if not quick:
        tight += scaling_cells.days(
            read, "score", read.serving, step=TIGHT_STEP, objective=TIGHT_SECONDS, scored=TIGHT_DAYS
        )  # fmt: skip
    cases: list[tuple[str, str, Sequence[Cell], Capacity | None]] = [
        *((name, label, cells, capacity) for name, label, capacity in _models(true)),
        ("tight", f"TTFT within {TIGHT_SECONDS:g} s", tight, true),
        ("70b", "70B FP8 on 2 H200, right model", large_cells, large.capacity),
        ("70b_vllm", f"70B, by vLLM's rows ({share:.2f} x)", large_cells, other.capacity),
    ]
    known: dict[str, Scores] = {}
    rows = [_other("8B on H100, right model", cells, compared.ours, compared)]
    for name, label, of, capacity in cases:
        report.say(f"ours, {label}")
        scores = known[name] = scored(of, [Work(capacity=capacity)])[0]
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
        f"\nServeGen with {TIGHT_SECONDS:g} s: {TIGHT_DAYS:g} days.",
    )
    return known


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


def by_request(
    read: scaling_cells.Data, compared: Compared, others: Mapping[str, Scores], *, ours: bool
) -> None:
    """Winners again, request by request, where lengths matter most: on Azure's hour."""
    serving = read.serving
    rows: list[tuple[str, str, str, Future[Course]]] = []
    with processes() as pool:
        for load in scaling_cells.LOADS:
            requests, cells = scaling_cells.hour_requests(read, "score", serving, load=load)
            for cell in cells:
                tried = [(OURS, compared.ours, Work(capacity=serving.capacity))]
                if cell.name == CHECKED:
                    tried += [
                        (f"{OURS}, {label}", others[name], Work(capacity=capacity))
                        for name, label, capacity in _models(serving.capacity)
                    ]
                for name, fluid, work in tried:
                    done = pool.submit(_ours_by_request, cell, requests, work)
                    rows.append((cell.name, name, shown(fluid[cell.name]), done))
                if ours or cell.name != CHECKED:
                    continue
                for name, knobs, fluid in _settings(compared, cell):
                    done = pool.submit(_other_by_request, cell, requests, name.split(",")[0], knobs)
                    rows.append((cell.name, name, shown(fluid[cell.name]), done))
        report.say(f"request by request: {len(rows)} runs")
        found = [(*row, shown(_score(done.result()))) for *row, done in rows]
    report.table(
        "Azure's hour as a fluid and request by request",
        ("cell", "policy", "fluid", "request by request"),
        found,
    )


def _settings(compared: Compared, cell: Cell) -> Iterator[tuple[str, Mapping[str, float], Scores]]:
    """Others' settings for all cells and for this one; a static size is what it is."""
    for name, found in tuned()["baselines"].items():
        if name != "static":
            yield name, found["single"], compared.single[name]
            if knobs := found["each"].get(cell.name):
                yield f"{name}, its own setting", knobs, compared.each[name]


def _ours_by_request(cell: Cell, requests: Requests, work: Work) -> Course:
    return run_tokens(cell.pool, requests, core_of(cell, work))


def _other_by_request(
    cell: Cell, requests: Requests, name: str, knobs: Mapping[str, float]
) -> Course:
    serving = cell.pool.serving
    return run_tokens(cell.pool, requests, Alone(families(serving)[name], knobs, serving))


def _score(course: Course) -> tuple[float, float]:
    return course.attainment, course.replicas
