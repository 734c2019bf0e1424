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
        arrived: list[Floats] = []
        dues: list[Floats] = []
        trace_of: list[int] = []
        mixes: list[Mix] = []
        known: dict[tuple[int, float, Serving], int] = {}
        for cell in cells:
            # Cells that differ in their start alone share a trace.
            key = (id(cell.arrivals), cell.pool.objective, cell.pool.serving)
            if key not in known:
                known[key] = len(arrived)
                arrived.append(np.concatenate([[0.0], np.cumsum(cell.arrivals.work)]))
                dues.append(due_curve(cell.pool, cell.arrivals))
                mixes.append(mix_of(cell.pool.serving, cell.arrivals))
            trace_of.append(known[key])
        self.arrived = np.ascontiguousarray(np.stack(arrived, axis=1))
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
        self.starts = set(start)
        self.comes: set[int] = set()
        lanes = len(cell_of)
        self.lanes = np.arange(lanes)
        self.ready = each([float(cell.pool.size) for cell in cells])
        self.ring = np.zeros((int(self.start.max()) + 1, lanes))
        self.starting = np.zeros(lanes)
        self.running = np.zeros(lanes)
        self.admitted = np.zeros(lanes)
        self.paid = np.zeros(lanes)

    def run(self, sizer: LaneSizer, progress: Progress | None) -> Outcome:
        tick = self.tick = max(1, round(sizer.tick / self.step))
        steps, trace, lanes = len(self.due), self.trace, len(self.lanes)
        running, admitted = self.running, self.admitted
        late, base, load, came = (np.zeros(lanes) for _ in range(4))
        done, waiting, taken, overdue = (np.empty(lanes) for _ in range(4))
        counted = 0  # steps that are paid for
        places, slope = self._ability()
        for at in range(steps):
            if at in self.comes or not self.steady:
                self._begin(at)
                places, slope = self._ability()
            if at == self.warm:
                late[:], self.paid[:], base, counted = 0.0, 0.0, admitted.copy(), at
            # This is run millions of times: each line is one call without a new array.
            np.multiply(slope, running, out=done)
            done += self.fixed
            np.maximum(done, 1.0, out=done)
            np.divide(running, done, out=done)
            running -= done
            np.take(self.arrived[at + 1], trace, out=waiting, mode="clip")
            waiting -= admitted
            load += waiting
            load += running
            np.subtract(places, running, out=taken)
            np.minimum(taken, waiting, out=taken)
            np.maximum(taken, 0.0, out=taken)
            np.take(self.due[at], trace, out=overdue, mode="clip")
            overdue -= admitted
            if overdue.max() > 0.0:
                np.maximum(overdue, 0.0, out=overdue)
                np.minimum(overdue, taken, out=overdue)
                late += overdue
            running += taken
            admitted += taken
            if (at + 1) % tick == 0 or at + 1 == steps:
                seconds = ((at % tick) + 1) * self.step
                # Those that start become ready between two decisions, and nothing else changes.
                self.paid += (self.ready + self.starting) * (self.step * (at + 1 - counted))
                counted = at + 1
                arrived = self.arrived[at + 1][trace]
                seen = Seen(
                    now=(at + 1) * self.step, seconds=seconds,
                    ready=self.ready.astype(int), starting=self.starting.astype(int),
                    waiting=arrived - admitted, running=running.copy(),
                    load=load * self.step / seconds, work=arrived - came,
                )  # fmt: skip
                self._resize(sizer.sizes(seen), at)
                load[:], came = 0.0, arrived
                places, slope = self._ability()
                if progress is not None:
                    progress((at + 1) / steps)
        left = np.maximum(self.due[-1][trace] - admitted, 0.0)
        due = admitted - base + left
        return Outcome(
            attainment=1.0 - (late + left) / np.maximum(due, 1e-9),
            replicas=self.paid / ((steps - self.warm) * self.step),
        )

    def _ability(self) -> tuple[Floats, Floats]:
        """Places of the ready replicas, and how much slower each request makes them."""
        return self.places * self.ready, self.slope / np.maximum(self.ready, 1.0)

    def _begin(self, at: int) -> None:
        """Starts that end before this step, and the lengths that come in it."""
        if at in self.comes:
            self.comes.discard(at)
            row = self.ring[at % len(self.ring)]
            self.ready += row
            self.starting -= row
            row[:] = 0.0
        if not self.steady:
            self.places, self.fixed, self.slope = (
                np.take(one[at], self.trace) for one in self.mixes
            )  # fmt: skip

    def _resize(self, wanted: Counts, at: int) -> None:
        change = wanted - self.ready - self.starting
        up = np.flatnonzero(change > 0.0)
        if len(up):
            # Starts end at the beginning of a step, as decisions come at its end.
            row = (at + 1 + self.start[up]) % len(self.ring)
            self.ring[row, up] += change[up]
            self.starting[up] += change[up]
            self.comes.update(at + 1 + start for start in self.starts)
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
