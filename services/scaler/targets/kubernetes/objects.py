"""Reads objects of the API server into what the policies judge."""

import datetime as dt
from collections.abc import Mapping
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
    """

    name: str
    version: str
    replicas: int
    labels: Mapping[str, str] | None


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
    return Workload(found.metadata.name, found.metadata.resourceVersion or "", replicas, labels)


def leader_worker_set(found: Any) -> Workload:
    """Of a LeaderWorkerSet; its leaders stand for its groups."""
    meta = found["metadata"]
    labels = {SET_NAME: meta["name"], WORKER_INDEX: "0"}
    version = str(meta.get("resourceVersion", ""))
    return Workload(meta["name"], version, int(found["spec"].get("replicas", 1)), labels)


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
