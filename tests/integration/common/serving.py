"""A real server around a scripted servicer of each shape of call, on a free port."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from pennyweight.cache.v1 import cache_pb2, cache_pb2_grpc
from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from services.common.credentials import DEVELOPMENT_KEY, Identity, Keyring, current_identity
from services.common.server import Server
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing

KEY = (("authorization", f"Bearer {DEVELOPMENT_KEY}"),)
ROUTER = "pennyweight.router.v1.RouterService"
SCALER = "pennyweight.scaler.v1.ScalerService"
CACHE = "pennyweight.cache.v1.CacheService"


async def _nothing() -> None:
    """What a servicer does unless a test says otherwise."""


@dataclass
class Shop:
    """Answers every call after `do`, which a test sets; remembers who called."""

    do: Callable[[], Any] = _nothing
    callers: list[Identity] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def _act(self) -> None:
        self.callers.append(current_identity())
        self.entered.set()
        await self.do()

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            await self._act()
            return router_pb2.CompleteResponse(text=request.route)
        finally:
            self.left.set()

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            yield router_pb2.GenerateResponse(delta=router_pb2.Delta(text=request.route))
            await self._act()
            yield router_pb2.GenerateResponse(delta=router_pb2.Delta(text="end"))
        finally:
            self.left.set()

    async def ReportLoad(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802
        accepted = 0
        async for _ in requests:
            accepted += 1
        await self._act()
        return scaler_pb2.ReportLoadResponse(accepted=accepted)

    async def Exchange(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        async for _ in requests:
            await self._act()
            yield cache_pb2.ExchangeResponse()


@dataclass
class Running:
    """A running server and what it takes to talk to it."""

    shop: Shop
    server: Server
    port: int
    stop: asyncio.Event
    stopped: asyncio.Task[None]
    channel: grpc.aio.Channel

    @property
    def router(self) -> Any:
        return router_pb2_grpc.RouterServiceStub(self.channel)

    @property
    def scaler(self) -> Any:
        return scaler_pb2_grpc.ScalerServiceStub(self.channel)

    @property
    def cache(self) -> Any:
        return cache_pb2_grpc.CacheServiceStub(self.channel)

    async def complete(self, route: str = "r", **options: Any) -> str:
        options.setdefault("metadata", KEY)
        options.setdefault("timeout", 10)
        request = router_pb2.CompleteRequest(route=route)
        return str((await self.router.Complete(request, **options)).text)


@asynccontextmanager
async def serving(
    *,
    keys: Path | None = None,
    tracing: Tracing | None = None,
    ca: bytes | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Runs the server for the length of the block."""
    settings = ServerSettings(keys_file=keys, **changes)
    server = Server(settings, Keyring.load(keys), tracing or Tracing("shop"))
    shop = Shop()
    server.add(router_pb2_grpc.add_RouterServiceServicer_to_server, _All(shop))
    server.add(scaler_pb2_grpc.add_ScalerServiceServicer_to_server, _All(shop))
    server.add(cache_pb2_grpc.add_CacheServiceServicer_to_server, _All(shop))
    port = await server.start()
    stop = asyncio.Event()
    stopped = asyncio.create_task(server.serve_until_stopped(stop))
    address = f"localhost:{port}"
    channel = (
        grpc.aio.insecure_channel(address)
        if ca is None
        else grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca))
    )
    try:
        async with channel:
            yield Running(shop, server, port, stop, stopped, channel)
    finally:
        stop.set()
        await asyncio.wait_for(stopped, 10)


class _All:
    """The shop's calls, and for every other name one that is never made."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shop, name, _never)


async def _never(request: Any, context: Any) -> Any:
    raise AssertionError("no test calls this")
