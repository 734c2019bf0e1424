"""A cluster for one Deployment: its API server, what makes its pods, and KEDA.

The API server is kmock's. A pod is a real Triton on a loopback address of its own, ready once its
model is, and ended as its node would end it. KEDA asks and is told by its protocol over gRPC and
sets the number of replicas as it does: see `tests.making.keda`. Intervals are shorter than KEDA's
usual ones, which are 30 s for polling and 300 s for the cooldown.
"""

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench import report
from bench.stack import REPOSITORY, Stack, free_port
from externalscaler import externalscaler_pb2 as keda_pb
from services.scaler.targets.model_view import prepare_view
from services.scaler.targets.runtime import TritonRuntime, find_runtime
from services.scaler.targets.tritonserver import ReplicaLaunch, command, remove_shared_memory
from tests.making.keda import Keda
from tests.making.kubernetes import NAMESPACE, Api, api_server

POLLING_SECONDS = 2.0
COOLDOWN_SECONDS = 2.0
LOOK_SECONDS = 0.1
PROBE_SECONDS = 0.5
AGAIN_SECONDS = 0.5


class KedaCluster:
    """See the module.

    Attributes:
        place: where the pool is, as a scaling file says it.
        kubeconfig: by which the API server is reached.
        fell_back: how often KEDA took its fallback, as it had no answer.
    """

    def __init__(self, stack: Stack, api: Api, runtime: TritonRuntime, model: str) -> None:
        """It has no Deployment yet."""
        self._stack = stack
        self._api = api
        self._runtime = runtime
        self._model = model
        self._ports = free_port(), free_port()
        self._pods: dict[str, asyncio.Task[None]] = {}
        self.fell_back = 0
        self.kubeconfig = api.kubeconfig(stack.folder)
        self.place = {
            "namespace": NAMESPACE,
            "name": model,
            "port": self._ports[0],
            "metrics_port": self._ports[1],
            "actuator": "keda",
            "taints": [],
        }

    @classmethod
    @asynccontextmanager
    async def open(
        cls, stack: Stack, scaler: str, *, pool: str, model: str
    ) -> AsyncIterator["KedaCluster"]:
        """One with a replica of the model, that asks the external scaler at this address."""
        async with AsyncExitStack() as exits:
            api = await exits.enter_async_context(api_server())
            cluster = cls(stack, api, find_runtime(stack.folder), model)
            await api.create(model, 1)
            channel = await exits.enter_async_context(grpc.aio.insecure_channel(scaler))
            ref = keda_pb.ScaledObjectRef(name=model, scalerMetadata={"pool": pool})
            keda = Keda(channel, ref, replicas=1, max_replicas=2, cooldown_seconds=COOLDOWN_SECONDS)
            work = (cluster._kubelet(), cluster._poll(keda), cluster._hear(keda))
            tasks = [asyncio.create_task(one) for one in work]
            try:
                yield cluster
            finally:
                tasks += cluster._pods.values()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    # KEDA.

    async def _poll(self, keda: Keda) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(POLLING_SECONDS)
            now = time.monotonic()
            failures = keda.failures
            await keda.poll(now - last)
            last = now
            self.fell_back += keda.failures > max(failures, keda.failure_threshold - 1)
            await self._scale(keda)

    async def _hear(self, keda: Keda) -> None:
        """Acts on what is pushed; a stream that breaks is opened anew."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for said in keda.stub.StreamIsActive(keda.ref):
                    keda.pushed(active=said.result)
                    await self._scale(keda)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _scale(self, keda: Keda) -> None:
        """Sets the replicas, and lets the Deployment's controller follow."""
        if self._api.replicas(self._model) != keda.replicas:
            report.say(f"  KEDA sets {keda.replicas} replicas")
            await self._api.set_replicas(self._model, keda.replicas)
            await self._api.settle(self._model)

    # The node.

    async def _kubelet(self) -> None:
        """Runs the pods that there are."""
        while True:
            there = set(self._api.pods())
            for pod in there - self._pods.keys():
                self._pods[pod] = asyncio.create_task(self._run(pod))
            for pod in self._pods.keys() - there:
                self._pods.pop(pod).cancel()
            await asyncio.sleep(LOOK_SECONDS)

    async def _run(self, pod: str) -> None:
        """One pod, until it is cancelled."""
        created = _stamp()
        host = f"127.0.0.{10 + int(pod.rpartition('-')[2])}"
        launch = ReplicaLaunch(
            replica_id=f"bench-{os.getpid()}-{pod}",
            model=self._model,
            repository=REPOSITORY,
            host=host,
            grpc_port=self._ports[0],
            metrics_port=self._ports[1],
        )
        view = prepare_view(launch, self._stack.folder / f"view-{pod}")
        argv, environment = command(self._runtime, launch, view, os.environ)
        self._stack.start(pod, argv, environment)
        try:
            await self._show(pod, host, created)
            async with grpc.aio.insecure_channel(f"{host}:{self._ports[0]}") as channel:
                await self._is_ready(service_pb2_grpc.GRPCInferenceServiceStub(channel))
            await self._show(pod, host, created, since=_stamp())
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(asyncio.to_thread(self._stack.processes.pop(pod).end))
            remove_shared_memory(launch.replica_id)

    async def _is_ready(self, triton: Any) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                asked = service_pb2.ModelReadyRequest(name=self._model)
                if (await triton.ModelReady(asked, timeout=1)).ready:
                    return
            await asyncio.sleep(PROBE_SECONDS)

    async def _show(self, pod: str, host: str, created: str, *, since: str = "") -> None:
        condition = {
            "type": "Ready",
            "status": "True" if since else "False",
            "lastTransitionTime": since or created,
        }
        await self._api.change_pod(
            pod,
            {
                "metadata": {"creationTimestamp": created},
                "spec": {"nodeName": "node-1", "containers": []},
                "status": {"podIP": host, "conditions": [condition]},
            },
        )


def _stamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
