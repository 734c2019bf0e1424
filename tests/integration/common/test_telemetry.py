"""Traces over OTLP, with a real collector at the other end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.common.errors import NotFound
from services.common.telemetry import Tracing
from tests.integration.common.serving import KEY, serving

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    port: int = 0
    spans: list[Any] = field(default_factory=list)

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


async def test_a_call_is_traced_under_the_callers_span() -> None:
    async with collecting() as collector:
        tracing = Tracing("shop", f"http://127.0.0.1:{collector.port}")
        sent: list[str] = []

        async def remember() -> None:
            sent.append(tracing.traceparent())

        async with serving(tracing=tracing) as running:
            running.shop.do = remember
            await running.complete(metadata=(*KEY, ("traceparent", PARENT)))
        await asyncio.to_thread(tracing.close)  # sends what is left, to a server of this loop
        (span,) = collector.spans
    assert span.name == "/pennyweight.router.v1.RouterService/Complete"
    assert span.trace_id.hex() == PARENT.split("-")[1]
    assert span.parent_span_id.hex() == PARENT.split("-")[2]
    assert sent == [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("no MARKER", reason="MARKER"), "NOT_FOUND"), (ValueError("MARKER"), "INTERNAL")],
    ids=["service error", "unexpected error"],
)
async def test_of_an_error_a_span_has_the_codes_name_alone(error: Exception, code: str) -> None:
    async with collecting() as collector:
        tracing = Tracing("shop", f"http://127.0.0.1:{collector.port}")

        async def fail() -> None:
            raise error

        async with serving(tracing=tracing) as running:
            running.shop.do = fail
            with pytest.raises(grpc.aio.AioRpcError):
                await running.complete()
        await asyncio.to_thread(tracing.close)
        (span,) = collector.spans
    assert span.status.message == code
    assert not span.events
    assert b"MARKER" not in span.SerializeToString()
