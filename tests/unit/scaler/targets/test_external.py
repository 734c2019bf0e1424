"""Servers that somebody else runs: observed and routed to, never started or ended."""

import asyncio

import pytest

from services.scaler.config import Scaling
from services.scaler.pools.places import External
from services.scaler.pools.pool import Pool
from services.scaler.targets.external import LOOK_UP_SECONDS, MISSES, UNNAMED, ExternalTarget
from tests.making.replicas import Clock


def made(**place) -> Pool:
    return Pool(tier="small", model="m", precision="int8", external=External(**place))


class Server:
    def __init__(self, address: str, model: str) -> None:
        self.address = address
        self.model = model
        self.ready = True
        self.broken = False
        self.closed = False

    async def is_ready(self) -> bool:
        if self.broken:
            raise RuntimeError("no descriptors")
        return self.ready

    async def close(self) -> None:
        self.closed = True


class Scene:
    def __init__(self, **place) -> None:
        self.clock = Clock()
        self.servers: dict[str, Server] = {}
        self.names: list[str] | Exception = []
        self.changes = 0
        self.target = ExternalTarget(
            {"a": made(**place)},
            resolve=self.resolve,
            server=self.server,
            clock=self.clock,
            wall=lambda: 1.0,
        )

    async def resolve(self, host: str, port: int) -> list[str]:
        if isinstance(self.names, Exception):
            raise self.names
        return [f"{name}:{port}" for name in self.names]

    def server(self, address: str, model: str) -> Server:
        self.servers[address] = Server(address, model)
        return self.servers[address]

    async def opened(self) -> "Scene":
        await self.target.open(self.changed)
        return self

    def changed(self) -> None:
        self.changes += 1

    async def look(self, seconds: float = 1.0):
        self.clock.now += seconds
        await self.target._look("a")
        return self.status

    @property
    def status(self):
        return self.target.observe()["a"]

    def ready(self) -> dict[str, bool]:
        return {one.replica.address: one.ready for one in self.status.replicas}


async def test_addresses_are_asked_before_anybody_hears_of_them():
    scene = await Scene(addresses=("x:1", "y:2")).opened()
    assert scene.ready() == {"x:1": True, "y:2": True}
    assert scene.status.known
    assert scene.servers["x:1"].model == "m"
    (first, second) = (one.replica for one in scene.status.replicas)
    assert first.id != second.id
    again = await Scene(addresses=("x:1", "y:2")).opened()
    assert again.status.replicas[0].replica.id == first.id


async def test_one_that_is_silent_is_not_ready_and_its_pool_says_so():
    scene = await Scene(addresses=("x:1", "y:2")).opened()
    before = scene.changes
    scene.servers["y:2"].ready = False
    for _ in range(MISSES - 1):
        await scene.look()
        assert scene.ready()["y:2"]
    await scene.look()
    assert scene.ready() == {"x:1": True, "y:2": False}
    assert scene.status.trouble == "y:2 is not ready"
    assert scene.changes == before + 1
    scene.servers["y:2"].ready = True
    await scene.look()
    assert scene.ready()["y:2"]
    assert scene.status.trouble == ""


async def test_one_that_cannot_be_asked_is_its_own_trouble():
    scene = await Scene(addresses=("x:1", "y:2")).opened()
    scene.servers["x:1"].broken = True
    for _ in range(MISSES):
        await scene.look()
    assert scene.ready() == {"x:1": False, "y:2": True}


async def test_a_name_is_looked_up_at_times_and_what_it_names_no_more_leaves():
    scene = Scene(dns="tritons:8001")
    assert not scene.status.known
    scene.names = ["10.0.0.1", "10.0.0.2"]
    await scene.opened()
    assert scene.ready() == {"10.0.0.1:8001": True, "10.0.0.2:8001": True}
    scene.names = ["10.0.0.2", "10.0.0.3"]
    assert len((await scene.look()).replicas) == 2
    status = await scene.look(LOOK_UP_SECONDS)
    assert [one.leaving for one in status.replicas] == [UNNAMED, "", ""]
    gone = status.replicas[0].replica.id
    scene.target.resize("a", 3, draining=[], drained=[gone])
    assert scene.ready().keys() == {"10.0.0.2:8001", "10.0.0.3:8001"}
    assert scene.target._closing == [scene.servers["10.0.0.1:8001"]]


@pytest.mark.parametrize("error", [OSError("no such name"), TimeoutError()])
async def test_a_look_up_that_fails_leaves_what_was_known(error):
    scene = Scene(dns="tritons:8001")
    scene.names = ["10.0.0.1"]
    await scene.opened()
    scene.names = error
    status = await scene.look(LOOK_UP_SECONDS)
    assert scene.ready() == {"10.0.0.1:8001": True}
    assert status.trouble.startswith("tritons:8001 cannot be looked up: ")
    scene.names = ["10.0.0.1"]
    assert (await scene.look(LOOK_UP_SECONDS)).trouble == ""


async def test_a_name_that_never_was_there_holds_its_pool():
    scene = Scene(dns="tritons:8001")
    scene.names = OSError("no such name")
    await scene.opened()
    assert (scene.status.known, scene.status.held) == (False, "its servers are not known yet")


async def test_changed_settings_are_taken():
    scene = await Scene(addresses=("x:1", "y:2")).opened()
    scene.target.configure(Scaling(pools={"a": made(addresses=("y:2", "z:3"))}))
    await scene.look()
    leaving = {one.replica.address: one.leaving for one in scene.status.replicas}
    assert leaving == {"x:1": UNNAMED, "y:2": "", "z:3": ""}
    kept = scene.servers["y:2"]
    other = made(addresses=("y:2",))
    object.__setattr__(other, "model", "n")
    scene.target.configure(Scaling(pools={"a": other}))
    assert scene.servers["y:2"] is not kept
    assert scene.servers["y:2"].model == "n"


async def test_at_the_end_all_are_let_go():
    scene = await Scene(addresses=("x:1",)).opened()
    running = asyncio.create_task(scene.target.run())
    await asyncio.sleep(0)
    (one,) = scene.status.replicas
    scene.target.resize("a", 0, draining=[], drained=[one.replica.id])
    assert scene.status.empty
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await scene.target.close()
    assert scene.servers["x:1"].closed
