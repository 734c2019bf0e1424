"""A Kubernetes API server for tests: kmock's, with versions, scale, leases and faults on top.

kmock lists, watches, creates, patches and deletes; its resource versions are always the same. Here
every change of a Deployment or a Lease has a version of its own, ``PUT`` checks it, and `settle`
does what the cluster's own controllers would do next.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kmock

NAMESPACE = "pw"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
NODES = "/api/v1/nodes"
COST = "controller.kubernetes.io/pod-deletion-cost"
LATE = "2026-11-29T02:00:{:02d}Z"


class Refusal(kmock.KubernetesError):
    """An answer of the API server that is none of what was asked for."""


class Api:
    """The server. `url` is where it listens."""

    def __init__(self, server: Any, port: Any) -> None:
        self.mock = server
        self.url = str(port.url).rstrip("/")
        self.faults: dict[str, list[Any]] = {}
        self._writing = asyncio.Lock()
        self._versions = itertools.count(2)
        self._made = itertools.count(1)
        for resource in (
            "apps/v1/deployments",
            "v1/pods",
            "v1/nodes",
            "discovery.k8s.io/v1/endpointslices",
            "coordination.k8s.io/v1/leases",
        ):
            server.resources[resource] = {}
        server[self._fails] << self._fail
        for path in (DEPLOYMENTS, LEASES):
            server[lambda request, path=path: self._is_put(request, path)] << self._put
        server[f"post {LEASES}"] << self._post

    def kubeconfig(self, folder: Path) -> Path:
        """A file by which it is reached."""
        path = folder / "kubeconfig"
        path.write_text(
            "current-context: a\n"
            "contexts: [{name: a, context: {cluster: a, user: a}}]\n"
            "users: [{name: a, user: {token: t}}]\n"
            "clusters:\n"
            f"- {{name: a, cluster: {{server: '{self.url}', insecure-skip-tls-verify: true}}}}\n"
        )
        return path

    def fail(self, what: str, *answers: Any) -> None:
        """Lets the next such calls fail; `what`: method and a part of the path.

        An answer is a `Refusal`, anything that kmock takes, or ``"hang"``.
        """
        self.faults.setdefault(what, []).extend(answers)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Method and path of each call so far that is none of the cluster's own."""
        return [(str(one.method.value), str(one.url.path)) for one in self.mock if not _is_own(one)]

    def count(self, method: str, part: str) -> int:
        """Calls so far with this method and part of the path."""
        return sum(one == method and part in path for one, path in self.calls)

    # Objects.

    async def deploy(self, name: str, replicas: int) -> None:
        """A Deployment, with its pods ready."""
        await self.create(name, replicas)
        for pod in self.pods():
            await self.ready(pod)

    async def create(self, name: str, replicas: int) -> None:
        """A Deployment, with pods that nobody runs yet."""
        await self.mock.post(
            DEPLOYMENTS,
            json={
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": "1"},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {},
                },
            },
        )
        await self.settle(name)

    def replicas(self, name: str) -> int:
        """What is asked of a Deployment."""
        return int(self._deployment(name)["spec"]["replicas"])

    async def set_replicas(self, name: str, replicas: int) -> None:
        """What ``kubectl scale`` does."""
        await self._change(f"{DEPLOYMENTS}/{name}", {"spec": {"replicas": replicas}})

    async def tell(self, name: str, condition: dict[str, str]) -> None:
        """What the Deployment's controller says of it."""
        await self._change(f"{DEPLOYMENTS}/{name}", {"status": {"conditions": [condition]}})

    def pods(self) -> list[str]:
        """Names of pods that are there, in order."""
        return sorted(name for name, _ in self._pods())

    def cost(self, pod: str) -> int:
        """A pod's deletion cost."""
        return int(dict(self._pods())[pod]["metadata"].get("annotations", {}).get(COST, 0))

    async def ready(self, pod: str, *, ready: bool = True) -> None:
        """Makes a pod say that it is ready, or that it is not."""
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": LATE.format(30),
        }
        number = int(pod.rpartition("-")[2])
        await self.change_pod(
            pod,
            {
                "spec": {"nodeName": "node-1", "containers": []},
                "status": {"podIP": f"10.0.0.{number}", "conditions": [condition]},
            },
        )

    async def change_pod(self, pod: str, change: dict[str, Any]) -> None:
        """Changes a pod as the cluster would."""
        await self.mock.patch(f"{PODS}/{pod}", json=change)

    async def delete_pod(self, pod: str) -> None:
        """A pod goes, whoever ends it."""
        await self.mock.delete(f"{PODS}/{pod}")

    async def settle(self, name: str) -> None:
        """The cluster's controllers make and delete pods until their number is right."""
        wanted = self.replicas(name)
        pods = self._pods()
        for pod, _ in sorted(pods, key=_first_to_go)[: max(len(pods) - wanted, 0)]:
            await self.delete_pod(pod)
        for _ in range(wanted - len(pods)):
            number = next(self._made)
            await self.mock.post(
                PODS,
                json={
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": f"{name}-{number}",
                        "namespace": NAMESPACE,
                        "uid": f"uid-{number:04d}",
                        "labels": {"app": name},
                        "creationTimestamp": LATE.format(number % 30),
                    },
                    "spec": {"containers": []},
                    "status": {"conditions": []},
                },
            )

    def _deployment(self, name: str) -> dict[str, Any]:
        found = self.mock.objects["apps/v1/deployments", NAMESPACE, name]
        return dict(found.raw)

    def _pods(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (key[2], one.raw)
            for key, one in self.mock.objects.items()
            if key[0].plural == "pods" and not one.deleted
        ]

    # Calls.

    def _fails(self, request: Any) -> bool:
        return not _is_own(request) and self._fault(request) is not None

    def _fault(self, request: Any) -> list[Any] | None:
        watching = request.url.query.get("watch") == "true"
        method = "WATCH" if watching else str(request.method.value)
        for what, answers in self.faults.items():
            wanted, part = what.split(" ")
            if answers and wanted == method and part in str(request.url.path):
                return answers
        return None

    async def _fail(self, request: Any) -> Any:
        answers = self._fault(request)
        assert answers
        answer = answers.pop(0)
        if answer == "hang":
            await asyncio.sleep(3600)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @staticmethod
    def _is_put(request: Any, path: str) -> bool:
        return bool(request.method.value == "PUT" and str(request.url.path).startswith(path))

    async def _put(self, request: Any) -> Any:
        """Replaces a Lease, or the scale of a Deployment, that is as the caller has seen it."""
        async with self._writing:  # of two who write at once one is late
            return await self._replace(request)

    async def _replace(self, request: Any) -> Any:
        path = str(request.url.path).removesuffix("/scale")
        async with await self.mock.get(path) as answer:
            found = await answer.json()
        given, data = request.data["metadata"].get("resourceVersion"), request.data
        if given != found["metadata"]["resourceVersion"] and (given or path.startswith(LEASES)):
            raise Refusal(status=409, reason="Conflict", message="the object has been modified")
        version = await self._change(path, {"spec": data["spec"]})
        return {**data, "metadata": {**data["metadata"], "resourceVersion": version}}

    async def _post(self, request: Any) -> Any:
        """A new Lease has a version too."""
        meta = request.data["metadata"]
        version = await self._change(f"{LEASES}/{meta['name']}", {})
        return {**request.data, "metadata": {**meta, "resourceVersion": version}}

    async def _change(self, path: str, change: dict[str, Any]) -> str:
        version = str(next(self._versions))
        await self.mock.patch(path, json={**change, "metadata": {"resourceVersion": version}})
        return version


def _is_own(request: Any) -> bool:
    """Whether the cluster itself asks."""
    return str(request.headers.get("User-Agent", "")).startswith("kmock")


def _first_to_go(named: tuple[str, dict[str, Any]]) -> tuple[bool, bool, int, str]:
    """As the ReplicaSet's controller has it."""
    _, pod = named
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    cost = int(pod["metadata"].get("annotations", {}).get(COST, 0))
    placed = bool(pod["spec"].get("nodeName"))
    return placed, conditions.get("Ready") == "True", cost, pod["metadata"]["name"]


@asynccontextmanager
async def api_server() -> AsyncIterator[Api]:
    """One that listens on a free port."""
    async with kmock.KubernetesEmulator() as server, kmock.Server(server) as port:
        yield Api(server, port)
