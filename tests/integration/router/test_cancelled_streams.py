"""A stream that ends cancelled, as by a proxy on the way, is one that broke: it is made anew."""

import asyncio
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from pennyweight.cache.v1 import cache_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.common.channel import Peer
from services.common.telemetry import Tracing
from services.router.clients.cache import CacheStream
from services.router.clients.scaler import ScalerLink
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from tests.integration.router.world import PATIENCE, until


class Cancelling(scaler_pb2_grpc.ScalerServiceServicer, cache_pb2_grpc.CacheServiceServicer):
    """Cancels every call."""

    def __init__(self) -> None:
        self.calls = {"watch": 0, "report": 0, "cache": 0}

    async def WatchReplicas(self, request: Any, context: Any) -> None:  # noqa: N802
        await self._cancel("watch", context)

    async def ReportLoad(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        await self._cancel("report", context)

    async def Exchange(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        await self._cancel("cache", context)

    async def _cancel(self, what: str, context: Any) -> None:
        self.calls[what] += 1
        await context.abort(grpc.StatusCode.CANCELLED, "")


class _Fleet:
    def set_stale(self, *, stale: bool) -> None: ...

    def snapshot(self) -> list[Any]:
        return []


@pytest.mark.parametrize("what", ["watch", "report", "cache"])
async def test_a_stream_that_ends_cancelled_is_made_anew(what: str) -> None:
    server, service = grpc.aio.server(), Cancelling()
    scaler_pb2_grpc.add_ScalerServiceServicer_to_server(service, server)
    cache_pb2_grpc.add_CacheServiceServicer_to_server(service, server)
    peer = Peer(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    metrics, fleet = Metrics(CollectorRegistry()), _Fleet()
    link = ScalerLink(peer, fleet, LoadWindow(), metrics, router="router")  # type: ignore[arg-type]
    stream = CacheStream(peer, timeout_seconds=PATIENCE, metrics=metrics, tracing=Tracing("router"))
    work = {"watch": link.watch, "report": link.report, "cache": stream.run}[what]
    task = asyncio.create_task(work())
    await until(lambda: service.calls[what] > 1 or task.done())
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    await server.stop(None)


class Taking(scaler_pb2_grpc.ScalerServiceServicer):
    """Takes reports to their end."""

    def __init__(self) -> None:
        self.leaving: list[list[bool]] = []

    async def ReportLoad(self, request_iterator: Any, context: Any) -> pb.ReportLoadResponse:  # noqa: N802
        self.leaving.append([])
        async for request in request_iterator:
            self.leaving[-1].append(request.leaving)
        return pb.ReportLoadResponse()


async def test_a_router_that_ends_says_so_in_its_last_report_and_never_comes_back() -> None:
    server, service = grpc.aio.server(), Taking()
    scaler_pb2_grpc.add_ScalerServiceServicer_to_server(service, server)
    peer = Peer(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    metrics, fleet = Metrics(CollectorRegistry()), _Fleet()
    link = ScalerLink(peer, fleet, LoadWindow(), metrics, router="router")  # type: ignore[arg-type]
    task = asyncio.create_task(link.report())
    await until(lambda: bool(service.leaving and service.leaving[0]))
    await link.leave(PATIENCE)
    (reports,) = service.leaving
    assert (reports[-1], any(reports[:-1])) == (True, False)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await server.stop(None)


async def test_a_router_that_ends_does_not_wait_long_for_a_scaler_that_is_away() -> None:
    metrics, fleet = Metrics(CollectorRegistry()), _Fleet()
    peer = Peer("127.0.0.1:1")
    link = ScalerLink(peer, fleet, LoadWindow(), metrics, router="router")  # type: ignore[arg-type]
    task = asyncio.create_task(link.report())
    async with asyncio.timeout(PATIENCE):
        await link.leave(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
