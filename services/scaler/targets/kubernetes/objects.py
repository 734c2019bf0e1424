"""Reads objects of the API server into what the policies judge."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.scaler.policy.workload import SERVES, Pod

COST = "controller.kubernetes.io/pod-deletion-cost"
GROUP_INDEX = "leaderworkerset.sigs.k8s.io/group-index"
WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
SET_NAME = "leaderworkerset.sigs.k8s.io/name"

_STUCK = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
MAX_SAID = 200
"""Characters of the cluster's own words that are told."""


@dataclass(frozen=True)
class Workload:
    """What is known of a workload.

    Attributes:
        name: of it.
        version: the cluster's, to change it only as it was seen.
        replicas: that are asked of it.
        labels: that its pods have; None: it chooses them in a way that is not understood here.
        trouble: why its pods do not come, as its controller says; empty: it says nothing of it.
        unavailable_since: when it began to have groups that are not ready, seconds since 1970.
            None: it has none, or its controller does not say.
    """

    name: str
    version: str
    replicas: int
    labels: Mapping[str, str] | None
    trouble: str = ""
    unavailable_since: float | None = None


@dataclass(frozen=True)
class Endpoints:
    """One slice of a Service's endpoints.

    Attributes:
        name: of the slice.
        ready: uids of pods that the Service sends requests to.
    """

    name: str
    ready: frozenset[str]


@dataclass(frozen=True)
class Node:
    """A node, and the keys of its taints."""

    name: str
    taints: frozenset[str]


def deployment(found: Any) -> Workload:
    """Of a Deployment."""
    selector = found.spec.selector
    labels = None if selector.matchExpressions else dict(selector.matchLabels or {})
    replicas = 1 if found.spec.replicas is None else found.spec.replicas
    meta = found.metadata
    trouble = _refused((found.status and found.status.conditions) or ())
    return Workload(meta.name, meta.resourceVersion or "", replicas, labels, trouble)


def leader_worker_set(found: Any) -> Workload:
    """Of a LeaderWorkerSet; its leaders stand for its groups."""
    meta = found["metadata"]
    labels = {SET_NAME: meta["name"], WORKER_INDEX: "0"}
    version = str(meta.get("resourceVersion", ""))
    replicas = int(found["spec"].get("replicas", 1))
    since = _unavailable_since((found.get("status") or {}).get("conditions") or ())
    return Workload(meta["name"], version, replicas, labels, unavailable_since=since)


def pod(found: Any) -> Pod:
    """Of a Pod."""
    meta, status, spec = found.metadata, found.status, found.spec
    conditions = {one.type: one for one in (status and status.conditions) or ()}
    ready = conditions.get("Ready")
    is_ready = ready is not None and ready.status == "True"
    disrupted = conditions.get("DisruptionTarget")
    notice = ""
    if disrupted is not None and disrupted.status == "True":
        notice = _said("the cluster takes it away", disrupted.reason)
    labels = meta.labels or {}
    return Pod(
        id=f"{meta.name}-{(meta.uid or '')[:8]}",
        name=meta.name,
        uid=meta.uid or "",
        created=_seconds(meta.creationTimestamp) or 0.0,
        address=(status and status.podIP) or "",
        placed=bool(spec and spec.nodeName),
        ready=is_ready,
        ready_since=_seconds(ready.lastTransitionTime) if ready and is_ready else None,
        ending=meta.deletionTimestamp is not None,
        over=bool(status and status.phase in ("Failed", "Succeeded")),
        cost=_whole((meta.annotations or {}).get(COST), SERVES),
        node=(spec and spec.nodeName) or "",
        index=_whole(labels.get(GROUP_INDEX), 0) if GROUP_INDEX in labels else None,
        leaving="the cluster is ending it" if meta.deletionTimestamp is not None else "",
        notice=notice,
        trouble=_trouble(meta.name, conditions.get("PodScheduled"), status),
    )


def endpoints(found: Any) -> Endpoints:
    """Of an EndpointSlice. An endpoint of which nobody says whether it is ready is."""
    ready = frozenset(
        one.targetRef.uid or ""
        for one in found.endpoints or ()
        if one.targetRef is not None
        and (one.conditions is None or one.conditions.ready is not False)
    )
    return Endpoints(found.metadata.name, ready)


def node(found: Any) -> Node:
    """Of a Node."""
    taints = (found.spec and found.spec.taints) or ()
    return Node(found.metadata.name, frozenset(taint.key for taint in taints))


def _refused(conditions: Iterable[Any]) -> str:
    """Why a Deployment's pods are not made, or do not become ready in time."""
    told = {(one.type, one.status): one.message or one.reason for one in conditions}
    if (failed := ("ReplicaFailure", "True")) in told:
        return _said("its pods cannot be made", told[failed])
    if (late := ("Progressing", "False")) in told:
        return _said("its rollout does not come to its end", told[late])
    return ""


def _unavailable_since(conditions: Iterable[Mapping[str, Any]]) -> float | None:
    """When a LeaderWorkerSet ceased to be available: it knows no deadline, so that is all it says.

    Its `Progressing` is no longer true once it is available, so that says nothing of trouble.
    """
    for one in conditions:
        if one.get("type") == "Available" and one.get("status") == "False":
            try:
                return dt.datetime.fromisoformat(str(one["lastTransitionTime"])).timestamp()
            except (KeyError, ValueError):
                return None
    return None


def _trouble(name: str, placed: Any, status: Any) -> str:
    if placed is not None and placed.status == "False":
        return _said(f"pod {name} cannot be placed", placed.message or placed.reason)
    for container in (status and status.containerStatuses) or ():
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason in _STUCK:
            return _said(f"pod {name} does not run", waiting.reason)
    return ""


def _said(what: str, why: str | None) -> str:
    return f"{what}: {why[:MAX_SAID]}" if why else what


def _seconds(time: dt.datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _whole(text: str | None, otherwise: int) -> int:
    try:
        return otherwise if text is None else int(text)
    except ValueError:  # somebody else wrote it
        return otherwise
