"""How little could have done it: schedules made with the arrivals and start times known.

*Schedule*: dynamic programming, backwards over (ready replicas, requests in the pool), with whole
replicas, starts paid for as long as they take, drains, and a price on each late answer. It is then
carried out in the very fluid that policies run in; the price is searched so that the attainment is
just kept. What it costs is what a clairvoyant can do, so an upper bound of the least.

*Floor*: a linear programme that no schedule can beat which changes at the slots' bounds: replicas
may be fractions, answers that would be late may be dropped, and drains are free.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Pool, Running
from services.scaler.simulator.silicon import Floats

MOVES = 3
"""Replicas that may come or go at the bound of a slot."""
GRID = 40
"""Numbers of requests in the pool that are told apart; between them values are interpolated."""
SHORT_OF_OBJECTIVE = 0.75
"""Share of the objective beyond which a wait counts as late for the schedule; the fluid judges."""
DRAIN_SHARE = 0.7
"""How full a replica is that goes, for the schedule; the fluid knows."""
PRICES = (0.006, 0.015, 0.035, 0.08, 0.2, 0.6)
"""Replica-seconds for a late answer, that are tried."""
PART_SECONDS = 86_400.0
AHEAD_SECONDS = 3600.0
"""Schedules are made part by part, each with a look so far into the next."""


@dataclass(frozen=True)
class Schedule:
    """What a schedule came to.

    Attributes:
        attainment: share of the answers that began in time.
        replicas: mean number that was paid for.
        price: of a late answer, that it was made with.
    """

    attainment: float
    replicas: float
    price: float


def best_schedules(
    pool: Pool,
    arrivals: Arrivals,
    starts: Sequence[float],
    *,
    slot: float,
    attainment: float = 0.99,
    prices: Sequence[float] = PRICES,
    short: float = SHORT_OF_OBJECTIVE,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Schedule | None]:
    """The cheapest schedule found that keeps the attainment, for each start time; None: none does.

    Args:
        pool: its `warm` seconds are scheduled too, and not scored; its own start time is not used.
        arrivals: all of them, known.
        starts: seconds that a start takes.
        slot: seconds between changes.
        attainment: to be kept.
        prices: of a late answer.
        short: share of the objective beyond which a wait counts as late for the schedule; less
            of it leaves more to spare where lengths drift.
        tell: told how far it is.
    """
    cases = [(start, price) for start in starts for price in prices]
    size = round(slot / arrivals.step)
    slots = len(arrivals.work) // size
    work = arrivals.work[: slots * size].reshape(-1, size).sum(axis=1)
    runs = [_Carried(pool, arrivals, size, start) for start, _ in cases]
    part, ahead = round(PART_SECONDS / slot), round(AHEAD_SECONDS / slot)
    for begin in range(0, slots, part):
        plan = _planned(pool, work[begin : begin + part + ahead], slot, cases, part, short=short)
        for at, run in enumerate(runs):
            run.follow(plan, at)
        tell(f"schedules: {min(1.0, (begin + part) / slots):.0%}")
    found: list[Schedule | None] = []
    for at in range(len(starts)):
        mine = range(at * len(prices), (at + 1) * len(prices))
        kept = [
            one for one in (runs[case].outcome(cases[case][1]) for case in mine)
            if one.attainment >= attainment
        ]  # fmt: skip
        found.append(min(kept, key=lambda one: one.replicas, default=None))
    return found


def floor(pool: Pool, arrivals: Arrivals, *, slot: float, attainment: float = 0.99) -> float:
    """Mean replicas that no schedule can go below.

    Raises:
        RuntimeError: the solver found no optimum.
    """
    from scipy import sparse  # noqa: PLC0415 - what decides online does without scipy
    from scipy.optimize import linprog  # noqa: PLC0415

    scored = arrivals.between(pool.warm, arrivals.seconds)
    work = _by_slot(scored, slot)
    serving, count = pool.serving, len(work)
    does = serving.throughput * slot
    holds = serving.places + serving.throughput * pool.objective
    one, zero = sparse.identity(count, format="csr"), sparse.csr_matrix((count, count))
    before = sparse.diags([np.ones(count - 1)], [-1], format="csr")
    # Columns: replicas, replicas more, requests in the pool, requests taken in time.
    rows = sparse.vstack(
        [
            sparse.hstack([-does * one, zero, before - one, one]),
            sparse.hstack([-holds * one, zero, one, zero]),
            sparse.hstack([one - before, -one, zero, zero])[1:],
            sparse.hstack([sparse.csr_matrix((1, 3 * count)), -np.ones((1, count))]),
        ],
        format="csr",
    )
    limit = np.zeros(rows.shape[0])
    # What runs at the beginning of what is scored was served before it.
    limit[-1] = -attainment * work.sum()
    start = pool.starts[0]
    costs = np.concatenate([np.full(count, slot), np.full(count, start), np.zeros(2 * count)])
    bounds = [(0.0, None)] * (3 * count) + [(0.0, float(most)) for most in work]
    solved = linprog(costs, A_ub=rows, b_ub=limit, bounds=bounds, method="highs-ipm")
    if solved.status != 0:
        raise RuntimeError(f"no floor was found: {solved.message}")
    return float(solved.fun) / (count * slot)


def _by_slot(arrivals: Arrivals, slot: float) -> Floats:
    size = round(slot / arrivals.step)
    whole = len(arrivals.work) // size * size
    return np.asarray(arrivals.work[:whole].reshape(-1, size).sum(axis=1))


@dataclass(frozen=True)
class _Plan:
    """Changes of the ready replicas.

    Attributes:
        moves: by slot, case, replicas and point of the grid of requests inside.
        step: of that grid.
    """

    moves: NDArray[np.int8]
    step: float


def _planned(
    pool: Pool,
    work: Floats,
    slot: float,
    cases: Sequence[tuple[float, float]],
    kept: int,
    *,
    short: float,
) -> _Plan:
    """The best change in each slot, backwards; those of the first `kept` slots are kept."""
    serving = pool.serving
    does_one = serving.throughput * slot
    peak = float(np.convolve(work, np.ones(4) / 4.0, "same").max()) / does_one
    most = math.ceil(1.3 * peak) + 2
    replicas = np.arange(1, most + 1)[:, None].astype(float)
    limit = replicas * (
        serving.places + serving.throughput * pool.objective * short
    )  # fmt: skip
    step = 1.1 * float(limit[-1, 0]) / (GRID - 1)
    inside = np.arange(GRID)[None, :] * step
    ramp = serving.throughput * replicas  # a second's worth
    row = np.arange(most)[:, None] * GRID
    values = np.zeros((len(cases), most, GRID))
    moves = np.zeros((min(kept, len(work)), len(cases), most, GRID), np.int8)
    price = np.array([one for _, one in cases])[:, None, None]
    up = np.array([start for start, _ in cases])[:, None, None]
    full = serving.capacity.a + serving.slope * serving.places
    down = serving.output * full * DRAIN_SHARE
    best = np.empty_like(values)
    for at in range(len(work) - 1, -1, -1):
        busy = np.minimum(work[at] / slot / replicas, serving.throughput * 0.999) * serving.output
        settled = replicas * np.minimum(
            busy * serving.capacity.a / np.maximum(1.0 - busy * serving.slope, 1e-6),
            serving.places,
        )
        after = np.maximum(inside + (work[at] - does_one * replicas), settled)
        late = work[at] * np.clip((after - limit) / ramp, 0.0, 1.0)
        late += np.maximum(after - 1.1 * limit, 0.0)
        place = after / step
        index = np.minimum(place.astype(np.int64), GRID - 2)
        part = place - index  # beyond the grid, values go on straight
        flat = values.reshape(len(cases), -1)
        index += row
        here = flat[:, index]
        cost = flat[:, index + 1]
        cost -= here
        cost *= part
        cost += here
        cost += price * late
        cost += slot * replicas
        np.copyto(best, cost)
        chosen = moves[at] if at < len(moves) else np.zeros(values.shape, np.int8)
        for move in range(1, MOVES + 1):
            _take(best[:, :-move], cost[:, move:] + up * move, chosen[:, :-move], move)
            _take(best[:, move:], cost[:, :-move] + down * move, chosen[:, move:], -move)
        values = best - best.min(axis=(1, 2), keepdims=True)
    return _Plan(moves, step)


def _take(best: Floats, other: Floats, chosen: NDArray[np.int8], move: int) -> None:
    better = other < best
    np.copyto(best, other, where=better)
    chosen[better] = move


class _Carried:
    """A schedule as it is carried out."""

    def __init__(self, pool: Pool, arrivals: Arrivals, size: int, start: float) -> None:
        self.running = Running(pool, arrivals)
        self.size, self.start = size, start
        self.warm = round(pool.warm / arrivals.step)
        self.before = self.running.mark()
        self.began = 0

    def follow(self, plan: _Plan, case: int) -> None:
        """Goes through the slots of a plan."""
        running, most = self.running, plan.moves.shape[2]
        for moves in plan.moves[:, case]:
            if not self.began and running.at >= self.warm:
                self.before, self.began = running.mark(), running.at
            point = min(GRID - 1, round(running.inside / plan.step))
            change = int(moves[min(running.ready, most) - 1, point])
            # A start is ordered ahead of time, as all is known: it is ready now, and paid for.
            running.shift(change, start=self.start)
            running.advance(min(running.steps, running.at + self.size))

    def outcome(self, price: float) -> Schedule:
        """What it came to."""
        running, counts = self.running, self.running.counts
        due = counts.begun - self.before.begun + running.overdue
        late = counts.late - self.before.late + running.overdue
        seconds = (running.at - self.began) * running.step
        return Schedule(1.0 - late / due, (counts.paid - self.before.paid) / seconds, price)
