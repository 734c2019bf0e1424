"""KEDA's protocol over real gRPC, with a client that follows KEDA's own loop."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from externalscaler import externalscaler_pb2 as pb
from externalscaler.externalscaler_pb2_grpc import (
    ExternalScalerStub,
    add_ExternalScalerServicer_to_server,
)
from services.common.keyless import Keyless
from services.scaler import keda
from services.scaler.keda import ExternalScaler
from tests.making.keda import Keda
from tests.making.wishes import SaidWishes

REF = pb.ScaledObjectRef(name="small", namespace="pw", scalerMetadata={"pool": "a"})


@asynccontextmanager
async def serving():
    wishes, failed = SaidWishes(), []
    servicer = ExternalScaler(wishes, failed=lambda: failed.append(1))
    server = grpc.aio.server()
    add_ExternalScalerServicer_to_server(servicer, Keyless(server, keda.MOST_CALLS))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield wishes, channel, servicer, failed
    servicer.close()
    await server.stop(0.1)


async def test_kedas_loop_follows_the_decision():
    async with serving() as (wishes, channel, _, _):
        loop = Keda(channel, REF, replicas=1)
        for size in (1, 2, 5, 3):
            wishes.put("a", size)
            assert await loop.poll() == size
        wishes.put("a", 1, active=False)  # the last one drains
        assert await loop.poll() == 1
        wishes.put("a", 0)
        assert await loop.poll() == 1  # the cooldown
        assert await loop.poll(300.0) == 0
        assert await loop.poll() == 0


async def test_a_push_wakes_at_once():
    async with serving() as (wishes, channel, _, _):
        wishes.put("a", 0)
        loop = Keda(channel, REF)
        stream = loop.stub.StreamIsActive(REF)
        pushed = await anext(aiter(stream))
        assert loop.pushed(active=pushed.result) == 0
        wishes.put("a", 2)
        pushed = await anext(aiter(stream))
        assert loop.pushed(active=pushed.result) == 1
        assert await loop.poll(0.0) == 2
        stream.cancel()


async def test_what_is_active_is_said_again(monkeypatch):
    monkeypatch.setattr(keda, "AGAIN_SECONDS", 0.01)
    async with serving() as (wishes, channel, _, _):
        wishes.put("a", 1)
        stream = ExternalScalerStub(channel).StreamIsActive(REF)
        for _ in range(3):
            assert (await anext(aiter(stream))).result
        stream.cancel()


async def test_without_data_the_specs_are_there_and_the_fallback_fires():
    async with serving() as (wishes, channel, _, failed):
        wishes.put("a", 2)
        loop = Keda(channel, REF, replicas=2)
        assert await loop.poll() == 2
        wishes.put("a", None)
        assert [await loop.poll() for _ in range(3)] == [2, 2, loop.fallback_replicas]
        assert failed == [1, 1, 1]
        wishes.put("a", 3)
        assert await loop.poll() == 3


async def test_a_pool_that_is_not_known_has_specs_too():
    async with serving() as (_, channel, _, failed):
        stub = ExternalScalerStub(channel)
        nobody = pb.ScaledObjectRef(name="nobody", namespace="pw")
        (spec,) = (await stub.GetMetricSpec(nobody)).metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (
            "pennyweight-nobody",
            1,
            1.0,
        )
        with pytest.raises(
            grpc.aio.AioRpcError, match="must be a pool of the scaling file"
        ) as told:
            await stub.IsActive(nobody)
        assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failed == [1]


async def test_specs_are_streamed_at_once_and_are_the_same():
    async with serving() as (_, channel, servicer, _):
        stub = ExternalScalerStub(channel)
        stream = aiter(stub.StreamMetricSpec(REF))
        assert await anext(stream) == await stub.GetMetricSpec(REF)
        servicer.close()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_streams_are_bounded(monkeypatch):
    monkeypatch.setattr(keda, "MOST_STREAMS", 2)
    async with serving() as (_, channel, _, _):
        stub = ExternalScalerStub(channel)
        streams = [stub.StreamMetricSpec(REF) for _ in range(2)]
        for stream in streams:
            await anext(aiter(stream))
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await anext(aiter(stub.StreamMetricSpec(REF)))
        assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        async with asyncio.timeout(5.0):
            while True:  # until the server has heard of it
                try:
                    await anext(aiter(stub.StreamMetricSpec(REF)))
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)
