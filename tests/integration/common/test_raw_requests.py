"""A request of any bytes ends no server."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common import server
from tests.integration.common.raw_http2 import DATA, PING, answer, frame, request
from tests.integration.common.serving import ROUTER, serving

COMPLETE = f"/{ROUTER}/Complete".encode()
BYTES = bytes(range(0x80, 0x100))


@pytest.mark.parametrize(
    "sent",
    [
        request(path=b"/t.T/\xdbU"),
        request(path=BYTES),
        request(path=b"/\xff"),
        request(path=COMPLETE + b"\xc3"),
        request(path=b""),
        request(path=b"*"),
        request(path=b"/" + b"a" * 8000),
        request(path=b"/t.T/\x00\x01\x7f"),
        request(path=b"/t.T/%s%d%(x)s{}"),
        request(authority=BYTES, path=COMPLETE),
        request((b"host", BYTES), path=COMPLETE),
        request((b"authorization", BYTES), path=COMPLETE),
        request((b"pennyweight-tenant", BYTES), path=COMPLETE),
        request((b"traceparent", BYTES), path=COMPLETE),
        request((b"user-agent", BYTES), path=COMPLETE),
        request((b"x-" + BYTES, b"x"), path=COMPLETE),
        request((b"X-Upper", b"x"), path=COMPLETE),
        request((b"x-bin", b"\xff\xfe not base64"), path=COMPLETE),
        request((b"grpc-trace-bin", b"\xff"), path=COMPLETE),
        request((b"grpc-tags-bin", b"\xff"), path=COMPLETE),
        request((b"grpc-timeout", BYTES), path=COMPLETE),
        request((b"grpc-timeout", b"99999999999999999999H"), path=COMPLETE),
        request((b"grpc-timeout", b"-1S"), path=COMPLETE),
        request((b"grpc-timeout", b"0n"), path=COMPLETE),
        request((b"grpc-encoding", BYTES), path=COMPLETE),
        request((b"grpc-encoding", b"gzip"), path=COMPLETE, message=b"\x01\x00\x00\x00\x02no"),
        request((b"grpc-accept-encoding", BYTES), path=COMPLETE),
        request((b"grpc-previous-rpc-attempts", BYTES), path=COMPLETE),
        request((b"content-type", BYTES), path=COMPLETE),
        request((b":path", BYTES), path=COMPLETE),
        request((b"grpc-internal-encoding-request", BYTES), path=COMPLETE),
        request((b"lb-cost-bin", BYTES), path=COMPLETE),
        request(path=COMPLETE, message=b"\x00\xff\xff\xff\xff"),
        request(path=COMPLETE, message=b"\x00\x00\x00\x00\x02\xff\xff"),
        request(path=b"/grpc.health.v1.Health/Check", message=b"\x00\x00\x00\x00\x03\x0a\x01\xff"),
    ],
)
async def test_a_request_of_wrong_bytes_ends_no_server(sent: bytes) -> None:
    async with serving() as running:
        await answer(running.port, sent)
        health = health_pb2_grpc.HealthStub(running.channel)
        found = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert found.status == health_pb2.HealthCheckResponse.SERVING
        assert await running.complete("still") == "still"
        assert not running.stopped.done()


async def test_pings_on_an_idle_stream_are_suffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as our setting says; by gRPC's own, two in five minutes are too many."""
    monkeypatch.setattr(server, "MIN_PING_INTERVAL_MS", 0)
    async with serving() as running:
        watch = request(path=b"/grpc.health.v1.Health/Watch")
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        kinds: list[int] = []
        async with asyncio.timeout(10):
            writer.write(watch)
            while await _kind(reader) != DATA:
                pass
            for n in range(10):
                writer.write(frame(PING, 0, 0, n.to_bytes(8, "big")))
                kinds.append(await _kind(reader))
        writer.close()
        assert kinds == [PING] * 10


async def _kind(reader: asyncio.StreamReader) -> int:
    """The kind of the next frame."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3]
