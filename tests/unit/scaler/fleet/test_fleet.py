"""The fleet over two kinds of target: numbered slots here, a cluster that numbers nothing."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.scaler.config import Scaling
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.gauges import Counted, Gauges
from services.scaler.fleet.members import Member
from services.scaler.fleet.watchers import Watcher
from services.scaler.load.loads import LIVE_SECONDS, Loads, Report
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.sizing.memory import Lasting
from services.scaler.policy.start_times import StartTimes
from services.scaler.pools.pool import Capacity, Pool, Restart, Slot
from services.scaler.ports import OnChange, PoolStatus, Replica, ReplicaStatus, Target
from services.scaler.targets.care import Rhythm
from services.scaler.targets.local import LocalTarget
from services.scaler.targets.slots import Adopted
from tests.making.beside import beside
from tests.making.replicas import Clock, Cluster, Host, again, pool, sizes

STARTING, READY = ReplicaState.STARTING, ReplicaState.READY
DRAINING, GONE = ReplicaState.DRAINING, ReplicaState.GONE


QUICK = Rhythm(decide=0.001, ready_probe=0.001, other_probe=0.001)


class Scene:
    """A fleet at work, one watcher, and what it saw."""

    def __init__(self, pools: dict[str, Pool], target: Target | Host) -> None:
        self.clock = Clock()
        self.loads = Loads()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        scaling = Scaling(pools=pools, restart=Restart(first_seconds=10))
        self.pools = scaling.pools
        if isinstance(target, Host):
            target = LocalTarget(scaling, target, metrics, clock=self.clock, rhythm=QUICK)
        self.fleet = Fleet(
            scaling,
            target,
            self.loads,
            metrics,
            sizes(scaling, self.loads),
            file="scaling.yaml",
            clock=self.clock,
            wall=lambda: 1.0,
            decide_seconds=QUICK.decide,
        )
        self.observed, observe = asyncio.Event(), target.observe

        def observing() -> Mapping[str, PoolStatus] | None:
            self.observed.set()
            return observe()

        target.observe = observing
        self.watcher: Watcher

    async def next(self) -> tuple[str, ReplicaState, int]:
        """The next replica the watcher hears of, its state and the revision."""
        while True:
            update = await self.watcher.next(5.0)
            assert update is not None
            if update.replicas:
                (seen,) = update.replicas
                return seen.replica.id, seen.state, update.revision

    async def decided(self) -> None:
        """Waits until the fleet has decided several times, as often as it looks at its target."""
        await again(self.observed, times=10)

    async def states(self, count: int) -> list[ReplicaState]:
        return [(await self.next())[1] for _ in range(count)]

    def report(self, router: str, **in_flight: int) -> None:
        self.loads.take(router, Report({}, in_flight), self.clock())

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self.fleet.watch() as self.watcher:
            yield


@asynccontextmanager
async def keeping(target: Target | Host, **pools: Pool):
    scene = Scene(pools or {"a": pool()}, target)
    await scene.fleet.adopt()
    with scene.watching():
        async with beside(scene.fleet.run()):
            yield scene


async def test_a_death_is_published_before_anything_else_runs():
    host = Host()
    async with keeping(host, a=pool(slots=(Slot(),))) as scene:
        _, _, first = await scene.next()
        name, state, second = await scene.next()
        assert (state, second) == (READY, first + 1)
        host.kill(name, "its server process died")
        assert scene.fleet.pools()[0].replicas == ()
        assert await scene.next() == (name, GONE, second + 1)
        await scene.decided()
        assert host.ended == [(name, False)]
        assert "next try in 10 s" in scene.fleet.pools()[0].trouble


async def test_a_pool_shows_how_many_fit_and_how_long_starts_take():
    async with keeping(Host()) as scene:
        assert await scene.states(2) == [STARTING, READY]
        (view,) = scene.fleet.pools()
        assert (view.name, view.desired, view.capacity) == ("a", 1, 2)
        assert view.typical_start_seconds == 0.0


async def test_the_next_scaler_knows_how_long_starts_took():
    async with keeping(Host()) as scene:
        assert await scene.states(2) == [STARTING, READY]
        left = scene.fleet.lasting()
        assert left.starts == {("a", "m", "int8"): StartTimes((0.0,))}
    earlier = replace(left, starts={("a", "m", "int8"): StartTimes((7.0, 8.0, 9.0))})
    host = Host()
    host.left = [Adopted(host.replica("a-0-old", "a", pool(), 0), ready=True)]
    async with keeping(host) as scene:
        assert scene.fleet.pools()[0].typical_start_seconds is None
        scene.fleet.recall(earlier)
        (view,) = scene.fleet.pools()
        assert view.typical_start_seconds == 8.0
        assert view.start_spread > 0.0
        assert scene.fleet.lasting().starts == earlier.starts
        scene.fleet.recall(replace(left, starts={("a", "other", "int8"): StartTimes((7.0,))}))
        assert scene.fleet.pools()[0].typical_start_seconds is None


async def test_starts_that_this_scaler_sees_come_after_those_of_before():
    async with keeping(Host()) as scene:
        scene.fleet.recall(Lasting(starts={("a", "m", "int8"): StartTimes((7.0, 8.0))}))
        assert await scene.states(2) == [STARTING, READY]
        (starts,) = scene.fleet.lasting().starts.values()
        assert starts.seconds == (7.0, 8.0, 0.0)
        assert scene.fleet.pools()[0].typical_start_seconds == 7.0


async def test_adopted_replicas_are_in_the_first_message_and_stay():
    host = Host()
    host.left = [Adopted(host.replica("a-0-old", "a", pool(), 0), ready=True)]
    async with keeping(host) as scene:
        update = await scene.watcher.next(1.0)
        assert update is not None
        assert update.full
        assert [(one.replica.id, one.state) for one in update.replicas] == [("a-0-old", READY)]
        await scene.decided()
        assert host.ended == []


async def test_replicas_of_a_forgotten_pool_are_drained_and_ended():
    host = Host()
    host.left = [Adopted(host.replica("b-0-old", "b", pool(), 0), ready=True)]
    async with keeping(host, a=pool(size=0)) as scene:
        assert await scene.states(2) == [READY, DRAINING]
        scene.clock.now = 1.0
        assert await scene.states(1) == [GONE]
        await scene.decided()
    assert host.ended == [("b-0-old", True)]


async def test_the_end_waits_for_running_requests_but_not_for_ever():
    host = Host()
    host.running = 2
    async with keeping(host) as scene:
        assert await scene.states(2) == [STARTING, READY]
        ending = asyncio.create_task(scene.fleet.end_all(5.0))
        assert await scene.states(1) == [DRAINING]
        scene.clock.now = 4.9
        await scene.decided()
        assert not ending.done()
        scene.clock.now = 5.0
        await ending
        assert await scene.states(1) == [GONE]
    assert [gently for _, gently in host.ended] == [True]


async def test_the_end_waits_until_all_is_cleared_away():
    cleared = asyncio.Event()

    class Slow(Host):
        async def end(self, replica_id: str, *, gently: bool) -> None:
            await cleared.wait()

    async with keeping(Slow()) as scene:
        assert await scene.states(2) == [STARTING, READY]
        ending = asyncio.create_task(scene.fleet.end_all(0.0))
        assert await scene.states(2) == [DRAINING, GONE]
        await scene.decided()
        assert not ending.done()
        cleared.set()
        await ending


async def test_old_settings_serve_until_new_ones_do():
    host = Host()
    old = host.replica("a-0-old", "a", pool(parameters={"x": "1"}), 0)
    host.left = [Adopted(old, ready=True)]
    async with keeping(host) as scene:
        seen = [await scene.next() for _ in range(4)]
        assert [state for _, state, _ in seen] == [READY, STARTING, READY, DRAINING]
        assert [name == "a-0-old" for name, _, _ in seen] == [True, False, False, True]
        scene.clock.now = 1.0
        assert (await scene.next())[:2] == ("a-0-old", GONE)
        await scene.decided()
        assert [one.state for one in scene.fleet.pools()[0].replicas] == [READY]


# A target without slots.


async def test_a_cluster_is_asked_for_a_number_and_shows_what_it_made():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=2)) as scene:
        await scene.decided()
        assert cluster.deployments["a"].replicas == 2
        cluster.settle()
        assert [(await scene.next())[:2] for _ in range(2)] == [
            ("a-1", STARTING),
            ("a-2", STARTING),
        ]
        cluster.change("a-2", ready=True)
        assert (await scene.next())[:2] == ("a-2", READY)
        (view,) = scene.fleet.pools()
        assert (view.desired, view.capacity, view.trouble) == (2, None, "")


async def test_a_cluster_takes_the_replica_that_was_drained():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=3, slots=(Slot(),) * 3)) as scene:
        await scene.decided()
        cluster.settle()
        for name in ("a-1", "a-2", "a-3"):
            cluster.change(name, ready=True)
        assert await scene.states(6) == [STARTING] * 3 + [READY] * 3
        scene.report("router", **{"a-1": 2, "a-2": 1, "a-3": 2})
        scene.pools["a"] = pool(size=2)
        assert (await scene.next())[:2] == ("a-2", DRAINING)
        scene.clock.now = 1.0
        scene.report("router", **{"a-1": 2, "a-2": 1, "a-3": 2})
        await scene.decided()
        cluster.settle()
        assert sorted(cluster.deployments["a"].pods) == ["a-1", "a-2", "a-3"]
        scene.report("router", **{"a-1": 2, "a-3": 2})
        assert (await scene.next())[:2] == ("a-2", GONE)
        await scene.decided()
        cluster.settle()
        assert sorted(cluster.deployments["a"].pods) == ["a-1", "a-3"]
        await scene.decided()
        assert cluster.deployments["a"].replicas == 2


async def test_a_router_that_is_frozen_holds_a_drain_until_it_counts_no_more():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=2, slots=(Slot(),) * 2, drain_seconds=30)) as scene:
        await scene.decided()
        cluster.settle()
        for name in ("a-1", "a-2"):
            cluster.change(name, ready=True)
        assert await scene.states(4) == [STARTING] * 2 + [READY] * 2
        scene.report("frozen", **{"a-1": 1, "a-2": 2})  # its last word
        scene.pools["a"] = pool(size=1, drain_seconds=30)
        assert (await scene.next())[:2] == ("a-1", DRAINING)
        for scene.clock.now in (1.0, LIVE_SECONDS):
            scene.report("well", **{"a-2": 2})
            await scene.decided()
        assert [one.state for one in scene.fleet.pools()[0].replicas] == [DRAINING, READY]
        scene.clock.now = LIVE_SECONDS + 0.1
        assert (await scene.next())[:2] == ("a-1", GONE)


async def test_what_a_cluster_takes_away_is_drained_and_replaced():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=1)) as scene:
        await scene.decided()
        cluster.settle()
        cluster.change("a-1", ready=True)
        assert await scene.states(2) == [STARTING, READY]
        cluster.change("a-1", leaving="its node is taken away")
        assert (await scene.next())[:2] == ("a-1", DRAINING)
        await scene.decided()
        cluster.settle()
        assert (await scene.next())[:2] == ("a-2", STARTING)
        scene.report("router")
        scene.clock.now = 1.0
        scene.report("router")
        assert (await scene.next())[:2] == ("a-1", GONE)


async def test_a_cluster_that_cannot_be_seen_is_left_alone_and_its_fleet_stays():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=2)) as scene:
        await scene.decided()
        cluster.settle()
        assert await scene.states(2) == [STARTING] * 2
        cluster.reachable = False
        scene.pools["a"] = pool(size=0)
        await scene.decided()
        (view,) = scene.fleet.pools()
        assert [one.state for one in view.replicas] == [STARTING] * 2
        assert view.trouble == "the replicas cannot be observed"
        assert cluster.deployments["a"].replicas == 2
        cluster.reachable = True
        assert await scene.states(2) == [GONE] * 2
        assert scene.fleet.pools()[0].trouble == ""


async def test_a_replica_that_is_not_ready_any_more_gets_nothing_new():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=1)) as scene:
        await scene.decided()
        cluster.settle()
        cluster.change("a-1", ready=True)
        cluster.change("a-1", ready=False)
        assert await scene.states(3) == [STARTING, READY, STARTING]


async def test_replicas_are_counted_by_state():
    cluster = Cluster("a")
    async with keeping(cluster, a=pool(size=3, slots=(Slot(),) * 3)) as scene:
        await scene.decided()
        cluster.settle()
        cluster.change("a-1", ready=True)
        del cluster.deployments["a"].pods["a-3"]
        await scene.decided()

        def count(state: str) -> float | None:
            labels = {"pool": "a", "tier": "small", "state": state}
            return scene.registry.get_sample_value("pennyweight_scaler_replicas", labels)

        states = ("starting", "ready", "draining", "gone")
        assert [count(state) for state in states] == [2, 1, 0, 0]


async def test_changed_pools_are_taken_and_those_that_are_gone_are_no_longer_counted():
    async with keeping(Host(), a=pool(size=1), b=pool(size=0, tier="large")) as scene:
        assert await scene.states(2) == [STARTING, READY]
        labels = {"pool": "b", "tier": "large"}
        await scene.decided()
        assert scene.registry.get_sample_value("pennyweight_scaler_desired_replicas", labels) == 0
        scene.fleet.configure(Scaling(pools={"a": pool(size=2)}))
        assert await scene.states(2) == [STARTING, READY]
        (view,) = scene.fleet.pools()
        assert (view.name, view.desired) == ("a", 2)
        await scene.decided()
        for name in ("desired_replicas", "pool_trouble", "settings_refused"):
            found = scene.registry.get_sample_value(f"pennyweight_scaler_{name}", labels)
            assert found is None
        ready = labels | {"state": "ready"}
        assert scene.registry.get_sample_value("pennyweight_scaler_replicas", ready) is None


async def test_a_refused_change_of_tier_leaves_no_gauges_of_the_refused_tier():
    host = Host()
    async with keeping(host, a=pool(size=1)) as scene:
        assert await scene.states(2) == [STARTING, READY]
        await scene.decided()
        host.refusal = "no such model"
        scene.fleet.configure(Scaling(pools={"a": pool(size=1, tier="large", model="n")}))
        while scene.fleet.pools()[0].refused is None:
            await scene.decided()
        await scene.decided()
        tiers = {
            (metric.name, sample.labels["tier"])
            for metric in scene.registry.collect()
            if metric.type == "gauge"
            for sample in metric.samples
            if "tier" in sample.labels
        }
        assert len(tiers) >= 4
        assert {tier for _, tier in tiers} == {"small"}


async def test_settings_that_fail_are_told_once_with_file_key_and_value():
    host = Host()
    async with keeping(host, a=pool(size=1)) as scene:
        assert await scene.states(2) == [STARTING, READY]
        await scene.decided()
        host.refusal = "no such model"
        with capture_logs() as logs:
            scene.fleet.configure(Scaling(pools={"a": pool(size=2, model="n")}))
            while scene.fleet.pools()[0].refused is None:
                await scene.decided()
            await scene.decided()
        (line,) = [one for one in logs if one["log_level"] == "error"]
        assert line["file"] == "scaling.yaml"
        assert line["pool"] == "a"
        assert line["reason"].endswith("no such model")
        assert line["changed"] == {"pools.a.model": "n", "pools.a.size": 2}
        assert line["in_force"] == {"pools.a.model": "m", "pools.a.size": 1}
        (view,) = scene.fleet.pools()
        assert (view.pool.model, view.desired) == ("m", 1)  # the whole pool is as it was
        labels = {"pool": "a", "tier": "small"}
        metric = "pennyweight_scaler_settings_refused"
        assert scene.registry.get_sample_value(metric, labels) == 1
        host.refusal = ""
        scene.fleet.configure(Scaling(pools={"a": pool(size=2, model="n")}))  # written anew
        scene.clock.now = 100.0
        while [one.state for one in scene.fleet.pools()[0].replicas] != [READY] * 2:
            await scene.next()
            scene.clock.now += 1.0
        assert scene.fleet.pools()[0].refused is None


def served(name: str, index: int) -> Replica:
    return Replica(
        id=f"{name}-{index}",
        pool=name,
        tier="small",
        model="m",
        precision="int8",
        capacity=Capacity.ON_DEMAND,
        max_in_flight=8,
        address=f"{name}:{index}",
        started_at=1.0,
    )


class Many:
    """A target with many replicas, which counts how often it is looked at."""

    def __init__(self, pools: dict[str, Pool], each: int) -> None:
        self.looks = 0
        self._status = {
            name: PoolStatus(
                replicas=tuple(
                    ReplicaStatus(served(name, index), ready=True) for index in range(each)
                ),
                known=True,
            )
            for name in pools
        }

    async def open(self, on_change: OnChange) -> None:
        self.on_change = on_change

    async def run(self) -> None:
        await asyncio.Event().wait()

    def observe(self) -> Mapping[str, PoolStatus]:
        self.looks += 1
        return self._status

    def configure(self, scaling: Scaling, *, again: bool = False) -> None: ...

    def resize(self, pool: str, size: int, **_: object) -> None: ...


async def test_where_a_look_takes_long_many_changes_are_one():
    """One look for each would take minutes where all servers of many pools change at a time."""
    target = Many({"a": pool()}, 2)
    scene = Scene({"a": pool()}, target)
    await scene.fleet.adopt()
    looks, observe = target.looks, target.observe

    def slowly() -> Mapping[str, PoolStatus]:
        scene.clock.now += 0.05
        return observe()

    target.observe = slowly
    for _ in range(1000):
        target.on_change()
    assert target.looks - looks == 1
    scene.clock.now += 0.05
    target.on_change()
    assert target.looks - looks == 2


async def test_a_round_takes_time_by_replicas_not_by_pools_times_replicas(monkeypatch):
    """Steps are counted, no clock is asked."""

    async def steps(pools: int) -> int:
        count = 0

        def counted(self: Member) -> Replica:
            nonlocal count
            count += 1
            return self.status.replica

        names = {f"p{at}": pool() for at in range(pools)}
        scene = Scene(names, Many(names, 4))
        await scene.fleet.adopt()
        monkeypatch.setattr(Member, "replica", property(counted))
        scene.fleet._reconcile()
        return count

    few, many = await steps(8), await steps(64)
    assert many <= 9 * few


def test_what_shows_already_is_not_set_again():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    gauges = Gauges(metrics)
    counted = Counted(
        tier="small",
        desired=2,
        states=[READY],
        pending=0,
        ending=0,
        troubled=False,
        refused=False,
        usd_per_hour=1.0,
        sized=None,
    )

    def desired() -> float | None:
        return registry.get_sample_value(
            "pennyweight_scaler_desired_replicas", {"pool": "a", "tier": "small"}
        )

    gauges.keep({"a": "small"})
    gauges.show("a", counted)
    metrics.desired.labels("a", "small").set(7)
    gauges.show("a", counted)
    assert desired() == 7
    gauges.show("a", replace(counted, desired=3))
    assert desired() == 3
    gauges.keep({})
    gauges.keep({"a": "small"})
    gauges.show("a", replace(counted, desired=3))
    assert desired() == 3
