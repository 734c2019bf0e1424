"""A whole scaler whose pools are on Kubernetes and with others, and that speaks to KEDA."""

import asyncio
import socket

import grpc
import pytest
import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from externalscaler import externalscaler_pb2
from externalscaler.externalscaler_pb2_grpc import ExternalScalerStub
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1.scaler_pb2_grpc import ScalerServiceStub
from services.common.config import ConfigError
from services.scaler.__main__ import serve
from services.scaler.config import ScalerSettings
from tests.integration.scaler.harness import KEY
from tests.making.keda import Keda
from tests.making.kubernetes import NAMESPACE, api_server


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server that somebody else runs, ready at all times."""

    async def ServerReady(self, _request, _context):
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, _request, _context):
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request, _context):
        return service_pb2.ModelMetadataResponse(name=request.name)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def test_an_address_for_keda_that_is_taken_stops_the_start(tmp_path):
    pools = {"p": {"tier": "t", "model": "m", "precision": "x", "external": {"dns": "localhost:1"}}}
    scaling = tmp_path / "scaling.yaml"
    scaling.write_text(yaml.safe_dump({"pools": pools}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = ScalerSettings(
            listen="127.0.0.1:0",
            scaling_file=scaling,
            state_folder=tmp_path / "state",
            keda_listen=f"127.0.0.1:{taken.getsockname()[1]}",
        )
        with pytest.raises(ConfigError, match="listen address"):
            await serve(settings, {}, asyncio.Event())


async def test_a_scaler_without_slots(tmp_path):
    triton = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Triton(), triton)
    address = f"127.0.0.1:{triton.add_insecure_port('127.0.0.1:0')}"
    await triton.start()
    common = {"tier": "small", "model": "m", "precision": "int8"}
    workload = {"namespace": NAMESPACE, "name": "small", "taints": []}
    pools = {
        "theirs": {**common, "external": {"addresses": [address]}},
        "ours": {**common, "kubernetes": workload, "size": 3},
    }
    scaling, keda_port = tmp_path / "scaling.yaml", free_port()
    scaling.write_text(yaml.safe_dump({"pools": pools}))
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with api_server() as api:
        await api.deploy("small", 2)
        settings = ScalerSettings(
            listen="127.0.0.1:0",
            scaling_file=scaling,
            state_folder=tmp_path / "state",
            kubeconfig=api.kubeconfig(tmp_path),
            lease=f"{NAMESPACE}/scaler",
            keda_listen=f"127.0.0.1:{keda_port}",
            drain_seconds=0.1,
        )
        running = asyncio.create_task(serve(settings, {}, stop, started.set_result))
        async with (
            asyncio.timeout(30),
            grpc.aio.insecure_channel(f"127.0.0.1:{await started}") as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{keda_port}") as keda_channel,
        ):
            stub = ScalerServiceStub(channel)
            stream = stub.WatchReplicas(pb.WatchReplicasRequest(), metadata=KEY)
            first = await anext(aiter(stream))
            assert first.full
            assert sorted((one.pool, one.state) for one in first.replicas) == [
                ("ours", pb.REPLICA_STATE_READY),
                ("ours", pb.REPLICA_STATE_READY),
                ("theirs", pb.REPLICA_STATE_READY),
            ]
            while api.replicas("small") != 3:
                await asyncio.sleep(0.01)
            for pool, size in (("ours", 3), ("theirs", 1)):
                ref = externalscaler_pb2.ScaledObjectRef(scalerMetadata={"pool": pool})
                await ExternalScalerStub(keda_channel).IsActive(ref, wait_for_ready=True)
                assert await Keda(keda_channel, ref, replicas=1).poll() == size
            stop.set()
            await running
        assert api.replicas("small") == 3
    await triton.stop(0)
