"""All pools at once, under the very core: what budgets, money and spot make of them.

Pools of one tier serve one line: a request goes to whichever has a place, as routers spread them.
Spot capacity is there whenever it is asked for. A pool of which nothing is known has no tier here:
it keeps its size, and what it takes of what is shared.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from services.scaler.policy.sizing.capacity import Learned
from services.scaler.policy.sizing.settings import Budget, Money, Scale, Spot
from services.scaler.policy.sizing.size import AllMemory, PoolPolicy, SizeMemory, decide_all
from services.scaler.policy.sizing.spot import MixMemory, mixed
from services.scaler.policy.sizing.views import Bound, Decision, View
from services.scaler.policy.sizing.why import why
from services.scaler.policy.sizing.work import WorkMemory
from services.scaler.simulator.arrivals import Arrivals
from services.scaler.simulator.core import busy, view_of
from services.scaler.simulator.course import Counts, Course, Ticks, course_of
from services.scaler.simulator.fluid import Moment, Pool, Progress, Running, Turn
from services.scaler.simulator.starts import Starts
from services.scaler.simulator.trial import Replica, Trace, begins_with, start_times, warm_of

MAX_REASONS = 20_000
"""Of a pool, kept: as many as of 14 days with a change a minute."""

NAMED = frozenset({Bound.BUDGET, Bound.MONEY, Bound.SIGNAL})
"""Bounds of which there are several, told apart by name."""

Which = tuple[str, str]
"""A bound, and which one of its kind."""


@dataclass(frozen=True)
class Member:
    """A pool as it takes part.

    Attributes:
        scale: how its size follows what is asked of it; None: it does not.
        size: replicas of a pool without `scale`, or of which nothing is known.
        replica: what serves; None: nothing is known of it.
        room: most replicas that fit; None: not known.
        usd_per_hour: of a replica; 0: not known.
        learned: what the policy knows of its replicas as it begins.
    """

    scale: Scale | None
    size: int
    replica: Replica | None = None
    room: int | None = None
    usd_per_hour: float = 0.0
    learned: Learned = field(default_factory=Learned)


@dataclass(frozen=True)
class Line:
    """A tier: what comes, and who serves it.

    Attributes:
        trace: what comes, in requests of the first pool's replica.
        pools: names of those that serve it, one at least; each has a replica.
        objective: seconds to the first text.
    """

    trace: Trace
    pools: Sequence[str]
    objective: float


@dataclass(frozen=True)
class Shares:
    """What pools share.

    Attributes:
        budgets: by name.
        money: what all may cost; None: anything.
    """

    budgets: Mapping[str, Budget] = field(default_factory=dict)
    money: Money | None = None


@dataclass(frozen=True)
class Fared:
    """How a pool fared; what its tier's answers did is told of each of its pools.

    Attributes:
        course: of it.
        bounds: share of its decisions that each bound last, 0 to 1.
        reasons: decisions that changed its size or what bound it last, with the seconds since the
            beginning; the first ones where there are too many.
    """

    course: Course
    bounds: Mapping[Which, float]
    reasons: Sequence[tuple[float, Decision]] = ()

    def why(self, at: float) -> str:
        """Why it had its size then, in one sentence; empty: it was not kept."""
        place = bisect_right(self.reasons, at, key=lambda one: one[0]) - 1
        if place < 0 or (place == MAX_REASONS - 1 and self.reasons[place][0] < at):
            return ""
        decision = self.reasons[place][1]
        return why(decision.size, decision.constraints)


def together(
    members: Mapping[str, Member],
    lines: Sequence[Line],
    shares: Shares,
    *,
    tick: float,
    wall: float = 0.0,
    progress: Progress | None = None,
) -> dict[str, Fared]:
    """What the policies would have done, pool by pool of those that are in a line.

    Args:
        members: all pools.
        lines: the tiers, of one length.
        shares: what the pools share.
        tick: seconds between decisions.
        wall: time at the beginning, in seconds since 1970.
        progress: told the share that is done.
    """
    return _All(members, lines, shares, wall).run(tick, progress)


class _Part:
    """One pool of a tier: its replicas, and what they took."""

    def __init__(
        self, member: Member, replica: Replica, size: int, worth: float, step: float
    ) -> None:
        self.member = member
        self.replica = replica
        self.worth = worth
        self.ready = size
        self.counts = Counts()
        self.before = Counts()
        self.starting = Starts(start_times(replica, 1), step, self.counts)
        self.bounds: Counter[Which] = Counter()
        self.decided = 0
        self.reasons: list[tuple[float, Decision]] = []
        self.reason: tuple[int, Which] | None = None
        self.rows: list[tuple[float, ...]] = []
        self.gone_at: list[int] = []  # of those that drain

    @property
    def places(self) -> int:
        return self.ready * self.replica.places


class _Tier(Running):
    """One line that several pools serve."""

    def __init__(self, pool: Pool, arrivals: Arrivals, parts: Mapping[str, _Part]) -> None:
        super().__init__(pool, arrivals)
        self.parts = parts
        self.idle = 0.0
        self._weigh()

    def advance(self, end: int) -> None:
        """Goes on to a step, with each start that ends on the way."""
        while self.at < end:
            for part in self.parts.values():
                part.ready += part.starting.come(self.at)
            self._weigh()
            until = min(part.starting.until(end) for part in self.parts.values())
            for part in self.parts.values():
                there = part.ready + len(part.starting)
                part.counts.paid += there * (until - self.at) * self.step
            super().advance(until)

    def take(self, name: str, wanted: int) -> None:
        """One of its pools is to have so many replicas."""
        part = self.parts[name]
        change = wanted - part.ready - len(part.starting)
        for _ in range(part.starting.resize(change, self.at)):
            part.counts.paid += self.drain(part.worth)
            part.gone_at.append(self.leaving[-1][0])
            part.ready -= 1
            self._weigh()

    def moments(self, moment: Moment) -> dict[str, Moment]:
        """What each pool's policy sees: its part of the tier, by places that are ready."""
        places = sum(part.places for part in self.parts.values())
        power = self.ready * self.worth
        able = min(self.parts, key=lambda name: (self.parts[name].member.usd_per_hour, name))
        found = {}
        for name, part in self.parts.items():
            share = part.places / places if places else float(name == able)
            runs = part.ready * part.worth / power if power else share
            part.gone_at = [at for at in part.gone_at if at > self.at]
            found[name] = moment.part(
                part.ready, len(part.starting), len(part.gone_at), share=share, runs=runs
            )
        return found

    def _weigh(self) -> None:
        self.ready = sum(part.ready for part in self.parts.values())
        power = sum(part.ready * part.worth for part in self.parts.values())
        self.worth = power / self.ready if self.ready else 1.0


class _All:
    """The tiers in step."""

    def __init__(
        self, members: Mapping[str, Member], lines: Sequence[Line], shares: Shares, wall: float
    ) -> None:
        self.members = members
        self.shares = shares
        self.wall = wall
        self.policies = {name: PoolPolicy(one.scale, one.size) for name, one in members.items()}
        self.memory = AllMemory(
            {name: self._begun(name, one.size) for name, one in members.items()},
            prices={name: one.usd_per_hour for name, one in members.items()},
        )
        self.tiers = [self._tier(line) for line in lines]

    def run(self, tick: float, progress: Progress | None) -> dict[str, Fared]:
        """Serves all of it."""
        some = self.tiers[0]
        every = max(1, round(tick / some.step))
        warm = round(some.pool.warm / some.step)
        marked = False
        while some.at < some.steps:
            if not marked and some.at >= warm:
                marked = True
                self._mark()
            end = min(some.steps, some.at + every)
            turns = [tier.turn(end) for tier in self.tiers]
            views = self._views(turns)
            decisions, self.memory = decide_all(
                self.policies, self.shares.budgets, self.shares.money, self.memory, views,
                worded=False,
            )  # fmt: skip
            for tier, turn in zip(self.tiers, turns, strict=True):
                for name, part in tier.parts.items():
                    wanted = decisions[name].size
                    part.rows.append(turn.row(wanted, part.ready, len(part.starting)))
                    _note(part, turn.moment.now, decisions[name], counted=marked)
                    tier.take(name, wanted)
            if progress is not None:
                progress(some.at / some.steps)
        return {
            name: _fared(tier, part) for tier in self.tiers for name, part in tier.parts.items()
        }

    def _views(self, turns: Sequence[Turn]) -> dict[str, View]:
        views: dict[str, View] = {}
        wall = self.wall + turns[0].moment.now
        for tier, turn in zip(self.tiers, turns, strict=True):
            moment = turn.moment
            tier.idle = 0.0 if busy(moment) else tier.idle + moment.seconds
            for name, seen in tier.moments(moment).items():
                part = tier.parts[name]
                views[name] = view_of(
                    seen,
                    places=part.replica.places,
                    start_seconds=part.replica.start_seconds,
                    wall=wall,
                    usd_per_hour=part.member.usd_per_hour,
                    idle=tier.idle,
                    fits=part.member.room,
                )
        for name in self.members.keys() - views.keys():
            views[name] = self._unknown(name, turns[0].moment, wall)
        return views

    def _unknown(self, name: str, moment: Moment, wall: float) -> View:
        """A pool of which nobody reports: it does not shrink, and what it takes counts."""
        size = self.memory.pools[name].size
        return View(
            now=moment.now, wall=wall, ready=size, starting=0, places=1, start_seconds=0.0,
            traffic=None, waiting=None, running=None, usd_per_hour=self.members[name].usd_per_hour,
        )  # fmt: skip

    def _tier(self, line: Line) -> _Tier:
        trace = line.trace
        sizes = self._sizes(line)
        parts = {}
        for name in line.pools:
            member = self.members[name]
            assert member.replica is not None  # noqa: S101
            serving = replace(
                trace.serving, capacity=member.replica.capacity, places=member.replica.places
            )
            worth = serving.throughput / trace.serving.throughput
            parts[name] = _Part(member, member.replica, sizes[name], worth, trace.arrivals.step)
        pool = Pool(
            serving=trace.serving,
            objective=line.objective,
            starts=(trace.replica.start_seconds,),
            size=0,
            warm=warm_of(trace),
        )
        return _Tier(pool, trace.arrivals, parts)

    def _begun(self, name: str, size: int) -> SizeMemory:
        """What is remembered of a pool as it begins."""
        return SizeMemory(size, work=WorkMemory(learned=self.members[name].learned))

    def _sizes(self, line: Line) -> dict[str, int]:
        """What its pools begin with: what is needed, by turns, and the mix of spot as it holds."""
        sizes = {name: self.members[name].size for name in line.pools}
        splits: dict[str, Spot] = {}
        scales = {name: self.members[name].scale for name in line.pools}
        several = sum(scale is not None for scale in scales.values())
        for name, scale in scales.items():
            if scale is None:
                continue
            whole = begins_with(scale, line.trace)
            sizes[name] = max(scale.min, math.ceil(whole / several))
            if scale.spot is not None and scale.spot.pool in sizes:
                splits[name] = scale.spot
        pools, mixes = dict(self.memory.pools), dict(self.memory.mixes)
        pools.update((name, self._begun(name, size)) for name, size in sizes.items())
        for name, split in splits.items():
            whole = sizes[name]
            mix, _ = mixed(split, MixMemory(), target=whole, ready=whole + split.over_provision,
                           now=0.0, start_seconds=0.0)  # fmt: skip
            sizes[name], sizes[split.pool] = mix.on_demand, mix.spot
            pools[split.pool] = self._begun(split.pool, mix.spot)
            mixes[name] = MixMemory(on_demand=mix.on_demand)
        self.memory = replace(self.memory, pools=pools, mixes=mixes)
        return sizes

    def _mark(self) -> None:
        """Scoring begins."""
        for tier in self.tiers:
            for part in tier.parts.values():
                part.before = replace(part.counts, begun=tier.counts.begun, late=tier.counts.late)


def _fared(tier: _Tier, part: _Part) -> Fared:
    after = replace(part.counts, begun=tier.counts.begun, late=tier.counts.late)
    course = course_of(
        part.before, after, Ticks(*np.array(part.rows).T), overdue=tier.overdue,
        warm=tier.pool.warm, end=tier.steps * tier.step,
        usd_per_hour=part.member.usd_per_hour or None,
    )  # fmt: skip
    shares = {which: times / part.decided for which, times in part.bounds.items()}
    return Fared(course, shares, part.reasons)


def _note(part: _Part, now: float, decision: Decision, *, counted: bool) -> None:
    which = "", ""
    if decision.constraints:
        last = decision.constraints[-1]
        which = last.bound.value, last.detail if last.bound in NAMED else ""
    if counted:
        part.decided += 1
        if decision.constraints:
            part.bounds[which] += 1
    if part.reason != (decision.size, which) and len(part.reasons) < MAX_REASONS:
        part.reason = decision.size, which
        part.reasons.append((now, decision))
