"""One pool whose replicas are the pods of a workload: what is seen of it, and what is asked of it.

What to ask for is decided in `policy.workload` and `policy.by_hand`. A call that fails is named in
the pool's trouble and tried again after a wait; no other pool waits for it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from services.common.backoff import Backoff
from services.common.durations import wall_clock
from services.scaler.metrics import Metrics
from services.scaler.policy.by_hand import Hands
from services.scaler.policy.workload import DRAINED, Plan, Pod, plan
from services.scaler.pools.places import Actuator, ByHand, Kubernetes
from services.scaler.pools.pool import Pool
from services.scaler.ports import PoolStatus, ReplicaStatus
from services.scaler.targets.kubernetes import client
from services.scaler.targets.kubernetes.client import KubernetesClient
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault
from services.scaler.targets.kubernetes.objects import Endpoints, Node, Workload
from services.scaler.targets.kubernetes.shown import Around, Notices, replica
from services.scaler.targets.kubernetes.starts import Starts
from services.scaler.targets.kubernetes.watched import Watched

log = structlog.get_logger()

LOOK_SECONDS = 2.0
"""How often it is looked whether something is to be asked for, whatever has happened."""
WRITTEN_SECONDS = 10.0
"""How long a number that we set is believed against what a stream still tells of before."""
AGAIN = Backoff(first_seconds=0.5, cap_seconds=30.0)


@dataclass(frozen=True)
class Wanted:
    """What `Target.resize` last said."""

    size: int
    draining: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Written:
    """A number that we set: the version it has made, and when."""

    replicas: int
    version: str
    at: float


class KubernetesPool:
    """See the module. `nodes` are those of the cluster; None: they are not looked at."""

    def __init__(
        self,
        name: str,
        pool: Pool,
        kubernetes: Kubernetes,
        cluster: KubernetesClient,
        *,
        metrics: Metrics,
        on_change: Callable[[], None],
        nodes: Callable[[], Mapping[str, Node]],
        held: Callable[[], str],
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """`held` says why this scaler may not act now; empty: it may."""
        self._name = name
        self._pool = pool
        self._place = kubernetes
        self._cluster = cluster
        self._metrics = metrics
        self._on_change = on_change
        self._nodes = nodes
        self._held = held
        self._clock = clock
        self._pause = pause
        self._wall = wall
        self._wake = asyncio.Event()
        kind = client.workloads(kubernetes.kind, kubernetes.namespace, kubernetes.name)
        self._workloads: Watched[Workload] = self._watched(kind)
        self._pods: Watched[Pod] | None = None
        self._slices: Watched[Endpoints] | None = None
        if kubernetes.service is not None:
            self._slices = self._watched(client.slices(kubernetes.namespace, kubernetes.service))
        self._wanted: Wanted | None = None
        self._hands = Hands()
        self._written: Written | None = None
        self._fault = ""
        self._notices = Notices()
        self._starts = Starts(metrics)

    @property
    def place(self) -> Kubernetes:
        """Where it is."""
        return self._place

    def configure(self, pool: Pool) -> None:
        """Takes settings of a pool in the same place."""
        if pool != self._pool:
            self._pool = pool
            self._wake.set()

    def resize(self, wanted: Wanted) -> None:
        """Says what it should be."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    def wake(self) -> None:
        """Something else has changed that it goes by."""
        self._wake.set()

    async def open(self) -> None:
        """Finds out what there is.

        Raises:
            ClusterFault: that cannot be done.
        """
        await self._workloads.list()
        await self._choose_pods()
        for watched in (self._pods, self._slices):
            if watched is not None:
                await watched.list()

    async def run(self) -> None:
        """Watches and acts for ever; the caller owns it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._workloads.run())
            if self._slices is not None:
                tasks.create_task(self._slices.run())
            tasks.create_task(self._watch_pods())
            tasks.create_task(self._act())

    async def _watch_pods(self) -> None:
        while True:
            await self._choose_pods()
            if self._pods is not None:
                await self._pods.run()
            await self._looked()

    async def _choose_pods(self) -> None:
        """Finds out by which labels pods are its, once the workload is there."""
        workload = self._workloads.found.get(self._place.name)
        if self._pods is None and workload is not None and workload.labels is not None:
            self._pods = self._watched(client.pods(self._place.namespace, workload.labels))

    def _watched(self, kind: client.Kind[Any]) -> Watched[Any]:
        return Watched(
            self._cluster, kind, self._changed, self._count, clock=self._clock, pause=self._pause
        )

    def _count(self, fault: Fault) -> None:
        self._metrics.cluster_faults.labels(str(fault)).inc()

    def _changed(self) -> None:
        if self._pods is not None and self._pods.known:
            pods = self._pods.found.values()
            self._starts.note(pods, (self._name, self._pool.tier))
            self._notices.keep(pods)
        self._wake.set()
        self._on_change()

    # Acting.

    async def _act(self) -> None:
        failures = 0
        while True:
            try:
                await self._turn()
            except ClusterFault as error:
                self._count(error.fault)
                failures += 1
                self._trouble(str(error), told=error.fault is not Fault.CONFLICT)
                wait = AGAIN.seconds(failures, random.random())  # noqa: S311
                await self._pause(max(wait, error.retry_after_seconds))
            else:
                failures = 0
                self._trouble("")
                await self._looked()

    async def _looked(self) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._wake.wait()

    def _trouble(self, why: str, *, told: bool = True) -> None:
        if not told:  # the workload was changed meanwhile, which is no trouble
            return
        if why and why != self._fault:
            log.warning("the cluster does not do as asked", pool=self._name, reason=why)
        if why != self._fault:
            self._fault = why
            self._on_change()

    async def _turn(self) -> None:
        """Asks for what is wanted and not asked for yet.

        Raises:
            ClusterFault: a call came to nothing.
        """
        workload, todo = self._workload, self._plan()
        if workload is None or todo is None:
            return
        namespace = self._place.namespace
        for pod, cost in todo.costs.items():
            await self._gone_is_fine(self._cluster.set_cost(namespace, pod, cost))
        for gone in todo.delete:
            log.info("deleting", pool=self._name, pod=gone.name)
            await self._gone_is_fine(self._cluster.delete_pod(namespace, gone.name))
        if todo.replicas != workload.replicas:
            log.info("scaling", pool=self._name, replicas=todo.replicas, before=workload.replicas)
            version = await self._cluster.scale(
                self._place.kind, namespace, workload.name, todo.replicas, workload.version
            )
            self._written = Written(todo.replicas, version, self._clock())
            self._hands = self._hands.set(todo.replicas)
            self._on_change()

    async def _gone_is_fine(self, call: Any) -> None:
        try:
            await call
        except ClusterFault as error:
            if error.fault is not Fault.MISSING:
                raise

    def _plan(self) -> Plan | None:
        """What to ask for; None: nothing may be asked for now."""
        workload, wanted = self._workload, self._wanted
        if self._held():
            self._hands = Hands()  # what another scaler sets meanwhile is nobody's by hand
        if workload is None or wanted is None or self._pods is None or self.held:
            return None
        self._look_at_hands(workload)
        todo = plan(
            wanted.size,
            list(self._pods.found.values()),
            draining=wanted.draining,
            drained=wanted.drained,
            replicas=workload.replicas,
        )
        theirs = self._place.actuator is Actuator.KEDA or self._hands.theirs is not None
        return Plan(workload.replicas, todo.costs, todo.delete) if theirs else todo

    def _look_at_hands(self, workload: Workload) -> None:
        before = self._hands
        if self._place.actuator is Actuator.KEDA:
            return
        self._hands = before.found(
            workload.replicas,
            self._clock(),
            undo=self._place.by_hand is ByHand.UNDO,
            respect_seconds=self._place.by_hand_seconds,
        )
        if before.ours is not None and self._hands != before:
            log.warning(
                "somebody else set the replicas of a pool",
                pool=self._name,
                replicas=workload.replicas,
                ours=before.ours,
                respected=self._hands.theirs is not None,
            )
            self._on_change()

    @property
    def _workload(self) -> Workload | None:
        """The workload, with what we have set of it though no stream has told so yet."""
        found, written = self._workloads.found.get(self._place.name), self._written
        if found is None or written is None:
            return found
        told = _reached(found.version, written.version)
        if told or self._clock() - written.at > WRITTEN_SECONDS:
            self._written = None
            return found
        return replace(found, version=written.version, replicas=written.replicas)

    # Telling.

    @property
    def held(self) -> str:
        """Why nothing may be decided now; empty: it may."""
        now = self._clock()
        parts = (self._workloads, self._pods, self._slices)
        if any(part is not None and part.is_old(now) for part in parts):
            why = next((part.fault for part in parts if part is not None and part.fault), "")
            return f"what is known of its workload is old: {why or 'the cluster is silent'}"
        return self._held()

    @property
    def known(self) -> bool:
        """Whether it was ever seen what there is."""
        parts = (self._workloads, self._slices)
        if not all(part is None or part.known for part in parts):
            return False
        workload = self._workloads.found.get(self._place.name)
        if self._pods is None:  # of a workload that is not there, nothing is all there is
            return workload is None or workload.labels is None
        return self._pods.known

    def status(self) -> PoolStatus:
        """The pool as the fleet sees it."""
        if not self.known:
            why = self._workloads.fault or (self._pods.fault if self._pods is not None else "")
            held = f"its workload was not seen yet: {why or 'the cluster is asked'}"
            return PoolStatus(held=held, trouble=held, known=False)
        workload, pods = self._workload, [] if self._pods is None else self._here()
        slices = None if self._slices is None else self._slices.found.values()
        around = Around(self._nodes(), slices)
        shown = [one for pod in pods if (one := self._replica(pod, around)) is not None]
        alive = [pod for pod in pods if pod.alive]
        asked = 0 if workload is None else workload.replicas
        addressed = sum(bool(pod.address) for pod in alive)
        return PoolStatus(
            replicas=tuple(shown),
            pending=max(asked, len(alive)) - addressed,
            ending=sum(pod.ending and pod.cost == DRAINED for pod in pods),
            trouble="; ".join(self._troubles(workload, alive)),
            starts=self._starts.times,
            held=self.held,
            by_hand=self._hands.theirs,
        )

    def _troubles(self, workload: Workload | None, alive: list[Pod]) -> Iterator[str]:
        where = f"{self._place.kind} {self._place.namespace}/{self._place.name}"
        if workload is None:
            yield f"there is no {where}"
        elif workload.labels is None:
            yield f"{where} chooses its pods by expressions; it must by labels alone"
        elif workload.trouble:
            yield f"{where}: {workload.trouble}"
        elif workload.unavailable_since is not None:
            # Groups are replaced one by one, and each may take as long as a start.
            seconds = self._wall() - workload.unavailable_since
            if seconds > self._pool.start_seconds * max(workload.replicas, 1):
                yield f"{where}: its groups have not all been ready for {seconds:.0f} s"
        if self.held:
            yield self.held
        if self._fault:
            yield self._fault
        if said := self._hands.said(self._clock()):
            yield said
        if stuck := next((pod.trouble for pod in alive if pod.trouble), ""):
            yield stuck

    def _here(self) -> list[Pod]:
        assert self._pods is not None  # noqa: S101
        return sorted(
            (pod for pod in self._pods.found.values() if not pod.over), key=lambda pod: pod.name
        )

    def _replica(self, pod: Pod, around: Around) -> ReplicaStatus | None:
        return replica(
            self._name,
            self._pool,
            self._place,
            pod,
            around=around,
            notices=self._notices,
            now=self._clock(),
        )


def _reached(found: str, written: str) -> bool:
    """Whether a version is one that we have made, or a later one."""
    if found.isdecimal() and written.isdecimal():
        return int(found) >= int(written)
    return found == written
