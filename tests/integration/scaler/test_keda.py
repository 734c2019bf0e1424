"""KEDA's protocol over real gRPC, with a client that follows KEDA's own loop."""

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
async def served(servicer):
    server = grpc.aio.server()
    add_ExternalScalerServicer_to_server(servicer, Keyless(server, keda.MOST_CALLS))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    servicer.close()
    await server.stop(0.1)


@asynccontextmanager
async def serving():
    wishes, failed = SaidWishes(), []
    servicer = ExternalScaler(wishes, failed=lambda: failed.append(1))
    async with served(servicer) as address, grpc.aio.insecure_channel(address) as channel:
        yield wishes, channel, servicer, failed


def streams_of(channel):
    stub = ExternalScalerStub(channel)
    return stub.StreamIsActive, stub.StreamMetricSpec


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


async def test_for_one_stream_more_the_connection_with_most_lets_its_oldest_go(monkeypatch):
    monkeypatch.setattr(keda, "MOST_STREAMS", 4)
    wishes = SaidWishes()
    wishes.put("a", 1)
    servicer = ExternalScaler(wishes)
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        served(servicer) as address,
        grpc.aio.insecure_channel(address, options=apart) as kedas,
        grpc.aio.insecure_channel(address, options=apart) as strangers,
    ):
        own = [aiter(open_(REF)) for open_ in streams_of(kedas)]
        for stream in own:
            await anext(stream)
        held = []
        for n in range(5):
            held.append(aiter(streams_of(strangers)[n % 2](REF)))
            await anext(held[n])
        for oldest in held[:3]:
            with pytest.raises(grpc.aio.AioRpcError, match="made room") as told:
                await anext(oldest)
            assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wishes.put("a", 0)
        for stream in (own[0], held[4]):
            assert not (await anext(stream)).result, "these go on"
        servicer.close()
        for stream in (*own, *held[3:]):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
