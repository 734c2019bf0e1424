"""A scaler that is replaced has another address, and is found there at once."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.channel import Peer
from services.router.clients.scaler import ScalerLink
from services.router.fleet.load import LoadWindow
from tests.integration.names import Names

SOON_SECONDS = 4.0
"""Twice what it may take; without looking the name up anew it is 30 s, or minutes."""


class Fleet:
    """Keeps what the link says of the fleet."""

    def __init__(self) -> None:
        self.replicas: set[str] = set()
        self.stale = False
        self.changed = asyncio.Event()

    def replace(self, replicas: Any) -> None:
        self.replicas = {replica.id for replica in replicas}
        self.changed.set()

    def update(self, replicas: Any) -> None:
        raise AssertionError("nothing changes here")

    def set_stale(self, *, stale: bool) -> None:
        self.stale = stale
        self.changed.set()

    def snapshot(self) -> list[Any]:
        return []

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(SOON_SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class ScriptedScaler(scaler_pb2_grpc.ScalerServiceServicer):
    """A scaler with one replica, on an address of its own."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self.reported = asyncio.Event()
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        scaler_pb2_grpc.add_ScalerServiceServicer_to_server(self, self._server)

    async def start(self, address: str) -> int:
        port = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(None)

    async def WatchReplicas(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        replica = pb.Replica(id=self._replica, state=pb.REPLICA_STATE_READY)
        yield pb.WatchReplicasResponse(full=True, replicas=[replica], revision=1)
        await asyncio.Event().wait()

    async def ReportLoad(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> pb.ReportLoadResponse:
        async for _ in request_iterator:
            self.reported.set()
        return pb.ReportLoadResponse()


class Counted:
    def inc(self) -> None: ...


class Metrics:
    load_reports = Counted()


class Scene:
    """A link that follows a scaler by its name."""

    def __init__(self) -> None:
        self.names = Names()
        self.fleet = Fleet()
        self.scaler = ScriptedScaler("old")

    async def begin(self) -> None:
        server = await self.names.open()
        self.port = await self.scaler.start("127.0.0.2:0")
        self.names.address = "127.0.0.2"
        fleet: Any = self.fleet
        metrics: Any = Metrics()
        link = ScalerLink(
            Peer(f"dns://{server}/scaler.test:{self.port}"),
            fleet,
            LoadWindow(),
            metrics,
            router="router",
        )
        self.tasks = [asyncio.create_task(work) for work in (link.watch(), link.report())]
        await self.fleet.until(lambda: self.fleet.replicas == {"old"})

    async def replace(self) -> None:
        """Another scaler serves, on another address, under the same name."""
        self.scaler = ScriptedScaler("new")
        await self.scaler.start(f"127.0.0.3:{self.port}")
        self.names.address = "127.0.0.3"

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.scaler.stop()
        await self.names.close()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.begin()
    yield scene
    await scene.end()


async def test_a_name_that_means_another_address_is_looked_up_at_once(scene: Scene) -> None:
    old = scene.scaler
    await scene.replace()
    await old.stop()
    await scene.fleet.until(lambda: scene.fleet.replicas == {"new"} and not scene.fleet.stale)
    async with asyncio.timeout(SOON_SECONDS):
        await scene.scaler.reported.wait()


async def test_a_name_that_was_gone_for_a_while_is_asked_for_all_the_time(scene: Scene) -> None:
    scene.names.address = ""
    await scene.scaler.stop()
    await scene.fleet.until(lambda: scene.fleet.stale)
    before = scene.names.asked
    async with asyncio.timeout(30):
        while scene.names.asked < before + 24:  # a channel alone asks 4 times in the first 5 s
            await asyncio.sleep(0.01)
    await scene.replace()
    await scene.fleet.until(lambda: scene.fleet.replicas == {"new"})
    async with asyncio.timeout(SOON_SECONDS):
        await scene.scaler.reported.wait()


async def test_an_address_that_swallows_a_try_holds_up_only_that_one(scene: Scene) -> None:
    """As that of a container that is gone, until its name means another."""
    with silent(scene.port) as swallower:
        scene.names.address = "127.0.0.4"
        await scene.scaler.stop()
        taken, _ = await asyncio.get_running_loop().sock_accept(swallower)
        await scene.replace()
        await scene.fleet.until(lambda: scene.fleet.replicas == {"new"})
        taken.close()


def silent(port: int) -> socket.socket:
    """A socket that takes connections and never says a word."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.4", port))
    found.listen()
    found.settimeout(0.0)
    return found
