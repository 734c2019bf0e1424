"""What spot capacity saves at the same attainment, by SpotHedge's mix.

Zones are generated: three, independent, each up for 8 hours and down for one on average, a lost
zone takes all its replicas; the hard market is up for 2 hours and down for half of one. A spot
replica costs 0.35 of an on-demand one. The target is what the core wants with its defaults on
ServeGen m-large at a mean load of 8 replicas (Llama-3.1-8B on H100, TensorRT-LLM's rows); the core
does not know of losses.
"""

from dataclasses import dataclass
from pathlib import Path

from bench import report, scaling_cells
from services.scaler.policy.sizing.settings import Scale, Work
from services.scaler.simulator.arrivals import DAY
from services.scaler.simulator.core import TICK_SECONDS, Core
from services.scaler.simulator.fluid import run as serve
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.spothedge import Hedged, Market, Mix, availability, hedged

EASY = Market()
HARD = Market(up_seconds=2 * 3600.0, down_seconds=1800.0)


@dataclass(frozen=True)
class Case:
    """A market, a notice and a mix."""

    name: str
    market: Market
    mix: Mix
    start: float
    figure: str = ""


def _market(market: Market, notice: float) -> Market:
    return Market(market.zones, market.up_seconds, market.down_seconds, market.price, notice)


CASES = (
    Case("8 h / 1 h, start 60 s, no notice, 1 more", EASY, Mix(over=1), 60.0),
    Case("8 h / 1 h, start 60 s, no notice, 2 more", EASY, Mix(over=2), 60.0),
    Case("8 h / 1 h, start 60 s, 120 s notice, 1 more", _market(EASY, 120.0), Mix(over=1), 60.0,
         "spot.saving"),
    Case("8 h / 1 h, start 180 s, no notice, 3 more", EASY, Mix(over=3), 180.0),
    Case("8 h / 1 h, start 180 s, 120 s notice, 3 more", _market(EASY, 120.0), Mix(over=3), 180.0),
    Case("8 h / 1 h, start 60 s, half on spot, no notice", EASY, Mix(share=0.5, over=1), 60.0),
    Case("2 h / 30 min, start 60 s, no notice, 2 more", HARD, Mix(over=2), 60.0),
    Case("2 h / 30 min, start 60 s, 120 s notice, 1 more", _market(HARD, 120.0), Mix(over=1), 60.0),
)  # fmt: skip


def run(*, quick: bool, data: Path) -> None:
    """Simulates, and prints what was found."""
    if gone := scaling_cells.missing(data):
        report.say(f"spot: needs {', '.join(gone)}; give the folder with --data")
        return
    read = scaling_cells.read(data)
    days, seeds = (1.0, 1) if quick else (3.0, 3)
    cells = scaling_cells.days(read, "score", read.serving, scored=days)
    rows = []
    known: dict[float, tuple[Cell, list[int], Hedged]] = {}
    for case in CASES[:3] if quick else CASES:
        if case.start not in known:
            cell = next(c for c in cells if c.name == f"servegen8.w{case.start:.0f}")
            report.say(f"on demand alone, start {case.start:.0f} s")
            targets = _targets(cell)
            alone = hedged(cell.pool, cell.arrivals, targets, slot=TICK_SECONDS)
            known[case.start] = cell, targets, alone
        cell, targets, alone = known[case.start]
        report.say(case.name)
        found = []
        for seed in range(seeds):
            ups = availability(case.market, (days + 1.0) * DAY, TICK_SECONDS, seed)
            found.append(
                hedged(
                    cell.pool, cell.arrivals, targets, slot=TICK_SECONDS, ups=ups,
                    market=case.market, mix=case.mix,
                )
            )  # fmt: skip
        saving = 100.0 * (1.0 - sum(one.cost for one in found) / len(found) / alone.cost)
        held = 100.0 * sum(one.attainment for one in found) / len(found)
        rows.append(
            (case.name, f"{saving:.1f} %", f"{held:.2f} %", f"{100 * alone.attainment:.2f} %",
             f"{sum(one.lost for one in found) / len(found) / days:.0f}")
        )  # fmt: skip
        if case.figure:
            report.figure(case.figure, saving, "%")
    report.table(
        "What spot saves against on-demand alone",
        ("market and mix", "saved", "in time", "on demand alone", "lost a day"),
        rows,
        note=f"{days:g} days, {seeds} seeds of zones each. In time: TTFT within 2 s.",
    )


def _targets(cell: Cell) -> list[int]:
    """What the core wants in each slot, beginning with the size it begins with."""
    pool = cell.pool
    scale = Scale(max=256, work=Work(capacity=pool.serving.capacity))
    core = Core(
        scale, size=pool.size, places=pool.serving.places, start_seconds=pool.starts[0]
    )  # fmt: skip
    course = serve(pool, cell.arrivals, core)
    return [pool.size, *course.ticks.wanted[:-1].astype(int).tolist()]
