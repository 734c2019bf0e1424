"""The cache as its tests drive it: a servicer behind real gRPC, and one stream to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1.cache_pb2_grpc import CacheServiceStub
from services.cache.__main__ import build
from services.cache.config import CacheSettings
from services.cache.ports import Store, StoreCounts
from services.cache.servicer import CacheService, add_to_server
from services.cache.stores.memory import MemoryStore
from services.common.credentials import Keyring
from services.common.server import Server
from services.common.telemetry import Tracing

HASH_KEY = b"sixteen bytes or more"
METADATA = (("authorization", "Bearer pennyweight-development"), ("pennyweight-tenant", "acme"))


@dataclass
class Cache:
    """A servicer behind a real gRPC server."""

    service: CacheService
    stub: CacheServiceStub
    registry: CollectorRegistry
    counts: Callable[[], StoreCounts]
    address: str

    @property
    def waiters(self) -> int:
        return self.counts().waiters

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pennyweight_cache_{name}", labels)

    async def lookup(self, request: pb.LookupRequest, tenant: str = "acme") -> pb.LookupResponse:
        return await self.stub.Lookup(request, metadata=metadata(tenant), timeout=10)

    async def store(self, request: pb.StoreRequest, tenant: str = "acme") -> bool:
        response = await self.stub.Store(request, metadata=metadata(tenant), timeout=10)
        return response.stored

    async def abandon(self, request: pb.AbandonRequest, tenant: str = "acme") -> bool:
        response = await self.stub.Abandon(request, metadata=metadata(tenant), timeout=10)
        return response.awaited

    async def stats(self) -> pb.GetStatsResponse:
        return await self.stub.GetStats(pb.GetStatsRequest(), metadata=METADATA, timeout=10)


def metadata(tenant: str) -> tuple[tuple[str, str], ...]:
    return (METADATA[0], ("pennyweight-tenant", tenant))


@asynccontextmanager
async def cache_over(
    store: Store, *, keyring: Keyring | None = None, **settings
) -> AsyncIterator[Cache]:
    chosen = CacheSettings(listen="127.0.0.1:0", **settings)
    registry, tracing = CollectorRegistry(), Tracing("cache")
    service = build(chosen, store, HASH_KEY, registry, tracing)
    server = Server(chosen, keyring or Keyring.load(None), tracing)
    server.add(add_to_server, service)
    port = await server.start()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            yield Cache(service, CacheServiceStub(channel), registry, store.counts, address)
        finally:
            await server.grpc.stop(0)


def memory_store(**changes) -> MemoryStore:
    limits = {"max_bytes": 2**20, "max_entries": 100, "lease_seconds": 30.0, "max_waiters": 100}
    return MemoryStore(asyncio.get_running_loop(), **(limits | changes))


class Exchange:
    """One Exchange stream, from the caller's side."""

    def __init__(self, cache: Cache, tenant: str = "acme") -> None:
        self.call = cache.stub.Exchange(metadata=METADATA)
        self.tenant = tenant
        self._number = 0
        self._results: dict[int, asyncio.Future[pb.OperationResult]] = {}
        self.responses = 0
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            async for response in self.call:
                self.responses += 1
                for result in response.results:
                    self._results.pop(result.id).set_result(result)

    def operation(self, **operation) -> pb.Operation:
        self._number += 1
        return pb.Operation(**({"id": self._number, "tenant": self.tenant} | operation))

    async def send(self, *operations: pb.Operation) -> list[asyncio.Future[pb.OperationResult]]:
        loop = asyncio.get_running_loop()
        futures = [self._results.setdefault(op.id, loop.create_future()) for op in operations]
        await self.call.write(pb.ExchangeRequest(operations=operations))
        return futures

    async def run(self, **operation) -> pb.OperationResult:
        (future,) = await self.send(self.operation(**operation))
        return await asyncio.wait_for(future, 10)

    async def ended(self) -> None:
        """Returns when the other side has ended the stream."""
        await asyncio.wait_for(self._reader, 10)
        assert await self.call.code() is grpc.StatusCode.OK

    async def close(self) -> None:
        await self.call.done_writing()
        await self.ended()


async def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; fails after five seconds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
