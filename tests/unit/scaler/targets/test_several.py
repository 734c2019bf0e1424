"""Several targets as one: what one of them cannot do is the trouble of its pools alone."""

import asyncio
from dataclasses import replace

import pytest

from services.common.config import ConfigError
from services.scaler.config import Scaling
from services.scaler.pools.places import External, Kubernetes
from services.scaler.targets.several import MOVED, SeveralTargets, Where
from tests.making.replicas import Cluster, pool

LOCAL = pool(size=1)
CLUSTER = replace(
    pool(size=1), repository=None, slots=(), kubernetes=Kubernetes(namespace="n", name="b")
)
OTHERS = replace(pool(size=None), repository=None, slots=(), external=External(addresses=("x:1",)))


class Broken(Cluster):
    """A target that raises, hangs or sees nothing, as a test says."""

    broken = False
    hangs = False
    ran = 0

    def observe(self):
        if self.broken:
            raise RuntimeError("it cannot see")
        return super().observe()

    def resize(self, *given, **named) -> None:
        if self.broken:
            raise RuntimeError("it cannot place")
        super().resize(*given, **named)

    async def open(self, on_change) -> None:
        if self.hangs:
            await asyncio.sleep(3600)
        await super().open(on_change)

    async def run(self) -> None:
        self.ran += 1
        if self.broken:
            raise RuntimeError("it cannot run")
        await asyncio.sleep(3600)


class Scene:
    def __init__(self, **pools) -> None:
        self.scaling = Scaling(pools=pools or {"a": LOCAL, "b": CLUSTER})
        self.made: dict[Where, Broken] = {}
        self.fails: Where | None = None
        self.target = SeveralTargets(
            self.scaling,
            {place: lambda own, place=place: self.make(place, own) for place in Where},
            open_seconds=0.01,
        )

    def make(self, place: Where, own: Scaling) -> Broken:
        if self.fails is place:
            raise ImportError("No module named 'lightkube'")
        return self.made.setdefault(place, Broken(*own.pools))

    async def opened(self) -> "Scene":
        await self.target.open(lambda: None)
        return self

    def resize(self, name: str, size: int, *, draining=(), drained=()):
        self.target.resize(name, size, draining=draining, drained=drained)
        for target in self.made.values():
            target.settle()
        return self.target.observe()[name]


async def test_each_pool_is_kept_in_its_place():
    scene = await Scene().opened()
    assert len(scene.resize("a", 2).replicas) == 2
    assert len(scene.resize("b", 3).replicas) == 3
    assert scene.made[Where.SLOTS].deployments.keys() == {"a"}
    assert scene.made[Where.KUBERNETES].deployments.keys() == {"b"}
    assert Where.EXTERNAL not in scene.made


async def test_one_that_raises_holds_its_own_pools_and_what_they_had_stays():
    scene = await Scene().opened()
    scene.resize("a", 1)
    scene.resize("b", 2)
    scene.made[Where.KUBERNETES].broken = True
    assert len(scene.resize("a", 3).replicas) == 3
    status = scene.resize("b", 5)
    assert len(status.replicas) == 2
    assert "the target of kubernetes failed: RuntimeError" in status.held
    assert scene.target.observe()["a"].held == ""
    scene.made[Where.KUBERNETES].broken = False
    assert len(scene.resize("b", 5).replicas) == 5
    assert scene.target.observe()["b"].held == ""


async def test_one_that_sees_nothing_is_held_too():
    scene = await Scene().opened()
    scene.resize("b", 2)
    scene.made[Where.KUBERNETES].reachable = False
    status = scene.target.observe()["b"]
    assert (len(status.replicas), status.held) == (2, "the replicas cannot be observed")


async def test_one_that_hangs_at_the_start_is_left_for_later():
    scene = Scene()
    scene.make(Where.KUBERNETES, scene.scaling).hangs = True
    scene.made[Where.KUBERNETES].reachable = False
    await scene.opened()
    status = scene.target.observe()["b"]
    assert (status.known, "TimeoutError" in status.held) == (False, True)
    assert scene.target.observe()["a"].known


async def test_one_that_cannot_be_made_is_tried_again_when_settings_change():
    scene = Scene()
    scene.fails = Where.KUBERNETES
    await scene.opened()
    assert "No module named 'lightkube'" in scene.target.observe()["b"].held
    assert scene.target.observe()["a"].held == ""
    scene.fails = None
    scene.target.configure(scene.scaling)
    assert len(scene.resize("b", 1).replicas) == 1


async def test_slots_that_fail_stop_the_start():
    scene = Scene()

    async def taken(_on_change) -> None:
        raise ConfigError("state", ["another scaler uses it"])

    scene.make(Where.SLOTS, scene.scaling).open = taken
    with pytest.raises(ConfigError):
        await scene.opened()


async def test_slots_that_cannot_be_made_stop_the_start():
    scene = Scene()
    scene.fails = Where.SLOTS
    with pytest.raises(ImportError):
        await scene.opened()


@pytest.mark.parametrize(
    ("place", "error"),
    [(Where.SLOTS, RuntimeError("odd")), (Where.KUBERNETES, ConfigError("kubeconfig", ["odd"]))],
)
async def test_what_no_later_try_would_mend_stops_the_start(place, error):
    scene = Scene()

    async def fail(_on_change) -> None:
        raise error

    scene.make(place, scene.scaling).open = fail
    with pytest.raises(type(error)):
        await scene.opened()


async def test_what_is_over_is_not_told_any_more():
    scene = Scene()
    scene.fails = Where.KUBERNETES
    await scene.opened()
    scene.fails = None
    scene.target.configure(scene.scaling)
    cluster = scene.made[Where.KUBERNETES]
    cluster.reachable = False
    assert scene.target.observe()["b"].held == "the replicas cannot be observed"
    scene = await Scene().opened()
    cluster = scene.made[Where.KUBERNETES]
    cluster.broken = True
    assert "it cannot see" in scene.target.observe()["b"].held
    cluster.broken = False
    scene.target.observe()
    cluster.reachable = False
    assert scene.target.observe()["b"].held == "the replicas cannot be observed"


async def test_one_that_could_not_be_opened_at_the_start_is_opened_as_it_runs():
    scene, told = Scene(), asyncio.Event()
    cluster = scene.make(Where.KUBERNETES, scene.scaling)
    cluster.hangs = True
    await scene.target.open(told.set)
    cluster.hangs = False
    running = asyncio.create_task(scene.target.run())
    async with asyncio.timeout(5.0):
        await told.wait()
    assert cluster.on_change == told.set
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_cannot_be_closed_keeps_no_other_open():
    scene = await Scene().opened()
    closed = []

    async def fail() -> None:
        raise RuntimeError("odd")

    async def close() -> None:
        closed.append(Where.KUBERNETES)

    scene.made[Where.SLOTS].close = fail
    scene.made[Where.KUBERNETES].close = close
    await scene.target.close()
    assert closed == [Where.KUBERNETES]


async def test_one_that_fails_while_it_runs_is_begun_anew_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr("services.common.kept_up.AGAIN_SECONDS", 0.0)
    scene = await Scene().opened()
    scene.made[Where.KUBERNETES].broken = True
    running = asyncio.create_task(scene.target.run())
    async with asyncio.timeout(5.0):
        while scene.made[Where.KUBERNETES].ran < 3:
            await asyncio.sleep(0)
    assert scene.made[Where.SLOTS].ran == 1
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_pool_that_moves_drains_where_it_was():
    scene = await Scene(a=LOCAL).opened()
    scene.resize("a", 2)
    moved = replace(CLUSTER, kubernetes=Kubernetes(namespace="n", name="a"))
    scene.target.configure(Scaling(pools={"a": moved}))
    status = scene.target.observe()["a"]
    leaving = [one.replica.id for one in status.replicas if one.leaving == MOVED]
    assert len(leaving) == 2
    assert len(scene.resize("a", 1, draining=leaving).replicas) == 3
    status = scene.resize("a", 1, drained=leaving)
    assert [one.leaving for one in status.replicas] == [""]
    assert scene.made[Where.SLOTS].deployments["a"].pods == {}


async def test_a_pool_of_others_is_a_place_too():
    scene = await Scene(a=LOCAL, c=OTHERS).opened()
    assert scene.target.observe().keys() == {"a", "c"}
    assert scene.made[Where.EXTERNAL].deployments.keys() == {"c"}
