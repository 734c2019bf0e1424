"""Replicas on spot capacity and on demand, under the very core, on zones that come and go.

Zones are independent, each up or down for exponentially distributed times (a two-state Markov
chain); one that goes down takes all its spot replicas, after a notice if there is any. How many are
to run on which capacity the core decides, tick by tick, from what it sees of both pools: losses
show as replicas that are gone, as requests that wait and as answers that come late. Spot replicas
start in zones that are up and have no notice, the emptiest first, of equals the one that was lost
the longest ago.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.scaler.policy.sizing.settings import Scale
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, decide_all
from services.scaler.policy.sizing.views import View
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.core import TICK_SECONDS, busy, view_of
from services.scaler.simulator.fluid import Moment, Pool, Running

Ups = NDArray[np.bool_]

ON_DEMAND = "on-demand"
SPOT = "spot"
"""The pool that a policy's `spot.pool` names."""


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
class Outcome:
    """What came of it.

    Attributes:
        attainment: share of the answers that began in time.
        cost: what was paid, in hours of an on-demand replica.
        lost: replicas that were taken away.
    """

    attainment: float
    cost: float
    lost: int


def availability(market: Market, seconds: float, seed: int, *, tick: float = TICK_SECONDS) -> Ups:
    """Which zone is up at which tick."""
    draw = np.random.default_rng(seed)
    ticks = round(seconds / tick)
    ups = np.zeros((ticks, market.zones), bool)
    share = market.up_seconds / (market.up_seconds + market.down_seconds)
    for zone in range(market.zones):
        at, up = 0.0, bool(draw.random() < share)
        while at < seconds:
            mean = market.up_seconds if up else market.down_seconds
            end = at + draw.exponential(mean)
            ups[round(at / tick) : round(end / tick), zone] = up
            at, up = end, not up
    return ups


def serve_on_spot(
    pool: Pool,
    arrivals: Arrivals,
    scale: Scale,
    *,
    ups: Ups | None = None,
    market: Market = Market(),
    tick: float = TICK_SECONDS,
) -> Outcome:
    """Serves a trace under a policy with a pool on spot, or with `ups` None on demand alone.

    Args:
        pool: its start time is that of both kinds; its size is on demand at the beginning.
        arrivals: the trace.
        scale: the policy; its `spot` names `SPOT`, or there is none.
        ups: zones by tick; those of the last one hold on.
        market: of spot.
        tick: seconds between decisions.
    """
    zones = np.zeros((1, 0), bool) if ups is None else ups
    return _Both(Running(pool, arrivals), scale, zones, market, tick).run()


@dataclass
class _Part:
    """Replicas of one kind and zone: ready, and the ticks at which those on their way are."""

    ready: int = 0
    starting: list[int] = field(default_factory=list)
    lost_at: int = -1

    @property
    def size(self) -> int:
        return self.ready + len(self.starting)

    def come(self, at: int) -> int:
        """Those whose start ends now."""
        left = [one for one in self.starting if one > at]
        came = len(self.starting) - len(left)
        self.starting = left
        self.ready += came
        return came


class _Both:
    """Both pools in step."""

    def __init__(
        self, running: Running, scale: Scale, ups: Ups, market: Market, tick: float
    ) -> None:
        pool = running.pool
        self.running, self.ups, self.market, self.tick = running, ups, market, tick
        self.start = max(1, round(pool.starts[0] / tick))
        self.notice = int(market.notice_seconds / tick)
        self.steps = round(tick / running.step)
        self.warm = round(pool.warm / tick)
        self.at = 0
        self.demand = _Part(ready=pool.size)
        self.zones = [_Part() for _ in range(ups.shape[1])]
        self.policies = {ON_DEMAND: PoolPolicy(scale)}
        if self.zones:
            self.policies[SPOT] = PoolPolicy(None)
        self.memory = AllMemory()
        self.idle = 0.0
        self.cost = 0.0
        self.lost = 0

    def run(self) -> Outcome:
        running = self.running
        before = running.mark()
        while running.at < running.steps:
            if self.at == self.warm:
                before, self.cost, self.lost = running.mark(), 0.0, 0
            for part in (self.demand, *self.zones):
                running.ready += part.come(self.at)
            self._take_away()
            spot = sum(zone.size for zone in self.zones)
            self.cost += (self.demand.size + self.market.price * spot) * self.tick
            moment = running.turn(min(running.steps, running.at + self.steps)).moment
            self._decide(moment)
            self.at += 1
        due = running.counts.begun - before.begun + running.overdue
        late = running.counts.late - before.late + running.overdue
        return Outcome(1.0 - late / max(due, 1e-9), self.cost / 3600.0, self.lost)

    def _decide(self, moment: Moment) -> None:
        """At the end of a tick, with what was known in it: a loss shows a tick after it came."""
        self.idle = 0.0 if busy(moment) else self.idle + moment.seconds
        decisions, self.memory = decide_all(
            self.policies, {}, None, self.memory, self._views(moment), worded=False
        )
        if self.zones:
            self._resize_spot(decisions[SPOT].size)
        wanted = decisions[ON_DEMAND].size
        for _ in range(wanted - self.demand.size):
            self.demand.starting.append(self.at + 1 + self.start)
        for _ in range(self.demand.size - wanted):
            self._end(self.demand)

    def _views(self, moment: Moment) -> dict[str, View]:
        """What the core sees of both: those with a notice count no longer, as in the fleet."""
        lasting = [zone for number, zone in enumerate(self.zones) if self._lasts(number)]
        parts = {ON_DEMAND: (self.demand.ready, len(self.demand.starting), 1.0)}
        if self.zones:
            ready = sum(zone.ready for zone in lasting)
            starting = sum(len(zone.starting) for zone in lasting)
            parts[SPOT] = ready, starting, self.market.price
        there = sum(ready for ready, _, _ in parts.values())
        views = {}
        for name, (ready, starting, price) in parts.items():
            share = ready / there if there else float(name == ON_DEMAND)
            runs = ready / moment.ready if moment.ready else share
            views[name] = view_of(
                moment.part(ready, starting, 0, share=share, runs=runs),  # without a ceiling
                places=self.running.pool.serving.places,
                start_seconds=self.running.pool.starts[0],
                wall=moment.now,
                usd_per_hour=price,
                idle=self.idle,
            )
        return views

    def _up(self, zone: int, ahead: int = 0) -> bool:
        """Whether it is up for so many ticks more, as far as is known."""
        part = self.ups[self.at : self.at + ahead + 1, zone]
        return bool(part.all()) if len(part) else bool(self.ups[-1, zone])

    def _lasts(self, zone: int) -> bool:
        """Whether it is up, and nothing says that it will not be."""
        return self._up(zone, self.notice)

    def _take_away(self) -> None:
        # With a notice a replica drains the tick before it is gone.
        ahead = 1 if self.notice else 0
        for number, zone in enumerate(self.zones):
            if zone.size and not self._up(number, ahead):
                self.lost += zone.size
                zone.lost_at = self.at
                while zone.size:
                    self._end(zone, taken=not self.notice)

    def _resize_spot(self, goal: int) -> None:
        lasting = [zone for number, zone in enumerate(self.zones) if self._lasts(number)]
        size = sum(zone.size for zone in lasting)
        for _ in range(goal - size if lasting else 0):
            emptiest = min(lasting, key=lambda one: (one.size, one.lost_at))
            emptiest.starting.append(self.at + 1 + self.start)
        for _ in range(size - goal):
            self._end(max(lasting, key=lambda one: one.size))

    def _end(self, part: _Part, *, taken: bool = False) -> None:
        """Ends one, a starting one first; what ran on one that was taken waits anew."""
        if part.starting:
            part.starting.pop()
            return
        part.ready -= 1
        if taken:
            self.running.lose()
        else:
            self.running.shift(-1, start=0.0)
