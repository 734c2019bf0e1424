"""Speaks to the API server of a Kubernetes cluster, by lightkube; each call has a deadline.

Whatever goes wrong comes as a `ClusterFault` of a named kind. Leaves to the callers what follows
from that, and when to try again.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.types import PatchType

from services.scaler.policy.lease import DURATION_SECONDS, Record
from services.scaler.pools.places import WorkloadKind
from services.scaler.targets.kubernetes import objects
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault, fault_of

CALL_SECONDS = 5.0
CONNECT_SECONDS = 3.0
PAGE = 500
MOST_OBJECTS = 20_000
"""Of one kind that are taken; more are a fault, as memory is bounded."""
MANAGER = "pennyweight-scaler"

LeaderWorkerSet = create_namespaced_resource(
    "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """Objects to list and to watch.

    Attributes:
        resource: the class of their kind in lightkube.
        read: reads one.
        namespace: where they are; None: they are in none.
        labels: that they have.
        fields: that they have.
    """

    resource: Any
    read: Callable[[Any], T]
    namespace: str | None = None
    labels: Mapping[str, str] | None = None
    fields: Mapping[str, str] | None = None


def workloads(kind: WorkloadKind, namespace: str, name: str) -> Kind[objects.Workload]:
    """The one workload of this name."""
    resource, read = _WORKLOADS[kind]
    return Kind(resource, read, namespace, fields={"metadata.name": name})


def pods(namespace: str, labels: Mapping[str, str]) -> Kind[Any]:
    """Pods with these labels."""
    return Kind(Pod, objects.pod, namespace, labels)


def slices(namespace: str, service: str) -> Kind[objects.Endpoints]:
    """The EndpointSlices of a Service."""
    labels = {"kubernetes.io/service-name": service}
    return Kind(EndpointSlice, objects.endpoints, namespace, labels)


def nodes() -> Kind[objects.Node]:
    """All nodes."""
    return Kind(Node, objects.node)


_WORKLOADS: Mapping[WorkloadKind, tuple[Any, Callable[[Any], objects.Workload]]] = {
    WorkloadKind.DEPLOYMENT: (Deployment, objects.deployment),
    WorkloadKind.LEADER_WORKER_SET: (LeaderWorkerSet, objects.leader_worker_set),
}


class KubernetesClient:
    """One API server."""

    def __init__(self, client: AsyncClient, *, call_seconds: float = CALL_SECONDS) -> None:
        """`client` is lightkube's; it is closed with this one."""
        self._client = client
        self._call_seconds = call_seconds

    @classmethod
    def open(cls, kubeconfig: Path | None) -> "KubernetesClient":
        """A client by a kubeconfig; None: by the service account of the pod we run in.

        Raises:
            ClusterFault: neither can be used.
        """
        try:
            config = (
                KubeConfig.from_service_account()
                if kubeconfig is None
                else KubeConfig.from_file(kubeconfig)
            ).get()
            timeout = httpx2.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS)
            # Proxies of the environment are for the outside, and the API server is not.
            client = AsyncClient(config, timeout=timeout, field_manager=MANAGER, trust_env=False)
        except Exception as error:  # of many kinds: a file that anybody may write
            how = "a pod's service account" if kubeconfig is None else str(kubeconfig)
            why = f"{type(error).__name__}: {error}"
            raise ClusterFault(
                Fault.FORBIDDEN, f"the API server cannot be called by {how}: {why}"
            ) from error
        return cls(client)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()

    async def list(self, kind: Kind[T]) -> tuple[list[T], str]:
        """All objects of a kind, and the version to watch from.

        Raises:
            ClusterFault: they cannot be had.
        """

        async def pages() -> tuple[list[T], str]:
            found = self._client.list(
                kind.resource,
                namespace=kind.namespace,
                chunk_size=PAGE,
                labels=dict(kind.labels) if kind.labels else None,
                fields=dict(kind.fields) if kind.fields else None,
            )
            items: list[T] = []
            async for one in found:
                items.append(kind.read(one))
                if len(items) > MOST_OBJECTS:
                    raise ClusterFault(Fault.REFUSED, f"more than {MOST_OBJECTS} objects are many")
            return items, found.resourceVersion

        return await self._call(pages(), f"list {_name(kind)}")

    async def watch(
        self, kind: Kind[T], version: str, seconds: float
    ) -> AsyncGenerator[tuple[str, T], None]:
        """Changes from a version on: ADDED, MODIFIED or DELETED, with the object.

        Ends after so many seconds: then who watches lists anew, as a stream on which nothing comes
        may be one on which nothing can come.

        Raises:
            ClusterFault: the stream broke, or there is none.
        """
        changes: Any = self._client.watch(
            kind.resource,
            namespace=kind.namespace,
            labels=dict(kind.labels) if kind.labels else None,
            fields=dict(kind.fields) if kind.fields else None,
            server_timeout=int(seconds) + 1,
            resource_version=version,
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with aclosing(changes) as stream:
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        event, found = await anext(stream)
                        change = event, kind.read(found)
                except (TimeoutError, StopAsyncIteration):
                    return
                except Exception as error:
                    raise fault_of(error, f"watch {_name(kind)}") from error
                yield change

    async def scale(
        self, kind: WorkloadKind, namespace: str, name: str, replicas: int, version: str
    ) -> str:
        """Sets the number of replicas of a workload that is as it was seen; its new version.

        Raises:
            ClusterFault: it is not set, or it is not known whether it is.
        """
        resource: Any = _WORKLOADS[kind][0].Scale
        wanted = resource(
            metadata=ObjectMeta(name=name, namespace=namespace, resourceVersion=version or None),
            spec=ScaleSpec(replicas=replicas),
        )
        call = self._client.replace(wanted, name, namespace=namespace)
        done: Any = await self._call(call, f"scale {kind} {namespace}/{name}")
        return (done.metadata and done.metadata.resourceVersion) or ""

    async def set_cost(self, namespace: str, pod: str, cost: int) -> None:
        """Sets a pod's deletion cost.

        Raises:
            ClusterFault: it is not set.
        """
        patch = {"metadata": {"annotations": {objects.COST: str(cost)}}}
        call = self._client.patch(Pod, pod, patch, namespace=namespace, patch_type=PatchType.MERGE)
        await self._call(call, f"annotate pod {namespace}/{pod}")

    async def delete_pod(self, namespace: str, pod: str) -> None:
        """Deletes a pod, with the grace it asks for.

        Raises:
            ClusterFault: it is not deleted.
        """
        call = self._client.delete(Pod, pod, namespace=namespace)
        await self._call(call, f"delete pod {namespace}/{pod}")

    async def lease(self, namespace: str, name: str) -> Record | None:
        """What a Lease says; None: there is none.

        Raises:
            ClusterFault: it cannot be read.
        """
        call = self._client.get(Lease, name, namespace=namespace)
        try:
            return _record(await self._call(call, f"get lease {namespace}/{name}"))
        except ClusterFault as error:
            if error.fault is Fault.MISSING:
                return None
            raise

    async def write_lease(
        self, namespace: str, name: str, record: Record, now: dt.datetime, *, new: bool
    ) -> Record:
        """Writes a Lease as it was seen (`record.version`), or a new one; what it says then.

        Raises:
            ClusterFault: it is not written; CONFLICT: another was quicker.
        """
        spec = LeaseSpec(
            holderIdentity=record.holder,
            leaseDurationSeconds=DURATION_SECONDS,
            renewTime=now.replace(microsecond=now.microsecond or 1),  # never without a fraction
            leaseTransitions=record.transitions,
        )
        version = None if new else record.version or None
        meta = ObjectMeta(name=name, namespace=namespace, resourceVersion=version)
        client: Any = self._client  # whose types take no Lease
        write = client.create if new else client.replace
        call = write(Lease(metadata=meta, spec=spec), namespace=namespace)
        return _record(await self._call(call, f"write lease {namespace}/{name}"))

    async def _call(self, call: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await call
        except ClusterFault:
            raise
        except Exception as error:
            raise fault_of(error, what) from error


def _name(kind: Kind[Any]) -> str:
    return f"{kind.resource.__name__} in {kind.namespace}" if kind.namespace else "nodes"


def _record(lease: Any) -> Record:
    spec = lease.spec or LeaseSpec()
    return Record(
        holder=spec.holderIdentity or "",
        duration_seconds=float(spec.leaseDurationSeconds or DURATION_SECONDS),
        renewed=str(spec.renewTime),
        transitions=spec.leaseTransitions or 0,
        version=lease.metadata.resourceVersion or "",
    )
