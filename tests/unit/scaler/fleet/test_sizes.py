"""Sizes that follow what is asked of pools, over the whole fleet, and what is told of them."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.common.durations import bounded
from services.common.load_totals import LoadTotals
from services.scaler.config import Scaling
from services.scaler.fleet import sizes as sizes_room
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.wishes import WishBoard
from services.scaler.load.loads import Loads, Report, Run, TierLoad
from services.scaler.metrics import Metrics
from services.scaler.policy.sizing.capacity import Fit, Learned
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.sizing.money import Day, Spent
from services.scaler.policy.sizing.override import Override, OverrideKind
from services.scaler.policy.sizing.settings import (
    Behavior,
    Budget,
    BudgetShare,
    Capacity,
    Direction,
    Measure,
    Money,
    Resource,
    Rule,
    Scale,
    Schedule,
    Signal,
    Spot,
    Zero,
)
from services.scaler.policy.sizing.views import Bound, Decision
from services.scaler.pools.pool import Pool, Slot
from services.scaler.ports import Wish
from services.scaler.try_out.pools import Measured, replica_of
from tests.making.replicas import Clock, Cluster, pool, sizes

TICK = 10.0
BUSY = Scale(max=4, work=None, signals={Measure.RUNNING: Signal(target=0.5)})
SLEEPY = replace(BUSY, min=0, zero=Zero(idle_seconds=60))


class Kept:
    """A sink of decisions."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, Decision]] = []

    def take(self, pool: str, decision: Decision, wall: float) -> None:
        self.decisions.append((pool, decision))


class Set:
    """Overrides as a test sets them."""

    def __init__(self) -> None:
        self.overrides: dict[str, Override] = {}

    def of(self, pool: str, wall: float) -> Override | None:
        return self.overrides.get(pool)


class Scene:
    """A fleet on a cluster that does as it is told at once, deciding when a test says so."""

    def __init__(self, **pools: Pool) -> None:
        self.clock = Clock()
        self.loads, self.kept, self.overrides = Loads(), Kept(), Set()
        self.registry = CollectorRegistry()
        self.scaling = Scaling(pools=pools, tick_seconds=TICK)
        self.cluster = Cluster(*pools)
        self.wishes = WishBoard()
        self.sizes = sizes(self.scaling, self.loads, decisions=self.kept, overrides=self.overrides)
        self.fleet = Fleet(
            self.scaling,
            self.cluster,
            self.loads,
            Metrics(self.registry),
            self.sizes,
            wishes=self.wishes,
            clock=self.clock,
            wall=lambda: 1000.0 + self.clock.now,
        )
        self.arrivals = 0

    async def begin(self) -> None:
        await self.fleet.adopt()
        self.settle()

    def settle(self) -> None:
        """Lets everything come that is wanted."""
        for _ in range(4):
            self.fleet._reconcile()
            self.cluster.settle()
            for deployment in self.cluster.deployments.values():
                for name in list(deployment.pods):
                    self.cluster.change(name, ready=True)
        self.fleet._reconcile()

    def pass_tick(self, *, running: int = 0, waiting: int = 0, router: str = "r") -> None:
        """A tick in which so much ran, on replicas of the first pool by turns."""
        ids = [name for name, pod in self.cluster.deployments["a"].pods.items() if pod.ready]
        for _ in range(int(TICK)):
            self.clock.now += 1.0
            self.arrivals += running
            load = {"small": TierLoad(waiting, running)}
            counted = Run(1, {"small": LoadTotals(arrivals=self.arrivals)})
            placed = {name: running // len(ids) for name in ids}
            self.loads.take(router, Report(load, placed, counted), self.clock())
        self.settle()

    def size(self, name: str = "a") -> int:
        return next(view.desired for view in self.fleet.pools() if view.name == name)

    def trouble(self) -> str:
        return self.fleet.pools()[0].trouble

    def value(self, name: str, **labels: str) -> float | None:
        labels = {"pool": "a", "tier": "small"} | labels
        return self.registry.get_sample_value(f"pennyweight_scaler_{name}", labels)


@pytest.fixture
async def scene():
    async def make(**pools: Pool) -> Scene:
        scene = Scene(**pools)
        await scene.begin()
        return scene

    return make


def scaled(scale: Scale = BUSY, **changes) -> Pool:
    return pool(slots=(Slot(),) * 4, size=None, scale=scale, max_in_flight=10, **changes)


async def test_a_pool_grows_with_what_runs_and_shrinks_again(scene):
    scene = await scene(a=scaled(usd_per_hour=2.0))
    assert scene.size() == 1
    scene.pass_tick(running=10)
    assert scene.size() == 2
    scene.pass_tick(running=10)
    assert scene.size() == 2, "10 of 20 places are what is wanted"
    scene.pass_tick(running=20)
    assert scene.size() == 4
    scene.pass_tick(running=2)
    assert scene.size() == 1
    changes = [(one.before, one.size) for _, one in scene.kept.decisions if one.before != one.size]
    assert changes == [(1, 2), (2, 4), (4, 1)]
    assert all(one.why for _, one in scene.kept.decisions)
    assert scene.value("size_changes_total", direction="up") == 2
    assert scene.value("size_changes_total", direction="down") == 1
    assert scene.value("reversals_total") == 1
    assert scene.value("usd_per_hour") == 8.0, "three drain, and cost until they are gone"
    assert scene.value("desired_replicas") == 1
    view = scene.fleet.pools()[0]
    assert view.decision is not None
    assert view.decision.size == 1


async def test_a_pool_without_scale_keeps_its_size(scene):
    scene = await scene(a=pool(size=2, slots=(Slot(),) * 4, max_in_flight=10))
    scene.pass_tick(running=20)
    assert scene.size() == 2
    (bound,) = {one.constraints[-1].bound for _, one in scene.kept.decisions}
    assert bound is Bound.FIXED
    assert {one.size for _, one in scene.kept.decisions} == {2}


async def test_a_router_that_falls_silent_keeps_what_there_is(scene):
    scene = await scene(a=scaled())
    scene.pass_tick(running=20, router="other")
    scene.pass_tick(running=20, router="other")
    before = scene.size()
    assert before > 1
    for _ in range(5):
        scene.pass_tick(running=0)
        assert scene.size() == before
    assert scene.trouble().startswith("router other fell silent: the pool does not shrink")
    assert scene.value("stale_signals") == 1
    assert scene.registry.get_sample_value("pennyweight_scaler_silent_routers") == 1
    for _ in range(30):  # then it is taken to be gone
        scene.pass_tick(running=0)
    assert (scene.size(), scene.trouble()) == (1, "")


async def test_without_any_router_nothing_changes(scene):
    scene = await scene(a=scaled())
    scene.pass_tick(running=20)
    before = scene.size()
    for _ in range(20):
        scene.clock.now += TICK
        scene.settle()
    assert scene.size() == before > 1


async def test_an_idle_pool_goes_to_zero_and_is_woken(scene):
    scene = await scene(a=scaled(SLEEPY), b=pool(tier="large"))
    assert scene.size() == 0
    scene.clock.now += 1.0
    assert scene.fleet.wake("small") == 60.0
    assert scene.size() == 1, "without waiting for the next tick"
    scene.settle()
    assert scene.fleet.wake("small") == 0.0
    for _ in range(5):
        scene.pass_tick()
        assert scene.size() == 1
    for _ in range(3):
        scene.pass_tick()
    assert scene.size() == 0
    assert scene.fleet.wake("none") is None


async def test_a_tier_that_may_have_no_replica_is_not_woken(scene):
    scene = await scene(a=pool(size=0))
    assert scene.fleet.wake("small") is None


async def test_a_pool_that_is_pinned_at_none_stays_asleep(scene):
    scene = await scene(a=scaled(SLEEPY))
    scene.overrides.overrides["a"] = Override(OverrideKind.PIN, until=1e9, size=0)
    scene.clock.now += 1
    assert scene.fleet.wake("small") is None
    assert scene.size() == 0


async def test_overrides_hold(scene):
    scene = await scene(a=scaled())
    scene.overrides.overrides["a"] = Override(OverrideKind.PIN, until=1e9, size=3)
    scene.pass_tick()
    assert scene.size() == 3


async def test_an_earlier_scalers_replicas_stay_until_it_is_known_what_is_asked(scene):
    first = await scene(a=scaled())
    first.pass_tick(running=20)
    second = Scene(a=scaled())
    second.cluster = first.cluster
    second.fleet._target = first.cluster
    await second.begin()
    assert second.size() == first.size() > 1
    second.clock.now += TICK
    second.settle()
    assert second.size() == first.size()


async def test_what_was_spent_and_learned_holds_for_the_next_scaler(scene):
    follows = scaled(Scale(max=4), usd_per_hour=3600.0)
    first = await scene(a=follows)
    first.pass_tick(running=10)
    first.pass_tick(running=10)
    memory = first.sizes._memory
    spent = memory.spent
    assert spent.usd > 0
    learned = Learned(0.9, Fit(weight=1.0, constants=(0.02, 0.0, 0.0, 0.0)), Capacity(a=0.02))
    work = replace(memory.pools["a"].work, learned=learned)
    first.sizes._memory = replace(memory, pools={"a": replace(memory.pools["a"], work=work)})
    second = Scene(a=follows)
    second.sizes.recall(first.sizes.lasting())
    second.cluster = second.fleet._target = first.cluster
    await second.begin()
    assert second.sizes.learned("a") == learned
    assert second.sizes.lasting().spent.usd >= spent.usd
    measured = Measured.of({"capacity": {"a": 0.02}, "correction": 0.9})
    assert replica_of(follows, measured) is not None
    second.sizes.adopt("a", 2)
    second.fleet.configure(second.scaling)
    assert second.sizes.learned("a") == learned
    assert second.sizes.lasting().spent.usd >= spent.usd
    third = Scene(a=replace(follows, precision="int4"))
    third.sizes.recall(first.sizes.lasting())
    assert third.sizes.learned("a") == Learned(), "other replicas do other things"
    assert third.sizes.lasting().spent == spent


async def test_the_days_money_is_gone_for_the_next_scaler_too(scene):
    money = Money(usd_per_day=4 * 24.0)
    scaling = Scaling(pools={"a": scaled(usd_per_hour=1.0)}, money=money, tick_seconds=TICK)
    second = await scene(**scaling.pools)
    second.fleet.configure(scaling)
    gone = Spent((Day(0, money.usd_per_day or 0.0),), 1000.0)
    second.sizes.recall(Lasting(gone))
    second.pass_tick(running=20)
    assert second.size() == 1
    assert second.value("bound", bound="money") == 1


async def test_what_drains_is_spent_until_it_is_gone(scene):
    scene = await scene(a=scaled(usd_per_hour=2.0))
    for _ in range(3):
        scene.pass_tick(running=40)
    assert scene.size() == 4
    scene.pass_tick(running=8)
    assert scene.size() == 2
    before = scene.sizes.lasting().spent.usd
    scene.pass_tick(running=8)  # those that drain have requests of these
    assert scene.sizes.lasting().spent.usd - before == pytest.approx(4 * 2.0 * TICK / 3600)
    assert scene.value("usd_per_hour") == 8.0
    scene.pass_tick(running=0)
    before = scene.sizes.lasting().spent.usd
    scene.pass_tick(running=0)
    assert scene.sizes.lasting().spent.usd - before < 2 * 2.0 * TICK / 3600 + 1e-9


async def test_money_is_not_given_back_where_nothing_can_be_decided(scene, monkeypatch):
    scene = await scene(a=scaled(usd_per_hour=1.0))
    scene.sizes.recall(Lasting(Spent((Day(0, 7.0),), 1000.0)))

    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sizes_room, "decide_all", failing)
    scene.pass_tick(running=10)
    assert scene.sizes.lasting().spent.usd == 7.0


async def test_a_changed_policy_holds_at_once_and_what_is_wanted_stays(scene):
    scene = await scene(a=scaled())
    scene.pass_tick(running=10)
    assert scene.size() == 2
    least = replace(BUSY, min=3)
    scene.fleet.configure(replace(scene.scaling, pools={"a": scaled(least)}))
    scene.clock.now += 0.1
    scene.settle()
    assert scene.size() == 3
    fixed = pool(slots=(Slot(),) * 4, size=2)
    scene.fleet.configure(replace(scene.scaling, pools={"a": fixed}))
    assert scene.size() == 2
    scene.fleet.configure(replace(scene.scaling, pools={"a": scaled()}))
    assert scene.size() == 2, "it goes on from there"


async def test_one_pool_that_cannot_be_decided_holds_up_no_other(scene, monkeypatch):
    scene = await scene(a=scaled(), b=scaled(tier="large"))
    decide_all = sizes_room.decide_all

    def failing(policies, budgets, money, memory, views):
        if "b" in views:
            raise ZeroDivisionError
        return decide_all(policies, budgets, money, memory, views)

    monkeypatch.setattr(sizes_room, "decide_all", failing)
    scene.pass_tick(running=10)
    assert (scene.size("a"), scene.size("b")) == (2, 1)
    assert "its size cannot be decided" in scene.fleet.pools()[1].trouble
    monkeypatch.undo()
    scene.pass_tick(running=10)
    assert scene.fleet.pools()[1].trouble == ""


async def test_an_override_that_cannot_be_read_holds_up_no_other_pool(scene, monkeypatch):
    scene = await scene(a=scaled(), b=scaled(tier="large"))

    def failing(pool, wall):
        if pool == "b":
            raise TypeError

    monkeypatch.setattr(scene.overrides, "of", failing)
    scene.pass_tick(running=10)
    assert (scene.size("a"), scene.size("b")) == (2, 1)
    assert [bool(one.trouble) for one in scene.fleet.pools()] == [False, True]
    monkeypatch.undo()
    scene.pass_tick(running=10)
    assert scene.fleet.pools()[1].trouble == ""


async def test_where_no_size_can_be_decided_all_stay(scene, monkeypatch):
    scene = await scene(a=scaled(), b=scaled(tier="large"))
    scene.pass_tick(running=10)

    def failing(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(sizes_room, "decide_all", failing)
    scene.pass_tick(running=20)
    assert (scene.size("a"), scene.size("b")) == (2, 1)
    assert all("its size cannot be decided" in one.trouble for one in scene.fleet.pools())
    monkeypatch.undo()
    scene.pass_tick(running=20)
    assert scene.size("a") == 4


async def test_a_pool_that_cannot_be_decided_forgets_what_it_remembered(scene, monkeypatch):
    scene = await scene(a=scaled())
    scene.pass_tick(running=10)
    decide_all = sizes_room.decide_all

    def failing(policies, budgets, money, memory, views):
        if memory.pools["a"].now is not None:
            raise ZeroDivisionError
        return decide_all(policies, budgets, money, memory, views)

    monkeypatch.setattr(sizes_room, "decide_all", failing)
    troubles = []
    for _ in range(2):
        scene.pass_tick(running=10)
        troubles.append(scene.fleet.pools()[0].trouble)
    assert "its size cannot be decided" in troubles[0]
    assert troubles[1] == ""
    assert scene.size() == 2


async def test_a_scaler_that_ends_wakes_no_pool(scene):
    scene = await scene(a=scaled(SLEEPY))
    scene.fleet._pools.exit_drain_seconds = 1.0
    assert scene.fleet.wake("small") is None
    assert not scene.sizes.woken("a")


async def test_budgets_are_shared(scene):
    scene = await scene(a=scaled(), b=pool(tier="large", size=2))
    shares = {"a": BudgetShare(priority=1), "b": BudgetShare()}
    budget = Budget(of=Resource.SLOTS, limit=4, pools=shares)
    scene.fleet.configure(replace(scene.scaling, budgets={"host": budget}))
    scene.pass_tick(running=20)
    assert scene.size("a") + scene.size("b") == 4
    assert scene.size("b") == 2
    assert scene.value("bound", bound="budget") == 1


async def test_a_pool_on_spot_takes_its_share_and_both_stay_over_a_restart(scene):
    mixed = replace(BUSY, spot=Spot(pool="b", over_provision=0))
    scene = await scene(a=scaled(mixed), b=pool(slots=(Slot(),) * 4, size=None))
    for _ in range(10):
        scene.pass_tick(running=10)
    sizes = scene.size("a"), scene.size("b")
    assert sum(sizes) >= 2
    assert sizes[1] >= 1
    second = Scene(**scene.scaling.pools)
    second.cluster = second.fleet._target = scene.cluster
    await second.begin()
    assert second.size("a") >= sizes[0]
    assert second.size("b") >= sizes[1]


async def test_wishes_are_told_with_those_that_still_drain(scene):
    scene = await scene(a=scaled())
    assert scene.wishes.wish("a") == Wish(1, active=True, since=1000.0)
    scene.pass_tick(running=20)
    wish = scene.wishes.wish("a")
    assert wish is not None
    assert wish.size == 4
    assert wish.since > 1000.0
    with pytest.raises(KeyError):
        scene.wishes.wish("none")
    changed = asyncio.create_task(scene.wishes.changed())
    await asyncio.sleep(0)
    scene.fleet._reconcile()
    await asyncio.sleep(0)
    assert not changed.done(), "nothing is another"
    scene.fleet.configure(replace(scene.scaling, pools={"b": scaled()}))
    await asyncio.wait_for(changed, 1)
    with pytest.raises(KeyError):
        scene.wishes.wish("a")


async def test_bounds_are_shown_and_forgotten_with_their_pool(scene):
    rule = Rule(signal="running", above=0.9, for_seconds=0, change=1)
    scale = Scale(max=2, work=None, rules=(rule,), behavior=Behavior(scale_up=Direction()))
    scene = await scene(a=scaled(scale))
    scene.pass_tick(running=10)
    assert scene.value("bound", bound="rule") == 1
    assert scene.value("bound", bound="money") == 0
    scene.fleet.configure(replace(scene.scaling, pools={"b": scaled()}))
    for name, labels in (("bound", {"bound": "rule"}), ("usd_per_hour", {}), ("stale_signals", {})):
        assert scene.value(name, **labels) is None


@pytest.mark.parametrize("wall", [253_402_300_799.0, 253_402_300_800.0, 1e17, -1e12])
async def test_a_clock_that_is_wrong_by_thousands_of_years_keeps_no_size_from_being_decided(
    scene, wall: float
):
    scale = replace(BUSY, schedule=(Schedule(cron="0 8 * * *", duration_seconds=60, min=1),))
    scene = await scene(a=scaled(scale, usd_per_hour=1.0))
    scene.fleet.configure(replace(scene.scaling, money=Money(usd_per_day=100.0)))
    scene.fleet._wall = lambda: wall
    until = bounded(wall) + 30 * 86_400.0
    scene.overrides.overrides["a"] = Override(OverrideKind.PIN, until, size=2, author="ada")
    scene.pass_tick()
    assert (scene.size(), scene.trouble()) == (2, "")
    scene.overrides.overrides.clear()
    scene.pass_tick(running=8)
    assert (scene.size(), scene.trouble()) == (2, "")
