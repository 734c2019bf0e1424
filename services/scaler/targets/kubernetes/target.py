"""The port's target for pools on Kubernetes: one `KubernetesPool` each, one Lease for all.

The cluster is first called when a pool needs it, so a scaler without such pools needs neither a
cluster nor the library that speaks to it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from services.common.kept_up import kept_up
from services.scaler.config import Scaling
from services.scaler.metrics import Metrics
from services.scaler.pools.places import Kubernetes
from services.scaler.pools.pool import Pool
from services.scaler.ports import OnChange, PoolStatus
from services.scaler.targets.kubernetes import client
from services.scaler.targets.kubernetes.client import KubernetesClient
from services.scaler.targets.kubernetes.election import Election
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault
from services.scaler.targets.kubernetes.objects import Node
from services.scaler.targets.kubernetes.pool import KubernetesPool, Wanted
from services.scaler.targets.kubernetes.watched import Watched

log = structlog.get_logger()

OPEN_SECONDS = 10.0
"""How long the start waits to see what there is; then it goes on without."""
NODES_SECONDS = 300.0
"""How long one stream of nodes is believed: there may be thousands of them."""


@dataclass(frozen=True)
class Elected:
    """The Lease that one of several scalers holds, and who this one is there."""

    namespace: str
    name: str
    identity: str


@dataclass
class _Kept:
    """A pool with what it was made for, and the task that keeps it."""

    pool: KubernetesPool
    place: Kubernetes
    task: asyncio.Task[None] | None = field(default=None)


class KubernetesTarget:
    """See `services.scaler.ports.Target`.

    `connect` opens the client; it may raise `ClusterFault`. `elected`: None: this scaler acts.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        connect: Callable[[], KubernetesClient],
        metrics: Metrics,
        *,
        elected: Elected | None = None,
        clock: Callable[[], float] = time.monotonic,
        open_seconds: float = OPEN_SECONDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._configured = dict(pools)
        self._connect = connect
        self._metrics = metrics
        self._elected = elected
        self._clock = clock
        self._open_seconds = open_seconds
        self._pause = pause
        self._on_change: OnChange = lambda: None
        self._cluster: KubernetesClient | None = None
        self._no_cluster = ""
        self._election: Election | None = None
        self._nodes: Watched[Node] | None = None
        self._kept: dict[str, _Kept] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._beside: set[str] = set()
        metrics.leads.set(0)

    async def open(self, on_change: OnChange) -> None:
        """Finds out what there is, as far as the cluster tells it in time."""
        self._on_change = on_change
        self._take()
        opening = [self._look(name, kept) for name, kept in self._kept.items()]
        if self._election is not None:
            opening.append(self._election.turn())
        await asyncio.gather(*opening)

    async def run(self) -> None:
        """Keeps pools until cancelled; pods stay."""
        self._beside.clear()
        for kept in self._kept.values():
            kept.task = None
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self._take()
                await self._pause(1.0)

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:  # noqa: ARG002
        """Takes changed settings. Those of the pods themselves are the workload's, not ours."""
        pools = {name: pool for name, pool in scaling.pools.items() if pool.kubernetes is not None}
        self._configured = pools
        self._take()
        self._on_change()

    def observe(self) -> Mapping[str, PoolStatus]:
        """Every configured pool. A workload whose pool is no longer configured is left alone."""
        held = f"the cluster cannot be called: {self._no_cluster}"
        unknown = PoolStatus(held=held, trouble=held, known=False)
        return {
            name: self._kept[name].pool.status() if name in self._kept else unknown
            for name in self._configured
        }

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        """Says what the pool should be."""
        if pool in self._kept:
            wanted = Wanted(size, frozenset(draining), frozenset(drained))
            self._kept[pool].pool.resize(wanted)

    async def close(self) -> None:
        """Lets go of all; the next scaler may act at once."""
        if self._election is not None:
            await self._election.give_up()
            self._metrics.leads.set(0)
        if self._cluster is not None:
            await self._cluster.close()

    # Nothing below awaits, but for what it starts.

    def _take(self) -> None:
        """Keeps the pools that are configured, where they are now."""
        for name, kept in list(self._kept.items()):
            pool = self._configured.get(name)
            if pool is None or pool.kubernetes != kept.place:
                if kept.task is not None:
                    kept.task.cancel()
                del self._kept[name]
            else:
                kept.pool.configure(pool)
        if not self._configured or not self._connected():
            return
        assert self._cluster is not None  # noqa: S101
        self._elect(self._cluster)
        for name, pool in self._configured.items():
            if name not in self._kept and pool.kubernetes is not None:
                made = KubernetesPool(
                    name,
                    pool,
                    pool.kubernetes,
                    self._cluster,
                    metrics=self._metrics,
                    on_change=self._on_change,
                    nodes=self._seen_nodes,
                    held=self._held,
                    clock=self._clock,
                    pause=self._pause,
                )
                self._kept[name] = _Kept(made, pool.kubernetes)
        self._watch_nodes(self._cluster)
        self._start_tasks()

    def _connected(self) -> bool:
        if self._cluster is None:
            try:
                self._cluster = self._connect()
            except ClusterFault as error:
                if str(error) != self._no_cluster:
                    log.error("the cluster cannot be called", reason=str(error))  # noqa: TRY400
                    self._no_cluster = str(error)
                    self._on_change()
                return False
            self._no_cluster = ""
        return True

    def _elect(self, cluster: KubernetesClient) -> None:
        if self._elected is None:
            self._metrics.leads.set(1)
        elif self._election is None:
            who = self._elected
            self._election = Election(
                cluster,
                who.namespace,
                who.name,
                who.identity,
                on_change=self._led,
                on_fault=self._count,
                clock=self._clock,
                pause=self._pause,
            )

    def _watch_nodes(self, cluster: KubernetesClient) -> None:
        """Nodes are looked at once a pool asks for it; the cluster's role need not allow it."""
        if self._nodes is not None or not any(kept.place.taints for kept in self._kept.values()):
            return
        self._nodes = Watched(
            cluster,
            client.nodes(),
            self._on_change,
            self._count,
            clock=self._clock,
            seconds=NODES_SECONDS,
            pause=self._pause,
        )

    def _start_tasks(self) -> None:
        if self._tasks is None:
            return
        for name, beside in (("lease", self._election), ("nodes", self._nodes)):
            if beside is not None and name not in self._beside:
                self._beside.add(name)
                self._tasks.create_task(kept_up(name, beside.run, self._pause))
        for name, kept in self._kept.items():
            if kept.task is None:
                work = kept_up(f"pool {name}", kept.pool.run, self._pause)
                kept.task = self._tasks.create_task(work)

    async def _look(self, name: str, kept: _Kept) -> None:
        """Looks at a pool for the first time; what it cannot see now it sees later."""
        try:
            async with asyncio.timeout(self._open_seconds):
                await kept.pool.open()
        except (ClusterFault, TimeoutError) as error:
            why = str(error) or "the cluster does not answer"
            log.error("a pool cannot be seen", pool=name, reason=why)  # noqa: TRY400

    def _held(self) -> str:
        if self._election is None or self._election.leads:
            return ""
        return f"another scaler acts: {self._election.holder or 'none has the lease yet'}"

    def _led(self) -> None:
        self._metrics.leads.set(self._election is not None and self._election.leads)
        for kept in self._kept.values():
            kept.pool.wake()
        self._on_change()

    def _seen_nodes(self) -> Mapping[str, Node]:
        return {} if self._nodes is None else self._nodes.found

    def _count(self, fault: Fault) -> None:
        self._metrics.cluster_faults.labels(str(fault)).inc()
