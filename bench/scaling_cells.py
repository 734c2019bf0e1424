"""The cells that scaling policies are measured on: traces, loads and start times.

Traces come from `../shared/data`: Azure's conversation trace of 2023 (thickened to the load) and
ServeGen m-large's rates of 14 days (filled by either generator). Knobs are tuned on days 0 to 6 and
on one thickening of Azure's hour; everything is scored on days 7 to 13 and on another thickening.
A replica is Llama-3.1-8B on one H100, served by TensorRT-LLM's measured rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.scaler.simulator.arrivals import (
    DAY,
    Arrivals,
    Generator,
    from_rates,
    from_requests,
    mean_lengths,
    thickened,
)
from services.scaler.simulator.fluid import Pool
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.silicon import Floats, Row, Serving, chosen, fit, read_rows
from services.scaler.simulator.traces import Rates, Requests, read_trace

AZURE = "azure-llm-2023/AzureLLMInferenceTrace_conv.csv"
SERVEGEN = "servegen/m-large_rate_per_window.csv"
SILICON = "silicon/rows.csv"
STARTS = (15.0, 60.0, 180.0)
LOADS = (8.0, 2.0)
HOUR_CUT = 180.0
"""First seconds of Azure's hour that are left out: its collection begins there, from nothing to the
full load, which is no growth of demand."""
HOUR_LEAD = 900.0
"""Seconds of its beginning that run before it, backwards, so that every policy knows the pool: one
hour is too short to learn in."""
HOUR_WARM = HOUR_LEAD + 240.0
"""What of these is not scored."""
SEEDS = {"tune": 1, "score": 2}

H100_8B = {
    "engine": "trtllm",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "gpu": "h100_sxm",
    "tensor_parallel": "1",
}
H200_70B = {
    "model": "meta-llama/Llama-3.1-70B",
    "gpu": "h200_sxm",
    "precision": "fp8",
    "tensor_parallel": "2",
}


@dataclass(frozen=True)
class Data:
    """What is read once.

    Attributes:
        rows: measured ones.
        azure: single requests.
        servegen: rates.
        serving: a replica under Azure's mean request.
    """

    rows: tuple[Row, ...]
    azure: Requests
    servegen: Rates
    serving: Serving

    def serving_70b(self, engine: str) -> Serving:
        """Llama-3.1-70B FP8 on two H200, by the rows of an engine."""
        rows = chosen(self.rows, engine=engine, **H200_70B)
        return Serving(fit(rows).capacity, *mean_lengths(self.azure))


def missing(folder: Path) -> list[str]:
    """Files of the data that are not there."""
    return [
        str(folder / name) for name in (AZURE, SERVEGEN, SILICON) if not (folder / name).exists()
    ]


def read(folder: Path) -> Data:
    """Reads traces and rows; see `missing`."""
    rows = read_rows(folder / SILICON)
    azure, servegen = read_trace(folder / AZURE), read_trace(folder / SERVEGEN)
    if not isinstance(azure, Requests) or not isinstance(servegen, Rates):
        raise TypeError("Azure's trace must be requests and ServeGen's rates")
    serving = Serving(fit(chosen(rows, **H100_8B)).capacity, *mean_lengths(azure))
    return Data(rows, azure, servegen, serving)


def hours(
    data: Data, part: str, serving: Serving, *, step: float = 1.0, objective: float = 2.0
) -> list[Cell]:
    """Azure's cells; `part` is "tune" or "score"."""
    cells: list[Cell] = []
    for load in LOADS:
        dense = thickened(data.azure, serving, load, SEEDS[part])
        arrivals = _led_in(from_requests(dense, serving, step=step))
        cells += _cells(f"azure{load:.0f}", arrivals, serving, HOUR_WARM, objective)
    return cells


def hour_requests(
    data: Data, part: str, serving: Serving, *, load: float
) -> tuple[Requests, list[Cell]]:
    """One load's cells of Azure's hour, with the single requests that they are made of."""
    dense = thickened(data.azure, serving, load, SEEDS[part])
    cut = dense.timestamp >= HOUR_CUT * 1000.0
    at = dense.timestamp[cut] - HOUR_CUT * 1000.0
    lead = at < HOUR_LEAD * 1000.0
    order = np.flatnonzero(lead)[::-1]

    def led(values: Floats) -> Floats:
        kept = values[cut]
        return np.concatenate([kept[order], kept])

    lead_at = HOUR_LEAD * 1000.0 - at[order]
    single = Requests(
        np.concatenate([lead_at, at + HOUR_LEAD * 1000.0]),
        led(dense.input_length),
        led(dense.output_length),
    )
    cells = hours(data, part, serving)
    return single, [cell for cell in cells if cell.name.startswith(f"azure{load:.0f}.")]


def days(
    data: Data,
    part: str,
    serving: Serving,
    *,
    step: float = 1.0,
    objective: float = 2.0,
    scored: float | None = None,
) -> list[Cell]:
    """ServeGen's cells; `scored` days of it, None: all. A day before runs too, unscored."""
    begin, end = (0.0, 7 * DAY) if part == "tune" else (6 * DAY, 14 * DAY)
    if scored is not None:
        end = begin + (1.0 + scored) * DAY
    rates, share, first = data.servegen, 1.0, 0.0
    if step < 1.0:
        # Two weeks are too many short steps: only what is served is filled.
        rates, first = _windows(rates, begin, end), begin
        share = float(rates.per_second.mean() / data.servegen.per_second.mean())
    cells: list[Cell] = []
    for generator in Generator:
        for load in LOADS:
            arrivals = from_rates(
                rates, serving, replicas=load * share, generator=generator, seed=SEEDS[part],
                step=step,
            ).between(begin - first, end - first)  # fmt: skip
            name = f"servegen{load:.0f}{'-steps' if generator is Generator.STEPS else ''}"
            cells += _cells(name, arrivals, serving, DAY, objective)
    return cells


def _windows(rates: Rates, begin: float, end: float) -> Rates:
    first, last = (round(at / rates.window_seconds) for at in (begin, end))
    return Rates(rates.window_seconds, rates.per_second[first:last])


def groups(data: Data, part: str, serving: Serving, *, quick: bool) -> list[list[Cell]]:
    """Cells whose traces are of one length each: Azure's, and unless `quick` ServeGen's."""
    short = hours(data, part, serving)
    return [short] if quick else [short, days(data, part, serving)]


def load_of(cell: Cell) -> float:
    """Full replicas that the scored part needs on average."""
    part = cell.arrivals.between(cell.pool.warm, cell.arrivals.seconds)
    return float(part.work.sum()) / part.seconds / cell.pool.serving.throughput


def _led_in(arrivals: Arrivals) -> Arrivals:
    """The hour behind a lead-in: its own beginning, backwards."""
    hour = arrivals.between(HOUR_CUT, arrivals.seconds)
    lead = round(HOUR_LEAD / arrivals.step)

    def led(values: Floats) -> Floats:
        return np.concatenate([values[:lead][::-1], values])

    return Arrivals(
        arrivals.step, led(hour.count), led(hour.prompt), led(hour.output), led(hour.work)
    )


def _cells(
    name: str, arrivals: Arrivals, serving: Serving, warm: float, objective: float
) -> Sequence[Cell]:
    first = arrivals.between(0.0, 60.0)
    size = math.ceil(1.2 * float(first.work.sum()) / 60.0 / serving.throughput)
    return [
        Cell(f"{name}.w{start:.0f}", arrivals, Pool(serving, objective, (start,), size, warm))
        for start in STARTS
    ]
