"""The search of a baseline's own knobs: drawn at large, then around the best, on the tuning days.

Two winners are sought: one setting for all cells at once, and one for each cell. A setting holds a
cell when it keeps the attainment there; among those that hold, the cheapest wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.scaler.simulator.baselines import Bounds, Family
from services.scaler.simulator.lanes import Cell, run_lanes
from services.scaler.simulator.silicon import Floats

ATTAINMENT = 0.99
NEAR = 0.12
"""Width of a draw around the best, as a share of the bounds; half of it in the next round."""
AS_BEFORE = 0.4
"""Share of the knobs of a draw near the best that stay, so that single ones are tried too."""
FAR = 0.03
"""Share of the knobs of a draw near the best that are drawn at large."""


@dataclass(frozen=True)
class Size:
    """How much is tried.

    Attributes:
        first: settings drawn at large, tried on the short cells.
        kept: the best of these, tried on the long ones too.
        near: settings drawn around the best, in each round.
        rounds: of these.
        last: the best of all, among which the choice is made.
    """

    first: int = 400
    kept: int = 32
    near: int = 32
    rounds: int = 1
    last: int = 16


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        single: knobs for all cells.
        holds: they keep the attainment in every cell.
        cost: mean of their replicas by what was given as measure, over all cells.
        each: knobs of each cell, by its name; None: none keeps the attainment there.
        tried: settings.
    """

    single: Mapping[str, float]
    holds: bool
    cost: float
    each: Mapping[str, Mapping[str, float] | None]
    tried: int


Tell = Callable[[str], None]
Groups = Sequence[Sequence[Cell]]
"""Cells whose traces are of one length each, the short ones first."""


def search(
    family: Family,
    groups: Groups,
    whole: Groups,
    measure: Mapping[str, float],
    *,
    size: Size,
    seed: int,
    tell: Tell = lambda _: None,
) -> Found:
    """Searches a family's knobs.

    Args:
        family: whose.
        groups: cells to search on; they may be the beginnings of those of `whole`.
        whole: the same cells, on which the choice among the best is made.
        measure: replicas of each cell, by its name, that costs are measured by.
        size: how much is tried.
        seed: of the draws.
        tell: told what is being done.
    """
    draw = np.random.default_rng(seed)
    names = list(family.knobs)
    bounds = [family.knobs[name] for name in names]
    cells = [cell for group in whole for cell in group]
    by = np.array([measure[cell.name] for cell in cells])
    drawn = _scaled(bounds, draw.random((size.first, len(names))))
    tell(f"{family.title}: {size.first} settings on the short cells")
    held, used = _tried(family, drawn, groups[:1])
    known = drawn[_best(held, used, by[: len(groups[0])], size.kept)]
    tell(f"{family.title}: {len(known)} of them on all cells")
    held, used = _tried(family, known, groups)
    for turn in range(size.rounds):
        centres = known[_best(held, used, by, max(4, size.near // 4))]
        around = _around(bounds, centres, size.near, NEAR / 2**turn, draw)
        tell(f"{family.title}: {size.near} settings around the best, round {turn + 1}")
        more_held, more_used = _tried(family, around, groups)
        known = np.concatenate([known, around])
        held, used = np.concatenate([held, more_held]), np.concatenate([used, more_used])
    last = known[_best(held, used, by, size.last)]
    tell(f"{family.title}: the best {len(last)} on all days")
    held, used = _tried(family, last, whole)
    winner = _ranked(held, used / by)[0]

    def named(row: Floats) -> dict[str, float]:
        return {name: round(float(value), 6) for name, value in zip(names, row, strict=True)}

    each: dict[str, Mapping[str, float] | None] = {}
    for at, cell in enumerate(cells):
        able = np.flatnonzero(held[:, at] >= ATTAINMENT)
        each[cell.name] = named(last[able[np.argmin(used[able, at])]]) if len(able) else None
    return Found(
        single=named(last[winner]),
        holds=bool((held[winner] >= ATTAINMENT).all()),
        cost=float((used[winner] / by).mean()),
        each=each,
        tried=size.first + size.near * size.rounds,
    )


def tried(
    family: Family, knobs: Sequence[Mapping[str, float]], cells: Sequence[Cell]
) -> tuple[Floats, Floats]:
    """Attainment and mean replicas of each setting (rows) in each cell of one length."""
    table = np.array([[float(one[name]) for name in family.knobs] for one in knobs])
    return _tried(family, table, [cells])


def _tried(family: Family, knobs: Floats, groups: Groups) -> tuple[Floats, Floats]:
    held, used = zip(*(_tried_on(family, knobs, group) for group in groups), strict=True)
    return np.concatenate(held, axis=1), np.concatenate(used, axis=1)


def _tried_on(family: Family, knobs: Floats, cells: Sequence[Cell]) -> tuple[Floats, Floats]:
    cell_of = np.tile(np.arange(len(cells)), len(knobs))
    rows = np.repeat(knobs, len(cells), axis=0)
    values = {name: rows[:, at] for at, name in enumerate(family.knobs)}
    sizer = family.make(values, cells[0].pool.serving)
    outcome = run_lanes(cells, cell_of.tolist(), sizer)
    shape = (len(knobs), len(cells))
    return outcome.attainment.reshape(shape), outcome.replicas.reshape(shape)


def _ranked(held: Floats, cost: Floats) -> Floats:
    """Settings that hold every cell first, by cost; then by the cell in which they are worst."""
    worst = held.min(axis=1)
    holds = worst >= ATTAINMENT
    return np.asarray(np.lexsort((np.where(holds, cost.mean(axis=1), -worst), ~holds)))


def _best(held: Floats, used: Floats, by: Floats, count: int) -> Floats:
    """Rows worth more trials: half of them for all cells, half for single ones."""
    cost = used / by
    picks = list(_ranked(held, cost)[: count // 2])
    alone = np.where(held >= ATTAINMENT, cost, 10.0 + (1.0 - held))
    for place in range(count):
        if len(picks) >= count:
            break
        for at in range(alone.shape[1]):
            pick = np.argsort(alone[:, at], kind="stable")[min(place, len(alone) - 1)]
            if pick not in picks and len(picks) < count:
                picks.append(pick)
    return np.array(picks)


def _scaled(bounds: Sequence[Bounds], share: Floats) -> Floats:
    """Knobs at these shares of their bounds."""
    columns = []
    for at, one in enumerate(bounds):
        low, high = (np.log(one.low), np.log(one.high)) if one.logarithmic else (one.low, one.high)
        value = low + (high - low) * share[:, at]
        value = np.exp(value) if one.logarithmic else value
        columns.append(np.round(value) if one.whole else value)
    return np.stack(columns, axis=1)


def _shares(bounds: Sequence[Bounds], knobs: Floats) -> Floats:
    columns = []
    for at, one in enumerate(bounds):
        value = np.log(knobs[:, at]) if one.logarithmic else knobs[:, at]
        low, high = (np.log(one.low), np.log(one.high)) if one.logarithmic else (one.low, one.high)
        columns.append((value - low) / (high - low))
    return np.stack(columns, axis=1)


def _around(
    bounds: Sequence[Bounds], centres: Floats, count: int, width: float, draw: np.random.Generator
) -> Floats:
    at = _shares(bounds, centres)[np.arange(count) % len(centres)]
    near = at + draw.normal(0.0, width, at.shape)
    near = np.where(draw.random(at.shape) < AS_BEFORE, at, near)
    near = np.where(draw.random(at.shape) < FAR, draw.random(at.shape), near)
    return _scaled(bounds, np.clip(near, 0.0, 1.0))
