"""Places of a pool other than slots of this host: a workload on Kubernetes, or somebody else's.

What `scaling.yaml` may say of them. Leaves to the targets what is done there.
"""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import STRICT
from services.common.rules import spelled

MOST_ADDRESSES = 256
"""Servers of one external pool."""

ObjectName = Annotated[
    str,
    spelled(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        "must be the name of a Kubernetes object: at most 63 small letters, digits and '-', which "
        "stands at no end",
    ),
]
TaintKey = Annotated[
    str,
    spelled(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})?",
        "must be the key of a taint, such as aws-node-termination-handler/spot-itn",
    ),
]
Address = Annotated[
    str,
    spelled(
        r"([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])"
        r":([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])",
        "must be host:port, such as 10.0.0.7:8001",
    ),
]
Port = Annotated[int, Field(ge=1, le=65_535)]

TAINTS = (
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/scheduled-maintenance",
    "cloud.google.com/impending-node-termination",
    "karpenter.sh/disrupted",
    "node.kubernetes.io/out-of-service",
    "ToBeDeletedByClusterAutoscaler",
)
"""Taints by which well-known controllers say that a node is about to be taken away."""


class WorkloadKind(StrEnum):
    """Kinds of objects on Kubernetes whose number of replicas can be set."""

    DEPLOYMENT = "Deployment"
    LEADER_WORKER_SET = "LeaderWorkerSet"


class Actuator(StrEnum):
    """Who sets the number of replicas."""

    SCALER = "scaler"
    KEDA = "keda"


class ByHand(StrEnum):
    """What becomes of a number of replicas that somebody else has set."""

    RESPECT = "respect"
    UNDO = "undo"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Kubernetes:
    """A pool whose replicas are the pods of a workload.

    Attributes:
        namespace: where it is.
        kind: what it is.
        name: its name.
        port: of its pods, where Triton speaks gRPC.
        metrics_port: of its pods, where Triton publishes metrics; 0: nowhere.
        service: Service over its pods; a replica is ready once its endpoint there is too; None:
            once the pod itself says so.
        actuator: who sets the number of replicas. With ``keda`` the scaler says how many by KEDA's
            protocol, and sets deletion costs alone.
        by_hand: what becomes of a number that somebody else has set.
        by_hand_seconds: how long it is respected.
        taints: of a node, that mean that it is taken away soon (`notice_seconds` of the pool after
            they come); none: nodes are not looked at.
    """

    namespace: ObjectName
    kind: WorkloadKind = WorkloadKind.DEPLOYMENT
    name: ObjectName
    port: Port = 8001
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 8002
    service: ObjectName | None = None
    actuator: Actuator = Actuator.SCALER
    by_hand: ByHand = ByHand.RESPECT
    by_hand_seconds: Annotated[float, Field(ge=10, le=7 * 86_400)] = 3600.0
    taints: Annotated[tuple[TaintKey, ...], Field(max_length=32)] = TAINTS


@dataclass(frozen=True, kw_only=True, config=STRICT)
class External:
    """A pool of Triton servers that somebody else runs. Exactly one of the two says where.

    Attributes:
        addresses: of its servers.
        dns: name and port; each address that the name has is a server.
    """

    addresses: Annotated[tuple[Address, ...], Field(max_length=MOST_ADDRESSES)] = ()
    dns: Address | None = None


Problem = tuple[tuple[str | int, ...], str]


def wrong_external(name: str, external: External) -> Iterator[Problem]:
    """What is wrong with where an external pool is said to be."""
    place = ("pools", name, "external")
    if bool(external.addresses) == (external.dns is not None):
        yield place, "must have either addresses or dns"
    twice = {one for one, times in Counter(external.addresses).items() if times > 1}
    if twice:
        yield (*place, "addresses"), f"names a server twice, got {', '.join(sorted(twice))}"
