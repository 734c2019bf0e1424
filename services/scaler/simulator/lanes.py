"""Many pools at once, in step: what `fluid` does to one, for the search of baselines' knobs.

A lane is a pool: a trace, a start time and one set of knobs. All lanes of a run share the step and
the length of their traces, and the policy, which decides for all of them in one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Mix, Pool, Progress, due_curve, mix_of
from services.scaler.simulator.silicon import Floats, Serving

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What policies see of all lanes; requests are weighed by their work.

    Attributes:
        now: seconds since the traces began.
        seconds: since the last time.
        ready, starting: replicas.
        waiting, running: requests.
        load: mean of waiting and running since the last time.
        work: requests that arrived since then.
    """

    now: float
    seconds: float
    ready: Counts
    starting: Counts
    waiting: Floats
    running: Floats
    load: Floats
    work: Floats


class LaneSizer(Protocol):
    """What says the sizes of all lanes."""

    @property
    def tick(self) -> float:
        """Seconds between two decisions."""

    def sizes(self, seen: Seen) -> Counts:
        """Replicas wanted in each lane, starting ones included."""


@dataclass(frozen=True)
class Cell:
    """One trace under one start time.

    Attributes:
        name: of it.
        arrivals: the trace.
        pool: what its run begins with; its start time is the same for all starts.
    """

    name: str
    arrivals: Arrivals
    pool: Pool


@dataclass(frozen=True)
class Outcome:
    """What came of each lane.

    Attributes:
        attainment: share of the answers that began in time.
        replicas: mean number that was paid for.
    """

    attainment: Floats
    replicas: Floats


def run_lanes(
    cells: Sequence[Cell],
    cell_of: Sequence[int],
    sizer: LaneSizer,
    progress: Progress | None = None,
) -> Outcome:
    """Runs a lane for each entry of `cell_of`, the number of its cell."""
    return _Lanes(cells, np.asarray(cell_of)).run(sizer, progress)


class _Lanes:
    def __init__(self, cells: Sequence[Cell], cell_of: Counts) -> None:
        first = cells[0]
        self.step = first.arrivals.step
        self.warm = round(first.pool.warm / self.step)
        self.tick = 1
        works: list[Floats] = []
        dues: list[Floats] = []
        trace_of: list[int] = []
        mixes: list[Mix] = []
        known: dict[tuple[int, float, Serving], int] = {}
        for cell in cells:
            # Cells that differ in their start alone share a trace.
            key = (id(cell.arrivals), cell.pool.objective, cell.pool.serving)
            if key not in known:
                known[key] = len(works)
                works.append(cell.arrivals.work)
                dues.append(due_curve(cell.pool, cell.arrivals))
                mixes.append(mix_of(cell.pool.serving, cell.arrivals))
            trace_of.append(known[key])
        self.work = np.ascontiguousarray(np.stack(works, axis=1))
        self.due = np.ascontiguousarray(np.stack(dues, axis=1))
        self.trace = np.array(trace_of)[cell_of]

        def each(values: Sequence[float]) -> Floats:
            return np.array(values, float)[cell_of]

        self.mixes = tuple(
            np.ascontiguousarray(np.stack([getattr(mix, name) for mix in mixes], axis=1))
            for name in ("places", "fixed", "slope")
        )
        # Lengths that never change need no look at each step.
        self.steady = all((one == one[:1]).all() for one in self.mixes)
        self.places, self.fixed, self.slope = (one[0][self.trace] for one in self.mixes)
        start = [max(1, round(cell.pool.starts[0] / self.step)) for cell in cells]
        self.start = np.array(start)[cell_of]
        lanes = len(cell_of)
        self.lanes = np.arange(lanes)
        self.ready = each([float(cell.pool.size) for cell in cells])
        self.ring = np.zeros((int(self.start.max()) + 1, lanes))
        self.starting = np.zeros(lanes)
        self.running = np.zeros(lanes)
        self.admitted = np.zeros(lanes)
        self.arrived = np.zeros(lanes)
        self.paid = np.zeros(lanes)

    def run(self, sizer: LaneSizer, progress: Progress | None) -> Outcome:
        tick = self.tick = max(1, round(sizer.tick / self.step))
        steps = len(self.work)
        late, base = np.zeros(len(self.lanes)), np.zeros(len(self.lanes))
        load, came = np.zeros(len(self.lanes)), np.zeros(len(self.lanes))
        places, slope = self.places * self.ready, self.slope / np.maximum(self.ready, 1.0)
        for at in range(steps):
            row = self.ring[at % len(self.ring)]
            if row.any() or not self.steady:
                self.ready += row
                self.starting -= row
                row[:] = 0.0
                if not self.steady:
                    self.places, self.fixed, self.slope = (
                        one[at][self.trace] for one in self.mixes
                    )  # fmt: skip
                places, slope = self.places * self.ready, self.slope / np.maximum(self.ready, 1.0)
            if at == self.warm:
                late[:], self.paid[:], base = 0.0, 0.0, self.admitted.copy()
            done = self.running / np.maximum(self.fixed + slope * self.running, 1.0)
            self.running -= np.where(self.ready > 0.0, done, 0.0)
            work = self.work[at][self.trace]
            self.arrived += work
            came += work
            waiting = self.arrived - self.admitted
            load += waiting
            load += self.running
            taken = np.minimum(waiting, places - self.running)
            np.maximum(taken, 0.0, out=taken)
            overdue = self.due[at][self.trace] - self.admitted
            late += np.minimum(np.maximum(overdue, 0.0), taken)
            self.running += taken
            self.admitted += taken
            self.paid += (self.ready + self.starting) * self.step
            if (at + 1) % tick == 0 or at + 1 == steps:
                seconds = ((at % tick) + 1) * self.step
                seen = Seen(
                    now=(at + 1) * self.step, seconds=seconds,
                    ready=self.ready.astype(int), starting=self.starting.astype(int),
                    waiting=self.arrived - self.admitted, running=self.running.copy(),
                    load=load * self.step / seconds, work=came.copy(),
                )  # fmt: skip
                self._resize(sizer.sizes(seen), at)
                load[:], came[:] = 0.0, 0.0
                places, slope = self.places * self.ready, self.slope / np.maximum(self.ready, 1.0)
                if progress is not None:
                    progress((at + 1) / steps)
        overdue = np.maximum(self.due[-1][self.trace] - self.admitted, 0.0)
        due = self.admitted - base + overdue
        return Outcome(
            attainment=1.0 - (late + overdue) / np.maximum(due, 1e-9),
            replicas=self.paid / ((steps - self.warm) * self.step),
        )

    def _resize(self, wanted: Counts, at: int) -> None:
        change = wanted - self.ready - self.starting
        up = np.flatnonzero(change > 0.0)
        if len(up):
            # Starts end at the beginning of a step, as decisions come at its end.
            row = (at + 1 + self.start[up]) % len(self.ring)
            self.ring[row, up] += change[up]
            self.starting[up] += change[up]
        down = np.flatnonzero(change < 0.0)
        if len(down):
            self._lower(down, -change[down], at)

    def _lower(self, down: Counts, fewer: Floats, at: int) -> None:
        calls_off = np.minimum(fewer, self.starting[down])
        some = calls_off > 0.0
        lanes, left = down[some], calls_off[some]
        start = self.start[lanes]
        # Orders were given at ticks alone; the newest go first.
        for back in range(0, int(start.max(initial=-1)) + 1, self.tick):
            row = (at + 1 + start - back) % len(self.ring)
            here = np.where(back <= start, np.minimum(left, self.ring[row, lanes]), 0.0)
            self.ring[row, lanes] -= here
            left -= here
            if not left.any():
                break
        self.starting[lanes] -= calls_off[some]
        drained = np.minimum(fewer - calls_off, self.ready[down])
        ready = np.maximum(self.ready[down], 1.0)
        share = self.running[down] / ready
        stays = (self.fixed[down] + self.slope[down] * share) * self.step
        self.paid[down] += drained * stays
        self.running[down] -= drained * share
        self.ready[down] -= drained
