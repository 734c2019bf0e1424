"""A server that exits, or is not there any more, is told from one that says nothing."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.scaler.targets import triton_client
from services.scaler.targets.triton_client import TritonClient

Answer = Callable[[Any], Awaitable[None]]


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Says of itself what a test wants."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.answer(context)
        return service_pb2.ServerReadyResponse(ready=False)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=False)


@asynccontextmanager
async def asking(answer: Answer) -> AsyncIterator[tuple[TritonClient, grpc.aio.Server]]:
    server = grpc.aio.server()
    add: Any = service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    add(Server(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = TritonClient("127.0.0.1", port, 1, "m")
    try:
        yield client, server
    finally:
        await client.close()
        await server.stop(None)


async def not_ready(_: Any) -> None:
    """It loads its model, say."""


async def exiting(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Server exiting")


async def elsewhere(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, os.strerror(24))


async def silent(_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answer", "exits"), [(not_ready, False), (exiting, True), (elsewhere, False), (silent, False)]
)
async def test_what_it_says_tells_whether_it_exits(
    answer: Answer, *, exits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_client, "CALL_SECONDS", 0.2 if answer is silent else 10.0)
    async with asking(answer) as (client, _):
        assert not await client.is_ready()
        assert client.exits is exits


async def test_one_that_nobody_listens_for_any_more_exits() -> None:
    async with asking(not_ready) as (client, server):
        await client.is_ready()
        assert not client.exits
        await server.stop(None)
        async with asyncio.timeout(30):
            while not client.exits:
                assert not await client.is_ready()


async def test_one_that_takes_connections_and_says_nothing_does_not_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton_client, "CALL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        client = TritonClient("127.0.0.1", frozen.getsockname()[1], 1, "m")
        assert not await client.is_ready()
        assert not client.exits
        await client.close()
