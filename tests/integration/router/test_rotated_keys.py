"""The key that the router shows to cache and scaler changes while all of them run."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.cache import __main__ as cache_main
from services.cache.config import CacheSettings
from services.common.channel import Peer
from services.common.keys_in_force import KeysInForce
from services.common.server import Server
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from services.router.clients.cache import CacheStream
from services.router.clients.scaler import ScalerLink
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from services.router.ports import Asked
from tests.integration.router.world import PATIENCE, ScriptedScaler, until
from tests.making.policies import ladder

ASKED = Asked((), None, 8, 0.0, 1.0, 0, None, ())


class Fleet:
    """Hears whether the scaler is there."""

    def __init__(self) -> None:
        self.stale = True
        self.failures = 0

    def replace(self, replicas: Any) -> None: ...

    def update(self, replicas: Any) -> None: ...

    def set_stale(self, *, stale: bool) -> None:
        self.stale = stale
        self.failures += stale

    def snapshot(self) -> list[Any]:
        return []


class Scene:
    """A cache and a scaler that ask for keys, and a router's links to them."""

    def __init__(self, folder: Path) -> None:
        self.shown = folder / "service.key"
        self._accepted = folder / "keys.yaml"
        self.accept("old")
        self.shown.write_text("old")
        self.fleet = Fleet()
        self.metrics = Metrics(CollectorRegistry())
        self._ports = {"cache": 0, "scaler": 0}
        self._tasks: list[asyncio.Task[None]] = []

    def accept(self, key: str) -> None:
        digest = hashlib.sha256(key.encode()).hexdigest()
        self._accepted.write_text(
            f"keys:\n  - {{sha256: {digest}, tenant: pennyweight, role: service}}\n"
        )

    def _told(self, name: str) -> dict[str, Any]:
        return {"listen": f"127.0.0.1:{self._ports[name]}", "keys_file": self._accepted}

    async def serve(self) -> None:
        """Both serve with the keys that are accepted now, from the second time on anew."""
        settings = ServerSettings(**self._told("scaler"))
        keys = KeysInForce(self._accepted, CollectorRegistry())
        self._scaler = Server(settings, keys, Tracing("scaler"))
        self.scripted = ScriptedScaler()
        add: Any = scaler_pb2_grpc.add_ScalerServiceServicer_to_server
        self._scaler.add(add, self.scripted)
        self._ports["scaler"] = await self._scaler.start()
        self._stop = asyncio.Event()
        started = asyncio.get_running_loop().create_future()
        self._cache = asyncio.create_task(
            cache_main.serve(
                CacheSettings(metrics_listen="127.0.0.1:0", **self._told("cache")),
                self._stop,
                started.set_result,
            )
        )
        self._ports["cache"] = await started

    async def unserve(self) -> None:
        self._stop.set()
        await asyncio.gather(self._scaler.close(), self._cache)

    async def link(self) -> None:
        cache, scaler = (
            Peer(f"127.0.0.1:{self._ports[name]}", self.shown) for name in ("cache", "scaler")
        )
        self.stream = CacheStream(
            cache, timeout_seconds=PATIENCE, metrics=self.metrics, tracing=Tracing("router")
        )
        fleet: Any = self.fleet
        link = ScalerLink(scaler, fleet, LoadWindow(), self.metrics, router="router")
        works = (self.stream.run(), link.watch(), link.report())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def connected(self) -> None:
        """Waits until both have let the router in, and heard of its load."""
        async with asyncio.timeout(PATIENCE):
            while not await self._cached():
                await asyncio.sleep(0.003)
        await until(lambda: not self.fleet.stale and self.scripted.reports)

    async def _cached(self) -> bool:
        (small,) = ladder("small")
        found: Any = await self.stream.lookup(
            "acme", "chat", ASKED, [small], lease=False, max_wait_seconds=0.0
        )
        return bool(found.available)

    async def refused(self) -> None:
        """Waits until the router was refused a few times."""
        before = self.fleet.failures
        await until(lambda: self.fleet.stale and self.fleet.failures > before + 3)
        assert not await self._cached()

    async def end(self) -> None:
        for task in self._tasks:
            assert not task.done()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.unserve()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    await scene.serve()
    await scene.link()
    await scene.connected()
    yield scene
    await scene.end()


async def test_each_connection_shows_the_key_that_the_file_holds_then(scene: Scene) -> None:
    scene.shown.write_text("new")
    scene.accept("new")
    await scene.unserve()
    await scene.serve()
    await scene.connected()
    assert scene.scripted.keys == {"Bearer new"}


@pytest.mark.parametrize("meanwhile", ["old", "", "two words", None])
async def test_a_key_that_comes_late_is_taken_up_whatever_stood_there_before(
    scene: Scene, meanwhile: str | None
) -> None:
    if meanwhile is None:
        scene.shown.unlink()
    else:
        scene.shown.write_text(meanwhile)
    scene.accept("new")
    await scene.unserve()
    await scene.serve()
    await scene.refused()
    scene.shown.write_text("new")
    await scene.connected()
