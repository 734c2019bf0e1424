"""What holds of every decision, whatever is measured and set."""

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.scaler.policy.sizing.override import Override, OverrideKind
from services.scaler.policy.sizing.settings import (
    Behavior,
    Burst,
    Direction,
    Forecast,
    Measure,
    Query,
    Rate,
    RateType,
    Rule,
    Scale,
    Select,
    Signal,
    Work,
    Zero,
)
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Bound, Reading, Traffic, View
from tests.making.sizing import H100, finite, scale, settled, view

BROKEN = (math.nan, math.inf, -math.inf, -1.0)


class Drawn:
    """Policies and pools by a seed: drawing them one value at a time is too slow to do often."""

    def __init__(self, seed: int, *, broken: bool = False) -> None:
        self._random = Random(seed)
        self._broken = broken

    def one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def count(self, most: int = 6) -> int:
        return self._random.randint(0, most)

    def coin(self) -> bool:
        return self._random.random() < 0.5

    def figure(self) -> float:
        if self._broken and self._random.random() < 0.2:
            return self.one(*BROKEN)
        return self.one(0.0, 1.0, self._random.uniform(0, 2), self._random.uniform(0, 2000))

    def rate(self) -> Rate:
        kind, value = self.one(*RateType), 1 + self.count(150)
        return Rate(type=kind, value=value, period_seconds=self.one(5.0, 15.0, 60.0, 600.0))

    def direction(self) -> Direction:
        return Direction(
            tolerance=self.one(0.0, 0.1),
            stabilization_window_seconds=self.one(0.0, 30.0, 300.0),
            policies=tuple(self.rate() for _ in range(self.count(2))),
            select_policy=self.one(*Select, Select.MAX),
        )

    def rule(self) -> Rule:
        signal, seconds = self.one("running", "kv", "depth"), self.one(0.0, 10.0, 30.0)
        if self.coin():
            return Rule(signal=signal, above=0.7, for_seconds=seconds, change=1 + self.count(2))
        return Rule(signal=signal, below=0.3, for_seconds=seconds, change=-1 - self.count(2))

    def work(self) -> Work:
        return Work(
            capacity=self.one(None, H100),
            hold=self.one(0.0, 0.5, 2.0),
            usual_share=self.one(0.0, 0.4, 1.0),
            spare=self.one(0.0, 0.2, 1.0),
        )

    def scale(self) -> Scale:
        zero = self.one(None, Zero(idle_seconds=30.0))
        least = 0 if zero else self.count(3)
        measures = self._random.sample(list(Measure), self.count(2))
        depth = Query(query="depth", target=2.0, per_replica=self.coin())
        return Scale(
            min=least,
            max=max(least, 1) + self.count(10),
            work=self.one(None, self.work(), self.work()),
            signals={measure: Signal(target=0.5) for measure in measures},
            queries=self.one({}, {"depth": depth}),
            rules=tuple(self.rule() for _ in range(self.count(2))),
            behavior=Behavior(scale_up=self.direction(), scale_down=self.direction()),
            burst=self.one(None, Burst()),
            forecast=self.one(*Forecast),
            zero=zero,
        )

    def reading(self, now: float) -> Reading:
        return Reading(self.figure(), now - self.one(0.0, 5.0, 100.0))

    def view(self, now: float) -> View:
        traffic = Traffic(
            10.0, *(self.figure() for _ in range(6)), at=now - self.one(0.0, 0.0, 60.0)
        )
        names = self._random.sample([*Measure, "depth"], self.count(4))
        return View(
            now=now,
            wall=1_800_000_000.0 + now,
            ready=self.count(),
            starting=self.count(3),
            places=self.one(1, 64),
            start_seconds=self.one(2.0, 60.0, 600.0),
            traffic=self.one(None, traffic, traffic, traffic),
            waiting=self.one(None, 0.0, self.figure()),
            running=self.one(None, 0.0, self.figure()),
            readings={name: self.reading(now) for name in names},
            fits=self.one(None, self.count(12)),
            usd_per_hour=self.one(0.0, 2.5),
            woken=self.coin(),
            idle_seconds=self.one(None, self._random.uniform(0, 100)),
        )

    def history(self, policy: Scale) -> tuple[SizeMemory, float]:
        memory, now = SizeMemory(self.count(policy.max)), 1000.0
        for _ in range(self.count(12)):
            now += self.one(5.0, 10.0, 15.0)
            _, memory = decide(policy, memory, self.view(now))
        return memory, now

    def override(self) -> Override | None:
        kind = self.one(*OverrideKind)
        return self.one(None, Override(kind, self.one(0.0, 4e9), self.count(15)))


seeds = st.integers(0, 2**32)
unhurried = settings(deadline=None)


@unhurried
@given(seeds)
def test_the_size_is_within_its_bounds_and_the_room_there_is(seed):
    drawn = Drawn(seed)
    policy = drawn.scale()
    memory, now = drawn.history(policy)
    seen = drawn.view(now + 10)
    override = drawn.override()
    decision, after = decide(policy, memory, seen, override)
    assert decision.size == after.size
    assert 0 <= decision.size <= policy.max
    assert seen.fits is None or decision.size <= seen.fits
    if override is None or override.until < seen.wall:
        least = policy.min if policy.zero else max(policy.min, 1)
        assert decision.size >= (least if seen.fits is None else min(least, seen.fits))


@unhurried
@given(seeds)
def test_every_decision_has_reasons_and_the_last_one_made_the_size(seed):
    drawn = Drawn(seed)
    policy = drawn.scale()
    memory, now = drawn.history(policy)
    decision, _ = decide(policy, memory, drawn.view(now + 10), drawn.override())
    assert decision.why.startswith(f"{decision.size} replica")
    assert decision.why_not_more.startswith(f"Not {decision.size + 1}: ")
    if decision.size:
        assert decision.why_not_fewer.startswith(f"Not {decision.size - 1}: ")
    else:
        assert decision.why_not_fewer == ""
    if decision.constraints:
        assert decision.constraints[-1].size == decision.size
    else:
        assert decision.size == 0


@unhurried
@given(seeds, st.floats(0, 500), st.floats(0, 500))
def test_more_demand_never_gives_fewer(seed, arrivals, waiting):
    drawn = Drawn(seed)
    policy = drawn.scale()
    memory, now = drawn.history(policy)
    less = drawn.view(now + 10)
    assume(less.traffic is not None and less.waiting is not None)
    assert less.traffic is not None
    assert less.waiting is not None
    # Of less than one request nothing is known but the usual length, which may be more.
    assume(less.traffic.arrivals >= 1)
    more = replace(
        less,
        traffic=replace(
            less.traffic,
            arrivals=less.traffic.arrivals + arrivals,
            prompt_tokens=less.traffic.prompt_tokens
            + arrivals * less.traffic.prompt_tokens / max(less.traffic.arrivals, 1.0),
        ),
        waiting=less.waiting + waiting,
    )
    assert decide(policy, memory, more)[0].size >= decide(policy, memory, less)[0].size


@unhurried
@given(seeds, st.floats(0, 500))
def test_a_higher_reading_never_gives_fewer(seed, more):
    drawn = Drawn(seed)
    policy = drawn.scale()
    assume(not any(rule.below is not None for rule in policy.rules))
    memory, now = drawn.history(policy)
    low = drawn.view(now + 10)
    high = replace(
        low,
        readings={
            name: replace(reading, value=reading.value + more)
            for name, reading in low.readings.items()
        },
    )
    assert decide(policy, memory, high)[0].size >= decide(policy, memory, low)[0].size


@unhurried
@given(seeds, st.sampled_from(("traffic", "waiting", "running", "stale", "signal")))
def test_never_down_where_something_is_not_known(seed, missing):
    drawn = Drawn(seed)
    policy = replace(
        drawn.scale(), work=Work(capacity=H100), signals={Measure.KV: Signal(target=0.5)}
    )
    memory, now = drawn.history(policy)
    seen = drawn.view(now + 10)
    changed: dict = {
        "traffic": {"traffic": None},
        "waiting": {"waiting": None},
        "running": {"running": None},
        "stale": {"traffic": replace(view(now, 1.0).traffic, at=now - 100)},
        "signal": {"readings": {}, "running": 1.0},
    }[missing]
    decision, _ = decide(policy, memory, replace(seen, **changed))
    floor = min(memory.size, policy.max)
    assert decision.size >= (floor if seen.fits is None else min(floor, seen.fits))


@unhurried
@given(seeds)
def test_figures_that_are_no_numbers_never_raise_and_never_shrink(seed):
    drawn = Drawn(seed, broken=True)
    policy = replace(drawn.scale(), work=Work(capacity=drawn.one(None, H100)))
    memory, now = drawn.history(policy)
    seen = drawn.view(now + 10)
    figure = drawn.one(*BROKEN)
    field = drawn.one("arrivals", "late", "output_tokens", "seconds")
    traffic = replace(view(now + 10, 1.0).traffic, **{field: figure})
    seen = replace(seen, traffic=traffic, waiting=figure, fits=None)
    for ruined in (seen, replace(seen, start_seconds=figure, idle_seconds=figure)):
        decision, after = decide(policy, memory, ruined)
        assert decision.size >= min(memory.size, policy.max)
        assert finite(decision)
        assert decide(policy, after, view(now + 20, 1.0))[0].size <= policy.max


@unhurried
@given(seeds)
def test_the_same_again_at_the_same_time_changes_nothing(seed):
    drawn = Drawn(seed)
    policy = drawn.scale()
    memory, now = drawn.history(policy)
    seen = drawn.view(now + 10)
    decision, after = decide(policy, memory, replace(seen, fits=None))
    again, same = decide(policy, after, replace(seen, fits=None))
    assert again.size == decision.size
    assert same == after


@pytest.mark.parametrize("jump", [-5000.0, -5.0, 3600.0, 1e7])
def test_after_a_jump_of_the_clock_it_holds_until_demand_is_known_anew(jump):
    policy = scale(
        work=Work(capacity=H100, window_seconds=70.0),
        behavior=Behavior(scale_down=Direction(stabilization_window_seconds=300.0)),
    )
    memory, now, _ = settled(policy, 100.0, size=6)
    size = memory.size
    assert size >= 5
    now += jump
    for _ in range(6):
        decision, memory = decide(policy, memory, view(now, 1.0, size))
        assert decision.size == size
        assert [one.bound for one in decision.constraints if one.bound is Bound.STALE]
        now += 10
    for _ in range(40):
        now += 10
        decision, memory = decide(policy, memory, view(now, 1.0, memory.size))
    assert decision.size == 1


def test_the_size_follows_demand_up_and_down():
    policy = scale()
    memory, now, decision = settled(policy, 15.0)
    assert decision.size == 1
    for rate, sizes in ((100.0, (5, 8)), (20.0, (1, 3)), (200.0, (9, 19))):
        for _ in range(30):
            now += 10
            decision, memory = decide(policy, memory, view(now, rate, memory.size))
        assert sizes[0] <= decision.size <= sizes[1], (rate, decision)


def test_what_a_decision_costs_an_hour():
    memory, now, _ = settled(scale(), 100.0, size=2, usd_per_hour=3.0)
    decision, _ = decide(scale(), memory, view(now + 10, 300.0, usd_per_hour=3.0))
    assert decision.usd_per_hour == 3.0 * decision.size
    assert decision.usd_per_hour_before == 3.0 * decision.before < decision.usd_per_hour


def test_without_a_wish_from_anywhere_the_size_stays():
    policy = Scale(max=5, work=None)
    for size in (1, 3, 5):
        assert decide(policy, SizeMemory(size), view(10.0))[0].size == size


def test_a_trial_does_without_the_words_and_decides_the_same():
    memory, now, _ = settled(scale(), 100.0, size=2)
    seen = view(now + 10.0, 150.0, 2)
    told, after = decide(scale(), memory, seen)
    brief, same = decide(scale(), memory, seen, worded=False)
    assert told.why
    assert (brief.why, brief.why_not_fewer, brief.why_not_more) == ("", "", "")
    assert (brief.size, brief.constraints, same) == (told.size, told.constraints, after)
