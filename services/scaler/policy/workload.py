"""What is asked of a workload on Kubernetes, so that those replicas go that have drained.

Pure: the size wanted and the pods that are there go in; the number of replicas to set, a deletion
cost for each pod and the pods to delete by name come out. Leaves watching and calling to
`targets.kubernetes`, and which replicas drain to `draining`.

Of a Deployment the cluster itself chooses the pods that go: first those on no node, then those that
are not ready, then those of the lowest ``controller.kubernetes.io/pod-deletion-cost``, then the
youngest (`ActivePodsWithRanks` of Kubernetes' controller). So the cost decides among ready pods
alone: where a pod that starts would go in place of one that has drained, the latter is deleted by
name first. Of a LeaderWorkerSet the group of the highest index goes, whatever it costs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

SERVES = 0
DRAINS = -50
DRAINED = -100
"""Deletion costs. They tell a later scaler what an earlier one was about, and keep the pods that
serve when somebody else makes the workload smaller."""


@dataclass(frozen=True)
class Pod:
    """One pod, or the leader of one group of a LeaderWorkerSet.

    Attributes:
        id: unique for ever.
        name: in its namespace; another may have had it before.
        uid: the cluster's own id.
        created: seconds since 1970.
        address: its IP; empty: none yet.
        placed: it is on a node.
        ready: it says that it takes requests.
        ready_since: seconds since 1970; None: it is not ready.
        ending: it is being deleted.
        over: nothing of it runs, nor will again.
        cost: its deletion cost.
        node: it is on; empty: none.
        index: of its group; None: it has none.
        leaving: why it is ending; empty: it is not.
        notice: why the cluster takes it away soon; empty: it does not.
        trouble: what keeps it from being ready; empty: nothing but time.
    """

    id: str
    name: str
    uid: str
    created: float
    address: str = ""
    placed: bool = False
    ready: bool = False
    ready_since: float | None = None
    ending: bool = False
    over: bool = False
    cost: int = SERVES
    node: str = ""
    index: int | None = None
    leaving: str = ""
    notice: str = ""
    trouble: str = ""

    @property
    def alive(self) -> bool:
        """Whether its controller counts it."""
        return not (self.ending or self.over)


@dataclass(frozen=True)
class Plan:
    """What to ask for, in this order: costs, deletions, then the number.

    Attributes:
        replicas: to set.
        costs: by name of the pod; only those that change.
        delete: pods to delete by name.
    """

    replicas: int
    costs: Mapping[str, int] = field(default_factory=dict)
    delete: tuple[Pod, ...] = ()


def plan(
    size: int,
    pods: Sequence[Pod],
    *,
    draining: Collection[str],
    drained: Collection[str],
    replicas: int,
) -> Plan:
    """What to ask of the workload.

    No pod goes that serves: there the number stays higher than wanted until one has drained.

    Args:
        size: replicas that shall serve.
        pods: those that are there.
        draining: ids of pods that get nothing new and still have requests.
        drained: ids of pods with nothing left to do.
        replicas: the number that is set now.
    """
    living = [pod for pod in pods if pod.alive]
    costed = [replace(pod, cost=_cost(pod, draining, drained)) for pod in living]
    costs = {
        after.name: after.cost
        for before, after in zip(living, costed, strict=True)
        if before.cost != after.cost
    }
    wanted = size + sum(pod.id in draining and pod.id not in drained for pod in living)
    indexed = any(pod.index is not None for pod in costed)
    keep, delete = (_by_index if indexed else _by_cost)(costed, wanted, drained)
    # Who is kept because it serves is no reason to ask for more than is asked for already.
    return Plan(max(wanted, min(keep, replicas)), costs, delete)


def victims(pods: Sequence[Pod]) -> list[Pod]:
    """Pods of a Deployment in the order in which the cluster would delete them."""
    return sorted(
        pods,
        key=lambda pod: (
            pod.placed,
            pod.ready,
            pod.cost,
            -(pod.ready_since or 0.0),
            -pod.created,
        ),
    )


def _cost(pod: Pod, draining: Collection[str], drained: Collection[str]) -> int:
    if pod.id in drained:
        return DRAINED
    if pod.id in draining:
        return DRAINS
    # What an earlier scaler was about stays written until it is done.
    return pod.cost


def _by_cost(
    pods: Sequence[Pod], wanted: int, drained: Collection[str]
) -> tuple[int, tuple[Pod, ...]]:
    """The number to set, and who is to be deleted by name before that."""
    going = _going(pods, wanted, drained)
    names = {pod.name for pod in going}
    delete = tuple(pod for pod in pods if pod.id in drained and pod.name not in names)
    if delete:
        left = [pod for pod in pods if pod not in delete]
        going = _going(left, wanted, drained)
        return max(wanted, len(left) - len(going)), delete
    return max(wanted, len(pods) - len(going)), ()


def _going(pods: Sequence[Pod], wanted: int, drained: Collection[str]) -> list[Pod]:
    """Who goes when the number is made smaller, and may: one that serves ends the row."""
    going: list[Pod] = []
    for pod in victims(pods)[: max(len(pods) - wanted, 0)]:
        if pod.ready and pod.id not in drained:
            break
        going.append(pod)
    return going


def _by_index(
    pods: Sequence[Pod], wanted: int, drained: Collection[str]
) -> tuple[int, tuple[Pod, ...]]:
    """The same of groups, which go by their index alone."""
    order = sorted(pods, key=lambda pod: -(pod.index or 0))
    keep = max((pod.index or 0) + 1 for pod in pods)
    for pod in order:
        if keep <= wanted or (pod.ready and pod.id not in drained):
            break
        keep = max(wanted, pod.index or 0)
    delete = tuple(pod for pod in pods if pod.id in drained and (pod.index or 0) < keep)
    return max(keep, wanted), delete
