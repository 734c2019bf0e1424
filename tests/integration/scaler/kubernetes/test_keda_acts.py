"""KEDA as the actuator: the fleet decides, KEDA sets the replicas, the cluster has the pods."""

import asyncio

import grpc
from prometheus_client import CollectorRegistry

from externalscaler import externalscaler_pb2 as pb
from externalscaler.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server
from services.common.keyless import Keyless
from services.scaler.config import Scaling
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.wishes import WishBoard
from services.scaler.keda import MOST_CALLS, ExternalScaler
from services.scaler.load.loads import Loads, Report
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import ReplicaState
from services.scaler.pools.places import Actuator, Kubernetes
from services.scaler.pools.pool import Pool
from services.scaler.targets.kubernetes.client import KubernetesClient
from services.scaler.targets.kubernetes.target import KubernetesTarget
from tests.making.keda import Keda
from tests.making.kubernetes import NAMESPACE
from tests.making.replicas import sizes


def scaling(size: int) -> Scaling:
    place = Kubernetes(namespace=NAMESPACE, name="small", taints=(), actuator=Actuator.KEDA)
    pool = Pool(tier="small", model="m", precision="int8", kubernetes=place, size=size)
    return Scaling(pools={"a": pool})


class Scene:
    """A fleet, KEDA and a cluster."""

    def __init__(self, api, fleet: Fleet, loads: Loads, loop: Keda) -> None:
        self.api = api
        self.fleet = fleet
        self.loads = loads
        self.loop = loop
        self.clock = asyncio.get_running_loop().time

    @property
    def ready(self) -> set[str]:
        """Pods that routers send requests to."""
        view = self.fleet.pools()[0]
        return {
            one.replica.id.rpartition("-uid")[0]
            for one in view.replicas
            if one.state is ReplicaState.READY
        }

    async def step(self, seconds: float) -> None:
        """One turn of routers, KEDA and the cluster's controllers."""
        view = self.fleet.pools()[0]
        self.loads.take(
            "router", Report({}, {one.replica.id: 0 for one in view.replicas}), self.clock()
        )
        before = self.ready
        await self.loop.poll(seconds)
        if self.api.replicas("small") != self.loop.replicas:
            gone = set(self.api.pods())
            await self.api.set_replicas("small", self.loop.replicas)
            await self.api.settle("small")
            gone -= set(self.api.pods())
            assert not gone & before & self.ready  # who serves is never the one that goes
        for pod in self.api.pods():
            await self.api.ready(pod)

    async def becomes(self, size: int, *, seconds: float = 5.0) -> None:
        """Wants a size, and waits until so many serve and no more pods are there."""
        self.fleet.configure(scaling(size))
        async with asyncio.timeout(10.0):
            while len(self.ready) != size or len(self.api.pods()) != size:
                await self.step(seconds)
                await asyncio.sleep(0.02)


async def test_one_two_one_none_and_one_again(api, tmp_path):
    await api.deploy("small", 1)
    path = api.kubeconfig(tmp_path)
    loads, metrics, board = Loads(), Metrics(CollectorRegistry()), WishBoard()
    first = scaling(1)
    target = KubernetesTarget(first.pools, lambda: KubernetesClient.open(path), metrics)
    fleet = Fleet(
        first,
        target,
        loads,
        metrics,
        sizes(first, loads),
        wishes=board,
        clock=asyncio.get_running_loop().time,
        decide_seconds=0.02,
    )
    servicer = ExternalScaler(board)
    server = grpc.aio.server()
    add_ExternalScalerServicer_to_server(servicer, Keyless(server, MOST_CALLS))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await fleet.adopt()
    running = asyncio.create_task(fleet.run())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ref = pb.ScaledObjectRef(name="small", scalerMetadata={"pool": "a"})
        loop = Keda(channel, ref, replicas=1, cooldown_seconds=30.0)
        scene = Scene(api, fleet, loads, loop)
        for size in (1, 2, 1, 0, 1):
            await scene.becomes(size)
    assert api.count("PUT", "/scale") == 0
    assert target.observe()["a"].by_hand is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    servicer.close()
    await server.stop(0.1)
    await target.close()
