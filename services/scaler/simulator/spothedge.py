"""Spot and on-demand replicas mixed by SpotHedge's rule, on zones that come and go.

Zones are independent, each up or down for exponentially distributed times (a two-state Markov
chain); one that goes down takes all its spot replicas, after a notice if there is any. The rule
(EuroSys 2025, its published artefact and paper): spot holds the target and some more, spread over
zones that were not lost lately; on-demand holds what spot lacks of that, never more than the
target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.fluid import Pool, Running

Ups = NDArray[np.bool_]


@dataclass(frozen=True)
class Market:
    """Where spot replicas come from.

    Attributes:
        zones: how many.
        up_seconds, down_seconds: mean time a zone is up and down.
        price: of a spot replica, as a share of an on-demand one's.
        notice_seconds: between the notice and the end of a replica.
    """

    zones: int = 3
    up_seconds: float = 8 * 3600.0
    down_seconds: float = 3600.0
    price: float = 0.35
    notice_seconds: float = 0.0


@dataclass(frozen=True)
class Mix:
    """How much of which.

    Attributes:
        share: of the target that is on spot.
        over: spot replicas more.
        least: on-demand replicas that stay whatever spot has.
    """

    share: float = 1.0
    over: int = 1
    least: int = 0


@dataclass(frozen=True)
class Hedged:
    """What came of it.

    Attributes:
        attainment: share of the answers that began in time.
        cost: what was paid, in hours of an on-demand replica.
        lost: replicas that were taken away.
    """

    attainment: float
    cost: float
    lost: int


def availability(market: Market, seconds: float, slot: float, seed: int) -> Ups:
    """Which zone is up in which slot."""
    draw = np.random.default_rng(seed)
    slots = round(seconds / slot)
    ups = np.zeros((slots, market.zones), bool)
    share = market.up_seconds / (market.up_seconds + market.down_seconds)
    for zone in range(market.zones):
        at, up = 0.0, bool(draw.random() < share)
        while at < seconds:
            mean = market.up_seconds if up else market.down_seconds
            end = at + draw.exponential(mean)
            ups[round(at / slot) : round(end / slot), zone] = up
            at, up = end, not up
    return ups


@dataclass
class _Kind:
    """Replicas of one kind and zone: ready, and the slots at which those on their way are."""

    ready: int = 0
    starting: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.ready + len(self.starting)


def hedged(
    pool: Pool,
    arrivals: Arrivals,
    targets: Sequence[int],
    *,
    slot: float,
    ups: Ups | None = None,
    market: Market = Market(),
    mix: Mix = Mix(),
) -> Hedged:
    """Serves a trace with a target for each slot.

    Args:
        pool: its start time is that of both kinds; its size is on demand at the beginning.
        arrivals: the trace.
        targets: replicas wanted in each slot.
        slot: seconds.
        ups: zones by slot; None: on-demand alone.
        market: of spot.
        mix: of both.
    """
    run = _Hedge(Running(pool, arrivals), ups, market, mix, slot)
    for target in targets:
        run.turn(target)
    return run.outcome()


class _Hedge:
    def __init__(
        self, running: Running, ups: Ups | None, market: Market, mix: Mix, slot: float
    ) -> None:
        pool = running.pool
        self.running = running
        self.ups, self.market, self.mix, self.slot = ups, market, mix, slot
        self.start = max(1, round(pool.starts[0] / slot))
        self.notice = int(market.notice_seconds / slot)
        self.size = round(slot / running.step)
        self.warm = round(pool.warm / slot)
        self.at = 0
        self.demand = _Kind(ready=pool.size)
        self.zones = [_Kind() for _ in range(market.zones)]
        self.lost_at = [-1] * market.zones
        self.last_demand, self.filled = pool.size, 0
        self.cost = 0.0
        self.lost = 0
        self.before = self.running.mark()

    def turn(self, target: int) -> None:
        """One slot."""
        if self.at == self.warm:
            self.before, self.cost, self.lost = self.running.mark(), 0.0, 0
        for kind in (self.demand, *self.zones):
            came = sum(one <= self.at for one in kind.starting)
            kind.starting = [one for one in kind.starting if one > self.at]
            kind.ready += came
            self.running.ready += came
        if self.ups is not None:
            self._take_away()
            self._spot(target)
        self._on_demand(target)
        spot = sum(zone.size for zone in self.zones)
        self.cost += (self.demand.size + self.market.price * spot) * self.slot
        end = min(self.running.steps, self.running.at + self.size)
        self.running.advance(end)
        self.at += 1

    def outcome(self) -> Hedged:
        """What came of all slots."""
        running = self.running
        due = running.counts.begun - self.before.begun + running.overdue
        late = running.counts.late - self.before.late + running.overdue
        return Hedged(1.0 - late / max(due, 1e-9), self.cost / 3600.0, self.lost)

    def _up(self, zone: int, ahead: int = 0) -> bool:
        """Whether it is up for so many slots more, as far as the trace goes."""
        assert self.ups is not None  # noqa: S101
        part = self.ups[self.at : self.at + ahead + 1, zone]
        return bool(part.all()) if len(part) else bool(self.ups[-1, zone])

    def _take_away(self) -> None:
        for number, zone in enumerate(self.zones):
            if zone.size and not self._up(number):
                self.lost += zone.size
                self.lost_at[number] = self.at
                self._end(zone, zone.size, taken=True)

    def _spot(self, target: int) -> None:
        """Towards the goal, in the zones that were not lost last, the emptiest first."""
        goal = round(self.mix.share * target) + self.mix.over if target else 0
        while (size := self._lasting()) < goal:
            able = [
                one for one in range(len(self.zones)) if self._up(one, self.notice)
            ]  # fmt: skip
            if not able:
                return
            zone = min(able, key=lambda one: (self.zones[one].size, self.lost_at[one]))
            self.zones[zone].starting.append(self.at + self.start)
        for _ in range(size - goal):
            fullest = max(self.zones, key=lambda one: one.size)
            self._end(fullest, 1)

    def _lasting(self) -> int:
        """Spot replicas, less those that were given notice."""
        return sum(
            zone.size for number, zone in enumerate(self.zones) if self._up(number, self.notice)
        )

    def _on_demand(self, target: int) -> None:
        if self.ups is None:
            goal = target
        else:
            ready = sum(
                zone.ready for number, zone in enumerate(self.zones)
                if self._up(number, self.notice)
            )  # fmt: skip
            spot_target = round(self.mix.share * target)
            short = spot_target + self.mix.over - ready
            goal = target - spot_target + max(0, min(spot_target, short))
            if short <= 0:
                # Spot is full again: what held its place stays for as long as a start.
                self.filled += 1
                if self.filled <= self.start:
                    goal = max(goal, min(self.last_demand, target))
            else:
                self.filled = 0
            goal = max(goal, self.mix.least)
            self.last_demand = goal
        for _ in range(goal - self.demand.size):
            self.demand.starting.append(self.at + self.start)
        if self.demand.size > goal:
            self._end(self.demand, self.demand.size - goal)

    def _end(self, kind: _Kind, count: int, *, taken: bool = False) -> None:
        """Ends replicas, starting ones first; what ran on those taken without notice waits anew."""
        for _ in range(count):
            if kind.starting:
                kind.starting.pop()
                continue
            kind.ready -= 1
            if taken and not self.notice:
                self.running.lose()
            else:
                self.running.shift(-1, start=0.0)
