"""Pods as the fleet knows them: replicas with an address, and what is about to become of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.scaler.policy.workload import DRAINED, DRAINS, Pod
from services.scaler.pools.places import Kubernetes
from services.scaler.pools.pool import Pool
from services.scaler.ports import Replica, ReplicaStatus
from services.scaler.targets.kubernetes.objects import Endpoints, Node


@dataclass(frozen=True)
class Around:
    """What is known around pods.

    Attributes:
        nodes: by name; empty where they are not looked at.
        slices: endpoints of the pool's Service; None: it has none.
    """

    nodes: Mapping[str, Node]
    slices: Collection[Endpoints] | None


class Notices:
    """Pods that the cluster takes away soon, and since when that is known."""

    def __init__(self) -> None:
        """None was given yet."""
        self._since: dict[str, float] = {}  # by uid

    def keep(self, pods: Collection[Pod]) -> None:
        """Forgets pods that are gone."""
        there = {pod.uid for pod in pods}
        self._since = {uid: at for uid, at in self._since.items() if uid in there}

    def is_due(self, pod: Pod, notice: str, room: float, now: float) -> bool:
        """Whether a pod is to drain now: `room` seconds after notice of it was given first."""
        if not notice:
            self._since.pop(pod.uid, None)
            return False
        return now - self._since.setdefault(pod.uid, now) >= room


def replica(
    name: str,
    pool: Pool,
    place: Kubernetes,
    pod: Pod,
    *,
    around: Around,
    notices: Notices,
    now: float,
) -> ReplicaStatus | None:
    """A pod as others may know it; None: it has no address yet, or is gone for them."""
    if not pod.address or (pod.ending and pod.cost == DRAINED):
        return None
    notice = _notice(pod, place, around.nodes)
    due = notices.is_due(pod, notice, pool.notice_seconds - pool.drain_seconds, now)
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    return ReplicaStatus(
        Replica(
            id=pod.id,
            pool=name,
            tier=pool.tier,
            model=pool.model,
            precision=pool.precision,
            capacity=pool.capacity,
            max_in_flight=pool.max_in_flight,
            address=f"{host}:{place.port}",
            started_at=pod.created,
        ),
        ready=pod.ready and _has_endpoint(pod, around.slices),
        leaving=pod.leaving or (notice if due else ""),
        notice=notice,
        draining=pod.cost <= DRAINS,
        metrics_address=f"{host}:{place.metrics_port}" if place.metrics_port else "",
        index=pod.index,
    )


def _has_endpoint(pod: Pod, slices: Collection[Endpoints] | None) -> bool:
    return slices is None or any(pod.uid in one.ready for one in slices)


def _notice(pod: Pod, place: Kubernetes, nodes: Mapping[str, Node]) -> str:
    """Why it is taken away soon; empty: it is not."""
    if pod.notice:
        return pod.notice
    node = nodes.get(pod.node)
    taint = next((key for key in place.taints if node and key in node.taints), "")
    return f"its node {pod.node} has the taint {taint}" if taint else ""
