"""A proxy that the environment names is for the outside: our own parts meet without it."""

import socket
import sys
from asyncio import create_subprocess_exec
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from pennyweight.channel import PROXY_VARIABLE, open_channel
from services.common.channel import Peer
from services.router.engines.triton import CHANNEL_OPTIONS
from services.scaler.targets.triton_client import TritonClient
from tests.integration.common.serving import serving
from tests.integration.scripted_triton import ScriptedTriton


@pytest.fixture(autouse=True)
def _proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        where = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(name, where)
            monkeypatch.setenv(name.upper(), where)
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield


async def is_served(channel: grpc.aio.Channel) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async with channel:
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError:
            return False
        return True


def elsewhere(port: int) -> str:
    """An address that does not look like this machine's, and is."""
    return f"0.0.0.0:{port}"


async def test_services_reach_each_other() -> None:
    async with serving() as running:
        assert not await is_served(grpc.aio.insecure_channel(f"127.0.0.1:{running.port}"))
        for address in (f"127.0.0.1:{running.port}", elsewhere(running.port)):
            assert await is_served(Peer(address).open())


async def test_a_caller_uses_a_proxy_only_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running:
        assert await is_served(open_channel(elsewhere(running.port)))
        monkeypatch.setenv(PROXY_VARIABLE, "1")
        assert await is_served(open_channel(f"127.0.0.1:{running.port}"))
        assert not await is_served(open_channel(elsewhere(running.port)))


async def test_replicas_are_reached() -> None:
    triton = ScriptedTriton([])
    await triton.start()
    host, _, port = triton.address.rpartition(":")
    try:
        live = service_pb2.ServerLiveRequest()
        async with grpc.aio.insecure_channel(triton.address, options=CHANNEL_OPTIONS) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert (await stub.ServerLive(live, timeout=3)).live
        client = TritonClient(host, int(port), 1, "m")
        assert (await client._stub.ServerLive(live, timeout=3)).live
        await client.close()
    finally:
        await triton.stop()


async def test_the_probe_of_containers_is_told() -> None:
    async with serving() as running:
        process = await create_subprocess_exec(
            sys.executable, "-m", "services.common.probe", f"127.0.0.1:{running.port}"
        )
        assert await process.wait() == 0
