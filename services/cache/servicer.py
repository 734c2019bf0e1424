"""CacheService on the wire: who may call, and how calls and streams reach the operations."""

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import grpc

from pennyweight.cache.v1 import cache_pb2 as pb
from pennyweight.cache.v1 import cache_pb2_grpc
from services.cache.exchange import Stream
from services.cache.operations import Operations
from services.cache.policy import MAX_WAIT_SECONDS
from services.common.credentials import Role, current_identity
from services.common.telemetry import Tracing

Context = Any
"""A grpc.aio.ServicerContext; the class takes type parameters only in the type stubs."""


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """All calls need a service key; the tenant is the one the caller acts for."""

    def __init__(self, operations: Operations, tracing: Tracing, max_unanswered: int) -> None:
        """`max_unanswered` bounds the operations of one Exchange stream."""
        self._operations = operations
        self._tracing = tracing
        self._max_unanswered = max_unanswered
        self._streams: set[Stream] = set()

    async def Lookup(self, request: pb.LookupRequest, context: Context) -> pb.LookupResponse:
        """See cache.proto."""
        response = pb.LookupResponse()
        await self._run("lookup", request, response)
        return response

    async def Store(self, request: pb.StoreRequest, context: Context) -> pb.StoreResponse:
        """See cache.proto."""
        response = pb.StoreResponse()
        await self._run("store", request, response)
        return response

    async def Abandon(self, request: pb.AbandonRequest, context: Context) -> pb.AbandonResponse:
        """See cache.proto."""
        response = pb.AbandonResponse()
        await self._run("abandon", request, response)
        return response

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Context
    ) -> AsyncIterator[pb.ExchangeResponse]:
        """See cache.proto."""
        _tenant()
        stream = Stream(self._operations, self._tracing, self._max_unanswered)
        self._streams.add(stream)
        if self._operations.draining:
            stream.end()
        self._operations.counts.streams += 1
        context.add_done_callback(lambda _: self._close(stream))
        async for response in stream.responses(request_iterator):
            yield response

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """See cache.proto."""
        _tenant()
        counts, store = self._operations.counts, self._operations.store.counts()
        return pb.GetStatsResponse(
            lookups=counts.lookups.total(),
            hits=counts.lookups["hit"],
            shared=counts.lookups["shared"],
            stores=counts.stores["stored"],
            leases=counts.lookups["leased"],
            leases_expired=store.leases_expired,
            store_errors=counts.store_errors,
            entries=store.entries,
            store=self._operations.store.kind,
        )

    def drain(self) -> None:
        """Lets everybody who waits go and ends the streams, once what they asked is answered."""
        self._operations.draining = True
        self._operations.store.dismiss_waiters()
        for stream in self._streams:
            stream.end()

    async def _run(self, name: str, request: Any, response: Any) -> None:
        started, operation = perf_counter(), self._operations.named[name]
        result = self._operations.start(operation, _tenant(), request, MAX_WAIT_SECONDS)
        if isinstance(result, Future):
            result = await self._settled(result)
        self._operations.finish(operation, result, response, perf_counter() - started)

    async def _settled(self, pending: Future[Any]) -> Any:
        try:
            return await pending
        except asyncio.CancelledError:
            # The caller is gone; a lease that came in the same moment must not go with it.
            pending.add_done_callback(self._operations.give_back)
            raise

    def _close(self, stream: Stream) -> None:
        if stream in self._streams:
            self._streams.discard(stream)
            self._operations.counts.streams -= 1
        stream.close()


def _tenant() -> str:
    """The tenant of the running call.

    Raises:
        Forbidden: the caller is not one of our services.
    """
    identity = current_identity()
    identity.require(Role.SERVICE)
    return identity.tenant


def add_to_server(service: CacheService, server: grpc.aio.Server) -> None:
    """Registers the servicer."""
    cache_pb2_grpc.add_CacheServiceServicer_to_server(service, server)
