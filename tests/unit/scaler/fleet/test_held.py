"""Pools of which nothing may be decided, that somebody else sizes, or that are not ours to end."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import Unavailable
from services.scaler.config import Scaling
from services.scaler.fleet.fleet import WHOLE_SECONDS, Fleet
from services.scaler.fleet.wishes import WishBoard
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.sizing.settings import Scale
from services.scaler.pools.places import External, Kubernetes
from services.scaler.ports import Wish
from tests.making.replicas import Clock, Cluster, pool, sizes

ON_CLUSTER = replace(
    pool(size=2), repository=None, slots=(), kubernetes=Kubernetes(namespace="n", name="a")
)


class Odd(Cluster):
    """A cluster that says more of its pools."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.said: dict[str, object] = {}
        self.asked: list[int] = []

    def observe(self):
        return {name: replace(status, **self.said) for name, status in super().observe().items()}

    def resize(self, pool, size, *, draining, drained) -> None:
        self.asked.append(size)
        super().resize(pool, size, draining=draining, drained=drained)


class Scene:
    def __init__(self, of=ON_CLUSTER) -> None:
        self.clock = Clock()
        self.target = Odd("a")
        scaling = Scaling(pools={"a": of})
        self.wishes, loads = WishBoard(), Loads()
        self.fleet = Fleet(
            scaling,
            self.target,
            loads,
            Metrics(CollectorRegistry()),
            sizes(scaling, loads),
            wishes=self.wishes,
            clock=self.clock,
            wall=self.clock,
        )

    async def opened(self) -> "Scene":
        await self.fleet.adopt()
        return self.turn()

    def turn(self) -> "Scene":
        for _ in range(3):
            self.fleet._reconcile()
            self.target.settle()
            for name in list(self.target.deployments["a"].pods):
                self.target.change(name, ready=True)
        return self

    @property
    def view(self):
        return self.fleet.pools()[0]

    @property
    def states(self) -> list[ReplicaState]:
        return [one.state for one in self.view.replicas]


async def test_a_held_pool_is_asked_for_nothing():
    scene = await Scene().opened()
    assert scene.target.asked
    scene.target.said, scene.target.asked = {"held": "another scaler acts"}, []
    scene.fleet.configure(Scaling(pools={"a": replace(ON_CLUSTER, size=1)}))
    scene.turn()
    assert scene.states == [ReplicaState.READY] * 2
    assert scene.target.asked == []
    assert scene.view.held == "another scaler acts"


async def test_who_leaves_a_held_pool_is_shown_to_drain():
    scene = await Scene().opened()
    scene.target.said = {"held": "another scaler acts"}
    scene.target.change("a-1", leaving="a scaler is taking it away")
    scene.turn()
    assert scene.states == [ReplicaState.DRAINING, ReplicaState.READY]


async def test_a_size_set_by_hand_holds():
    scene = await Scene().opened()
    scene.target.said = {"by_hand": 4}
    scene.turn()
    assert (scene.view.desired, len(scene.states)) == (4, 4)
    scene.target.said = {}
    scene.turn()
    assert scene.view.desired == 2
    assert scene.states.count(ReplicaState.DRAINING) == 2


async def test_others_servers_are_as_many_as_there_are():
    other = replace(ON_CLUSTER, kubernetes=None, size=None, external=External(addresses=("x:1",)))
    scene = Scene(other)
    scene.target.deployments["a"].replicas = 3
    scene.target.settle()
    await scene.opened()
    assert (scene.view.desired, scene.states) == (3, [ReplicaState.READY] * 3)


async def test_a_cluster_does_not_end_with_the_scaler():
    scene = await Scene().opened()
    ending = asyncio.create_task(scene.fleet.end_all(5.0))
    await asyncio.sleep(0)
    scene.turn()
    await asyncio.wait_for(ending, 1.0)
    assert scene.states == [ReplicaState.READY] * 2


async def test_watchers_are_put_off_until_it_is_known_what_there_is():
    scene = Scene()
    scene.target.said = {"known": False, "held": "not seen yet"}
    await scene.opened()
    with pytest.raises(Unavailable, match="not known yet what pool a has"):
        scene.fleet.watch()
    scene.clock.now += WHOLE_SECONDS
    with scene.fleet.watch():
        pass
    scene.clock.now -= WHOLE_SECONDS
    scene.target.said = {}
    scene.turn()
    with scene.fleet.watch():
        pass


async def test_an_actuator_is_told_of_those_that_drain_too():
    scene = await Scene().opened()
    assert scene.wishes.wish("a") == Wish(2, active=True, since=0.0)
    scene.clock.now = 5.0
    scene.fleet.configure(Scaling(pools={"a": replace(ON_CLUSTER, size=0)}))
    scene.fleet._reconcile()
    assert scene.wishes.wish("a") == Wish(2, active=False, since=5.0)
    scene.target.said = {"held": "another scaler acts"}
    scene.turn()
    assert scene.wishes.wish("a") is None


async def test_a_pool_that_is_seen_late_keeps_what_it_has():
    """What could not be seen at the start is not taken for nothing, and so does not shrink."""
    scaled = replace(ON_CLUSTER, size=None, scale=Scale(min=1, max=8))
    scene = Scene(scaled)
    scene.target.deployments["a"].replicas = 5
    scene.target.said = {"known": False, "held": "not seen yet", "replicas": ()}
    await scene.opened()
    assert scene.target.asked == []
    scene.target.said = {}
    scene.turn()
    assert set(scene.target.asked) == {5}
    assert scene.states == [ReplicaState.READY] * 5
    assert scene.view.desired == 5


async def test_nothing_is_decided_of_a_held_pool():
    scaled = replace(ON_CLUSTER, size=None, scale=Scale(min=1, max=8))
    scene = await Scene(scaled).opened()
    decided = scene.view.decision
    assert decided is not None
    scene.target.said = {"held": "another scaler acts"}
    scene.clock.now += 100.0
    scene.turn()
    assert scene.view.decision is decided


async def test_more_room_is_thought_of_at_once():
    scene = await Scene().opened()
    assert not scene.fleet._sizes.due(scene.clock())
    scene.target.said = {"capacity": 3}
    scene.target.on_change()
    assert scene.fleet._sizes.due(scene.clock())
