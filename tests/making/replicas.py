"""Pools, and places to run replicas that do as a test says, for tests of the scaler."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from services.scaler.config import Scaling
from services.scaler.fleet.sizes import Sizes
from services.scaler.load.engines import Engines
from services.scaler.load.loads import Loads
from services.scaler.load.queries import Queries
from services.scaler.load.signals import Signals
from services.scaler.pools.pool import Capacity, Pool, Slot
from services.scaler.ports import OnChange, PoolStatus, Replica, ReplicaStatus
from services.scaler.targets.records import SlotReplica
from services.scaler.targets.slots import Adopted, OnDeath, StartFailed, fingerprint


def pool(**changes: Any) -> Pool:
    fields: dict[str, Any] = {
        "tier": "small",
        "model": "m",
        "precision": "int8",
        "repository": "/models",
        "slots": (Slot(), Slot()),
        "size": 1,
    }
    return Pool(**(fields | changes))


def sizes(scaling: Scaling, loads: Loads, **others: Any) -> Sizes:
    """Sizes of which routers alone say something."""
    return Sizes(scaling, Signals(loads, Engines(tuple), Queries("", dict)), **others)


class Clock:
    """Time that stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Quick:
    """A `Rhythm` of short pauses; the target asks how long one is when it has just decided."""

    ready_probe = other_probe = again = 0.001

    def __init__(self) -> None:
        self._decided = asyncio.Event()

    @property
    def decide(self) -> float:
        self._decided.set()
        return 0.001

    async def decided(self) -> None:
        """Waits until the target has decided and acted, and decided on what came of that."""
        await again(self._decided)


async def again(event: asyncio.Event, times: int = 3) -> None:
    """Waits until an event that comes again and again has come so often."""
    async with asyncio.timeout(5.0):
        for _ in range(times):
            event.clear()
            await event.wait()


class Host:
    """A `SlotHost` whose replicas are ready when a test says so, and die when it says so."""

    def __init__(self) -> None:
        self.left: list[Adopted] = []
        self.ready = True
        self.exiting = False
        self.whole = True
        self.running: int | None = 0
        self.refusal = ""
        self.never_ready: set[str] = set()  # precisions
        self.precisions: dict[str, str] = {}
        self.longest: dict[str, int] = {}  # by precision
        self.measured: list[int] = []
        self.ended: list[tuple[str, bool]] = []
        self.noted: list[str] = []
        self.draining: list[str] = []
        self.asked = asyncio.Event()
        self.kill: OnDeath = lambda _id, _what: None

    def replica(self, replica_id: str, name: str, of: Pool, slot: int) -> SlotReplica:
        return SlotReplica(
            id=replica_id,
            pool=name,
            slot=slot,
            tier=of.tier,
            model=of.model,
            precision=of.precision,
            capacity=of.capacity,
            max_in_flight=of.max_in_flight,
            address=f"127.0.0.1:{slot}",
            started_at=1.0,
            fingerprint=fingerprint(of, of.slots[slot]),
        )

    async def adopt(self, on_death: OnDeath) -> list[Adopted]:
        self.kill = on_death
        return self.left

    async def start(self, replica_id: str, name: str, pool: Pool, slot: int) -> SlotReplica:
        if self.refusal:
            raise StartFailed(self.refusal)
        self.precisions[replica_id] = pool.precision
        return self.replica(replica_id, name, pool, slot)

    async def is_ready(self, replica_id: str) -> bool:
        self.asked.set()
        return self.ready and self.precisions.get(replica_id) not in self.never_ready

    def exits(self, replica_id: str) -> bool:
        return self.exiting

    def note_ready(self, replica_id: str) -> bool:
        self.noted.append(replica_id)
        return self.whole

    def note_draining(self, replica_id: str) -> None:
        self.draining.append(replica_id)

    async def too_long(self, replica_id: str, tokens: int) -> str | None:
        self.measured.append(tokens)
        if tokens <= self.longest.get(self.precisions.get(replica_id, ""), tokens):
            return ""
        return "exceeds max_seq_len"

    async def running_requests(self, replica_id: str) -> int | None:
        return self.running

    async def end(self, replica_id: str, *, gently: bool) -> None:
        self.ended.append((replica_id, gently))

    async def close(self) -> None:
        pass


@dataclass
class Deployment:
    """What a cluster is asked to run, and what it runs."""

    replicas: int = 0
    pods: dict[str, ReplicaStatus] = field(default_factory=dict)


class Cluster:
    """A `Target` without slots, as a Kubernetes would be.

    A pool is a deployment with a number of replicas. The cluster makes and removes pods as it
    likes; of those to remove it prefers the ones with the lowest deletion cost.
    """

    def __init__(self, *names: str) -> None:
        self.deployments = {name: Deployment() for name in names}
        self.reachable = True
        self.made = 0
        self.deletion_cost: dict[str, int] = {}
        self.on_change: OnChange = lambda: None

    async def open(self, on_change: OnChange) -> None:
        self.on_change = on_change

    async def run(self) -> None:
        """Nothing: a test calls `settle` when the cluster shall move."""

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:
        for name in scaling.pools:
            self.deployments.setdefault(name, Deployment())
        self.on_change()

    def observe(self) -> dict[str, PoolStatus] | None:
        if not self.reachable:
            return None
        return {
            name: PoolStatus(
                replicas=tuple(deployment.pods.values()),
                pending=max(deployment.replicas - len(deployment.pods), 0),
            )
            for name, deployment in self.deployments.items()
        }

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        deployment = self.deployments[pool]
        deployment.replicas = size + sum(name in deployment.pods for name in draining)
        self.deletion_cost |= dict.fromkeys(draining, 1) | dict.fromkeys(drained, -1)

    async def close(self) -> None:
        pass

    def settle(self) -> None:
        """What the cluster's own controllers do in the next moment."""
        for name, deployment in self.deployments.items():
            pods = deployment.pods
            for pod in [pod for pod, status in pods.items() if status.leaving]:
                if self.deletion_cost.get(pod, 0) < 0:
                    del pods[pod]
            while len(pods) > deployment.replicas:
                del pods[min(pods, key=lambda pod: self.deletion_cost.get(pod, 0))]
            while len(pods) < deployment.replicas:
                self.made += 1
                pod = f"{name}-{self.made:x}"
                pods[pod] = ReplicaStatus(_pod(name, pod), ready=False)
        self.on_change()

    def change(self, pod: str, **changes: Any) -> None:
        """The cluster finds something new of a pod."""
        for deployment in self.deployments.values():
            if pod in deployment.pods:
                deployment.pods[pod] = replace(deployment.pods[pod], **changes)
        self.on_change()


def _pod(name: str, pod: str) -> Replica:
    return Replica(
        id=pod,
        pool=name,
        tier="small",
        model="m",
        precision="int8",
        capacity=Capacity.SPOT,
        max_in_flight=8,
        address=f"{pod}:8001",
        started_at=1.0,
    )
