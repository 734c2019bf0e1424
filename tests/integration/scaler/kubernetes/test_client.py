"""What each answer of the API server means, over real HTTP."""

import asyncio
import datetime as dt
from contextlib import aclosing

import kmock
import pytest

from services.scaler.policy.lease import Record
from services.scaler.policy.workload import DRAINED
from services.scaler.pools.places import WorkloadKind
from services.scaler.targets.kubernetes.client import KubernetesClient, pods, workloads
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault
from tests.making.kubernetes import NAMESPACE, Refusal

KIND = WorkloadKind.DEPLOYMENT
SMALL = workloads(KIND, NAMESPACE, "small")


def refusal(status: int) -> Refusal:
    return Refusal(status=status, reason="Because", message="as it is")


async def test_a_workload_is_read_and_scaled_as_it_was_seen(api, client):
    await api.deploy("small", 2)
    ((found,), _) = await client.list(SMALL)
    assert (found.name, found.version, found.replicas) == ("small", "1", 2)
    assert found.labels == {"app": "small"}
    version = await client.scale(KIND, NAMESPACE, "small", 3, found.version)
    assert api.replicas("small") == 3
    with pytest.raises(ClusterFault, match="409: the object has been modified") as told:
        await client.scale(KIND, NAMESPACE, "small", 4, found.version)
    assert told.value.fault is Fault.CONFLICT
    await client.scale(KIND, NAMESPACE, "small", 4, version)
    assert api.replicas("small") == 4


async def test_pods_are_read_annotated_and_deleted(api, client):
    await api.deploy("small", 1)
    (name,) = api.pods()
    await client.set_cost(NAMESPACE, name, DRAINED)
    ((pod,), _) = await client.list(pods(NAMESPACE, {"app": "small"}))
    assert (pod.name, pod.ready, pod.cost, pod.node) == (name, True, DRAINED, "node-1")
    assert (pod.id, pod.ready_since - pod.created) == ("small-1-uid-0001", 29.0)
    await client.delete_pod(NAMESPACE, name)
    assert api.pods() == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (refusal(401), Fault.FORBIDDEN),
        (refusal(403), Fault.FORBIDDEN),
        (refusal(404), Fault.MISSING),
        (refusal(409), Fault.CONFLICT),
        (refusal(410), Fault.GONE),
        (refusal(422), Fault.REFUSED),
        (refusal(429), Fault.BUSY),
        (refusal(500), Fault.BROKEN),
        (refusal(503), Fault.BROKEN),
        (kmock.Response(status=502, payload=b"<html>"), Fault.BROKEN),
        (b"no json", Fault.BROKEN),
        (b"{}", Fault.BROKEN),
        ("hang", Fault.SLOW),
    ],
)
async def test_every_failure_has_a_name(api, tmp_path, monkeypatch, answer, fault):
    client = KubernetesClient.open(api.kubeconfig(tmp_path))
    monkeypatch.setattr(client, "_call_seconds", 0.2)
    api.fail("GET deployments", answer)
    with pytest.raises(ClusterFault) as told:
        await asyncio.wait_for(client.list(SMALL), 3.0)
    assert told.value.fault is fault
    assert "list Deployment in pw" in str(told.value)
    await client.close()


async def test_a_busy_server_says_how_long_to_stay_away(api, client):
    busy = kmock.Response(status=429, headers={"Retry-After": "7"}, payload=b"{}")
    api.fail("GET deployments", busy)
    with pytest.raises(ClusterFault) as told:
        await client.list(SMALL)
    assert (told.value.fault, told.value.retry_after_seconds) == (Fault.BUSY, 7.0)


async def test_nobody_there(tmp_path, api):
    path = api.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace(api.url, "http://127.0.0.1:1"))
    client = KubernetesClient.open(path)
    with pytest.raises(ClusterFault) as told:
        await client.list(SMALL)
    assert told.value.fault is Fault.UNREACHABLE
    await client.close()


@pytest.mark.parametrize("text", ["", "[", "{current-context: a}", "{clusters: 1}"])
def test_a_kubeconfig_that_is_none(tmp_path, text):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ClusterFault, match="cannot be called by"):
        KubernetesClient.open(path)


def test_no_service_account():
    with pytest.raises(ClusterFault, match="a pod's service account"):
        KubernetesClient.open(None)


async def test_a_watch_tells_each_change(api, client):
    await api.deploy("small", 2)
    async with asyncio.timeout(30.0), aclosing(client.watch(SMALL, "1", 30.0)) as changes:
        event, found = await anext(changes)
        assert (event, found.replicas) == ("ADDED", 2)
        await api.set_replicas("small", 5)
        event, found = await anext(changes)
        assert (event, found.replicas) == ("MODIFIED", 5)


async def test_a_watch_ends_by_itself(api, client):
    await api.deploy("small", 2)
    async with asyncio.timeout(30.0):
        seen = [event async for event, _ in client.watch(SMALL, "1", 0.2)]
    assert seen in ([], ["ADDED"]), "on a busy machine the time may be over before anything comes"


async def test_a_version_that_is_too_old_is_told_in_the_stream(api, client):
    status = {"kind": "Status", "apiVersion": "v1", "code": 410, "message": "too old"}
    api.fail("WATCH deployments", {"type": "ERROR", "object": status})
    with pytest.raises(ClusterFault, match="410: too old") as told:
        await anext(client.watch(SMALL, "1", 5.0))
    assert told.value.fault is Fault.GONE


async def test_a_lease_is_written_as_it_was_seen(api, client):
    now = dt.datetime(2026, 11, 29, 2, 0, tzinfo=dt.UTC)
    assert await client.lease(NAMESPACE, "scaler") is None
    mine = Record("me", 15.0, "", 0, "")
    first = await client.write_lease(NAMESPACE, "scaler", mine, now, new=True)
    assert first.holder == "me"
    second = await client.write_lease(NAMESPACE, "scaler", first, now, new=False)
    late = Record("late", 15.0, "", 1, "1000")
    with pytest.raises(ClusterFault) as told:
        await client.write_lease(NAMESPACE, "scaler", late, now, new=False)
    assert told.value.fault is Fault.CONFLICT
    assert await client.lease(NAMESPACE, "scaler") == second
    raw = api.mock.objects["coordination.k8s.io/v1/leases", NAMESPACE, "scaler"].raw
    # A MicroTime has six digits behind the point, also when they are zero.
    assert raw["spec"]["renewTime"] == "2026-11-29T02:00:00.000001Z"
