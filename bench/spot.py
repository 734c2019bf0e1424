"""What spot capacity saves at the same attainment, under the core's own decisions.

Zones are generated: three, independent, each up for 8 hours and down for one on average, a lost
zone takes all its replicas; the hard market is up for 2 hours and down for half of one. A spot
replica costs 0.35 of an on-demand one. The core with its defaults decides how many run on which,
on ServeGen m-large (Llama-3.1-8B on H100, TensorRT-LLM's rows), and sees losses as it would: by the
replicas that are left, by what waits and by answers that come late. Each case is compared with the
same core on demand alone.
"""

from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from bench import report, scaling_cells
from bench.scaling_ours import processes
from services.scaler.policy.sizing.settings import Scale, Spot, Work
from services.scaler.simulator.arrivals import DAY
from services.scaler.simulator.lanes import Cell
from services.scaler.simulator.spot import SPOT, Market, Outcome, availability, serve_on_spot

EASY = Market()
HARD = Market(up_seconds=2 * 3600.0, down_seconds=1800.0)


@dataclass(frozen=True)
class Case:
    """A market, a notice and a mix.

    Attributes:
        market: where spot comes from.
        over: spot replicas more.
        start: seconds of a start.
        load: mean, in replicas.
        share: of the size that is to be on spot.
        figure: of its saving; empty: none.
    """

    market: Market
    over: int
    start: float = 60.0
    load: int = 8
    share: float = 1.0
    figure: str = ""

    @property
    def cell(self) -> str:
        """Name of its trace, load and start."""
        return f"servegen{self.load}.w{self.start:.0f}"

    @property
    def spot(self) -> Spot:
        """As a policy says it."""
        return Spot(pool=SPOT, share=self.share, over_provision=self.over)

    @property
    def name(self) -> str:
        """Of its row."""
        market = self.market
        up = f"{market.up_seconds / 3600:g} h / {market.down_seconds / 3600:g} h"
        notice = f"{market.notice_seconds:.0f} s" if market.notice_seconds else "no"
        part = "" if self.share == 1.0 else f", {100 * self.share:.0f} % on spot"
        return f"{self.cell}, {up}, {notice} notice, {self.over} more{part}"


def _warned(market: Market) -> Market:
    return replace(market, notice_seconds=120.0)


CASES = (
    Case(EASY, 1),
    Case(EASY, 2),
    Case(_warned(EASY), 1, figure="spot.saving"),
    Case(EASY, 3, start=180.0),
    Case(_warned(EASY), 1, start=180.0),
    Case(_warned(EASY), 3, start=180.0),
    Case(EASY, 1, share=0.5),
    Case(_warned(EASY), 1, load=2),
    Case(HARD, 2),
    Case(_warned(HARD), 1),
)
QUICK = 3
"""Cases of a quick run."""


def run(*, quick: bool, data: Path) -> None:
    """Simulates, and prints what was found."""
    if gone := scaling_cells.missing(data):
        report.say(f"spot: needs {', '.join(gone)}; give the folder with --data")
        return
    read = scaling_cells.read(data)
    days, seeds = (1.0, 1) if quick else (3.0, 5)
    cases = CASES[:QUICK] if quick else CASES
    found = scaling_cells.days(read, "score", read.serving, scored=days)
    cells = {cell.name: cell for cell in found}
    names = dict.fromkeys(case.cell for case in cases)
    with processes() as pool:
        alone = {name: pool.submit(_served, cells[name]) for name in names}
        mixed = {
            case: [pool.submit(_served, cells[case.cell], case, seed) for seed in range(seeds)]
            for case in cases
        }
        rows = [_row(case, mixed[case], alone[case.cell].result(), days) for case in cases]
    report.table(
        "What spot saves against on demand alone",
        ("market and mix", "saved", "in time", "on demand alone", "lost a day"),
        rows,
        note=f"{days:g} days, {seeds} seeds of zones each, in brackets the least and most of them."
        " In time: TTFT within 2 s. Up / down: mean times of a zone.",
    )


def _row(case: Case, runs: list[Future[Outcome]], alone: Outcome, days: float) -> tuple[str, ...]:
    found = [one.result() for one in runs]
    report.say(case.name)
    saved = [100.0 * (1.0 - one.cost / alone.cost) for one in found]
    held = [100.0 * one.attainment for one in found]
    if case.figure:
        report.figure(case.figure, sum(saved) / len(saved), "%")
        report.figure(f"{case.figure}_attainment", sum(held) / len(held), "%")
    return (
        case.name,
        f"{sum(saved) / len(saved):.1f} % ({min(saved):.1f}-{max(saved):.1f})",
        f"{sum(held) / len(held):.2f} % ({min(held):.2f}-{max(held):.2f})",
        f"{100.0 * alone.attainment:.2f} %",
        f"{sum(one.lost for one in found) / len(found) / days:.0f}",
    )


def _served(cell: Cell, case: Case | None = None, seed: int = 0) -> Outcome:
    """Under this mix and market, or with None on demand alone."""
    work = Work(capacity=cell.pool.serving.capacity)
    scale = Scale(max=256, work=work, spot=None if case is None else case.spot)
    if case is None:
        return serve_on_spot(cell.pool, cell.arrivals, scale)
    ups = availability(case.market, cell.arrivals.seconds + DAY, seed)
    return serve_on_spot(cell.pool, cell.arrivals, scale, ups=ups, market=case.market)
