"""What every target promises, whether it numbers slots or not: one suite over all of them."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.pools.pool import Slot
from services.scaler.ports import PoolStatus
from services.scaler.targets.local import LocalTarget
from tests.making.replicas import Cluster, Host, Quick, pool


class Scene:
    """A target with one pool that has room for four."""

    def __init__(self, kind: str) -> None:
        pools = {"a": pool(slots=(Slot(),) * 4, size=0)}
        self.cluster = Cluster("a") if kind == "cluster" else None
        self.rhythm = Quick()
        self.target = self.cluster or LocalTarget(
            Scaling(pools=pools), Host(), Metrics(CollectorRegistry()), rhythm=self.rhythm
        )
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    def status(self) -> PoolStatus:
        seen = self.target.observe()
        assert seen is not None
        return seen["a"]

    def ids(self) -> set[str]:
        return {status.replica.id for status in self.status().replicas}

    async def resize(self, size: int, *, draining=(), drained=()) -> PoolStatus:
        """Resizes, and lets everything come that will."""
        self.target.resize("a", size, draining=draining, drained=drained)
        for _ in range(5):
            if self.cluster is None:
                await self.rhythm.decided()
            else:
                self.cluster.settle()
                for name in self.ids():
                    self.cluster.change(name, ready=True)
        return self.status()


@pytest.fixture(params=["slots", "cluster"])
async def scene(request):
    scene = Scene(request.param)
    await scene.target.open(scene.changed)
    running = asyncio.create_task(scene.target.run())
    yield scene
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await scene.target.close()


async def test_a_pool_gets_its_size(scene):
    assert scene.status().empty
    status = await scene.resize(3)
    assert [one.ready for one in status.replicas] == [True] * 3
    assert len({one.replica.id for one in status.replicas}) == 3
    assert len({one.replica.address for one in status.replicas}) == 3
    assert (status.pending, status.ending, status.trouble) == (0, 0, "")


async def test_a_change_is_announced(scene):
    assert scene.changes == 0
    await scene.resize(1)
    assert scene.changes > 0


async def test_observing_changes_nothing_and_wanting_the_same_again_neither(scene):
    before = await scene.resize(2)
    assert [scene.status() for _ in range(3)] == [before] * 3
    assert await scene.resize(2) == before


async def test_who_drains_stays_and_who_has_drained_goes(scene):
    await scene.resize(3)
    _, second, third = sorted(scene.ids())
    await scene.resize(1, draining=[second, third])
    assert {second, third} < scene.ids()
    assert len(scene.ids()) == 3
    await scene.resize(1, draining=[third], drained=[second])
    assert second not in scene.ids()
    assert third in scene.ids()
    await scene.resize(1, drained=[third])
    assert len(scene.ids()) == 1


async def test_who_drains_does_not_count(scene):
    await scene.resize(2)
    first, _ = sorted(scene.ids())
    status = await scene.resize(2, draining=[first])
    assert len(status.replicas) == 3


async def test_nothing_is_left_of_a_pool_of_none(scene):
    await scene.resize(2)
    status = await scene.resize(0, drained=sorted(scene.ids()))
    assert status.empty
