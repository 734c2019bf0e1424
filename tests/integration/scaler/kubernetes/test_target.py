"""Pools on Kubernetes: what is seen, what is asked for, and what happens when calls fail."""

import asyncio
import datetime as dt
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import kmock
import pytest
from prometheus_client import CollectorRegistry

from services.scaler.config import Scaling
from services.scaler.fleet.fleet import Fleet
from services.scaler.load.loads import Loads, Report
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.workload import DRAINED, DRAINS
from services.scaler.pools.places import Actuator, ByHand, Kubernetes
from services.scaler.pools.pool import Capacity, Pool
from services.scaler.targets.kubernetes import pool as pools
from services.scaler.targets.kubernetes import watched
from services.scaler.targets.kubernetes.client import KubernetesClient
from services.scaler.targets.kubernetes.faults import ClusterFault
from services.scaler.targets.kubernetes.target import Elected, KubernetesTarget
from tests.making.kubernetes import NAMESPACE, NODES, SLICES, Refusal
from tests.making.replicas import sizes

SPOT = "aws-node-termination-handler/spot-itn"


def made(size: int = 2, notice_seconds: float = 30.0, **place) -> Pool:
    return Pool(
        notice_seconds=notice_seconds,
        tier="small",
        model="m",
        precision="int8",
        capacity=Capacity.SPOT,
        kubernetes=Kubernetes(**({"namespace": NAMESPACE, "name": "small", "taints": ()} | place)),
        size=size,
    )


class Scene:
    """A target at work on a cluster."""

    def __init__(self, api, kubeconfig, elected=None, **place) -> None:
        self.api = api
        self.registry = CollectorRegistry()
        self.target = KubernetesTarget(
            {"a": made(**place)},
            lambda: KubernetesClient.open(kubeconfig),
            Metrics(self.registry),
            elected=elected,
        )

    @property
    def status(self):
        return self.target.observe()["a"]

    @property
    def ids(self) -> dict[str, str]:
        """Ids of replicas, by the name of their pods."""
        return {
            one.replica.id.rpartition("-uid")[0]: one.replica.id for one in self.status.replicas
        }

    def resize(self, size, *, draining=(), drained=()) -> None:
        ids = self.ids
        self.target.resize(
            "a",
            size,
            draining=[ids[name] for name in draining],
            drained=[ids[name] for name in drained],
        )

    def faults(self, fault: str) -> float:
        name = "pennyweight_scaler_cluster_faults_total"
        return self.registry.get_sample_value(name, {"fault": fault}) or 0.0


async def until(true) -> None:
    async with asyncio.timeout(8.0):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(api, folder, replicas=2, elected=None, **place):
    if not api.pods():
        await api.deploy("small", replicas)
    scene = Scene(api, api.kubeconfig(folder), elected, **place)
    await scene.target.open(lambda: None)
    running = asyncio.create_task(scene.target.run())
    try:
        yield scene
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await scene.target.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits after a failure that a test can sit out."""
    short = watched.Backoff(first_seconds=0.01, cap_seconds=0.05)
    monkeypatch.setattr(watched, "AGAIN", short)
    monkeypatch.setattr(pools, "AGAIN", short)


async def test_what_is_there_is_seen_at_once_and_what_comes_as_it_comes(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        assert [one.ready for one in scene.status.replicas] == [True, True]
        (first, _) = scene.status.replicas
        assert (first.replica.address, first.replica.pool) == ("10.0.0.1:8001", "a")
        assert first.metrics_address == "10.0.0.1:8002"
        assert first.replica.capacity is Capacity.SPOT
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        await until(lambda: scene.status.pending == 1)
        await api.settle("small")
        await api.change_pod("small-3", {"status": {"podIP": "10.0.0.3"}})
        await until(lambda: len(scene.status.replicas) == 3)
        assert not scene.status.replicas[2].ready
        await api.ready("small-3")
        await until(lambda: scene.status.replicas[2].ready)
        assert scene.status.starts.typical_seconds == 27.0
        assert (scene.status.pending, scene.status.trouble, scene.status.held) == (0, "", "")


async def test_the_one_that_has_drained_goes(api, tmp_path):
    async with at_work(api, tmp_path, 3) as scene:
        scene.resize(2, draining=["small-2"])
        await until(lambda: api.cost("small-2") == DRAINS)
        assert api.replicas("small") == 3
        scene.resize(2, drained=["small-2"])
        await until(lambda: api.replicas("small") == 2)
        assert api.cost("small-2") == DRAINED
        await api.settle("small")
        await until(lambda: len(scene.status.replicas) == 2)
        assert api.pods() == ["small-1", "small-3"]
        assert api.count("DELETE", "/pods/") == 0


async def test_it_goes_also_while_another_starts(api, tmp_path):
    async with at_work(api, tmp_path, 2) as scene:
        scene.resize(2, draining=["small-1"])  # it leaves, and is replaced
        await until(lambda: api.replicas("small") == 3)
        await api.settle("small")
        scene.resize(2, drained=["small-1"])
        await until(lambda: "small-1" not in api.pods())
        await until(lambda: api.replicas("small") == 2)
        await api.settle("small")
        assert api.pods() == ["small-2", "small-3"]


async def test_a_later_scaler_finishes_what_an_earlier_one_was_about(api, tmp_path):
    async with at_work(api, tmp_path, 3) as scene:
        scene.resize(2, draining=["small-3"])
        await until(lambda: api.cost("small-3") == DRAINS)
    async with at_work(api, tmp_path) as later:
        draining = [one.draining for one in later.status.replicas]
        assert draining == [False, False, True]


@pytest.mark.parametrize("by_hand", list(ByHand))
async def test_a_size_set_by_hand(api, tmp_path, by_hand):
    async with at_work(api, tmp_path, by_hand=by_hand) as scene:
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        await api.set_replicas("small", 5)
        if by_hand is ByHand.UNDO:
            await until(lambda: api.replicas("small") == 3)
            assert scene.status.by_hand is None
            return
        await until(lambda: scene.status.by_hand == 5)
        assert "somebody else set 5 replicas and has" in scene.status.trouble
        scene.resize(1)
        await scene.target._kept["a"].pool._turn()
        assert api.replicas("small") == 5
        await api.set_replicas("small", 3)
        await until(lambda: scene.status.by_hand is None)


@pytest.mark.parametrize(
    ("status", "fault", "said"),
    [
        (409, "conflict", ""),
        (429, "busy", "429"),
        (500, "broken", "500"),
        (403, "forbidden", "403"),
    ],
)
async def test_a_refusal_is_told_and_tried_again(api, tmp_path, status, fault, said):
    async with at_work(api, tmp_path) as scene:
        told = []
        scene.target._kept["a"].pool._on_change = lambda: told.append(scene.status.trouble)
        refusal = Refusal(status=status, reason="Because", message="as it is")
        api.fail("PUT scale", *[refusal] * 2)
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        await until(lambda: not scene.status.trouble)
        assert scene.faults(fault) == 2
        assert any(f"scale Deployment pw/small: {said}" in one for one in told) is bool(said)


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        paused = []

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        scene.target._kept["a"].pool._pause = pause
        busy = kmock.Response(status=429, headers={"Retry-After": "7"}, payload=b"{}")
        api.fail("PUT scale", busy)
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        assert paused == [7.0]


async def test_a_pod_that_is_gone_meanwhile_is_no_trouble(api, tmp_path):
    async with at_work(api, tmp_path, 3) as scene:
        missing = Refusal(status=404, reason="NotFound", message="no such pod")
        api.fail("PATCH pods/small-2", *[missing] * 50)
        scene.resize(2, drained=["small-2"])
        await until(lambda: api.replicas("small") == 2)
        assert scene.status.trouble == ""


async def test_what_a_slow_stream_still_tells_of_before_is_nobodys_by_hand(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        pool = scene.target._kept["a"].pool
        before = dict(pool._workloads.found)
        scene.resize(3)
        await until(lambda: pool._workloads.found["small"].replicas == 3)
        await until(lambda: pool._hands.ours == 3)  # its own turn is over
        await pool._turn()
        pool._written = pools.Written(3, pool._workloads.found["small"].version, pool._clock())
        pool._workloads._found = before
        await pool._turn()
        assert scene.status.by_hand is None
        assert api.count("PUT", "/scale") == 1
        pool._written = None  # believed for no longer than it must be
        await pool._turn()
        assert scene.status.by_hand == 2


async def test_a_scaler_whose_lease_another_has_taken_stops_at_once(api, client, tmp_path):
    async with at_work(api, tmp_path, elected=Elected(NAMESPACE, "scaler", "one")) as scene:
        election = scene.target._election
        assert election.leads
        taken = None
        while taken is None:
            with suppress(ClusterFault):  # it has just been renewed
                theirs = replace(await client.lease(NAMESPACE, "scaler"), holder="two")
                now = dt.datetime.now(dt.UTC)
                taken = await client.write_lease(NAMESPACE, "scaler", theirs, now, new=False)
        await election.turn()
        assert not election.leads
        assert scene.status.held == "another scaler acts: two"
        assert await client.lease(NAMESPACE, "scaler") == taken


async def test_what_another_scaler_set_meanwhile_is_nobodys_by_hand(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        pool = scene.target._kept["a"].pool
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        pool._held = lambda: "another scaler acts: two"
        await pool._turn()
        await api.set_replicas("small", 5)
        await until(lambda: pool._workloads.found["small"].replicas == 5)
        pool._held = lambda: ""
        await pool._turn()
        assert scene.status.by_hand is None


async def test_a_scaler_that_cannot_renew_its_lease_acts_no_more(api, tmp_path):
    async with at_work(api, tmp_path, elected=Elected(NAMESPACE, "scaler", "one")) as scene:
        election = scene.target._election
        now = election._clock()
        assert election.leads
        api.fail("GET leases", *[Refusal(status=500, reason="Down", message="down")] * 50)
        election._clock = lambda: now + 10.0
        await election.turn()
        assert not election.leads
        assert scene.status.held == "another scaler acts: one"
        election._clock = lambda: now + 9.0
        assert election.leads


async def test_an_edit_between_seeing_and_scaling_is_not_overwritten(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        seen = scene.target._kept["a"].pool._workloads
        stale = dict(seen.found)
        await api.set_replicas("small", 7)
        await until(lambda: seen.found["small"].replicas == 7)
        seen._found = stale  # what a slow stream would have us believe
        scene.resize(3)
        await until(lambda: scene.faults("conflict") > 0)
        assert api.replicas("small") == 7


async def test_streams_that_break_end_or_are_too_old_are_begun_anew(api, tmp_path):
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    answers = (gone, gone, b"{broken\n", Refusal(status=503), b"")
    api.fail("WATCH pods", *answers)
    async with at_work(api, tmp_path) as scene:
        await until(lambda: not api.faults["WATCH pods"])
        await api.delete_pod("small-1")
        await until(lambda: len(scene.status.replicas) == 1)
        assert scene.faults("gone") == 2
        assert scene.faults("broken") == 2


async def test_a_stream_on_which_nothing_comes_is_not_believed_for_long(api, tmp_path, monkeypatch):
    async with at_work(api, tmp_path) as scene:
        seen = scene.target._kept["a"].pool._pods
        seen._seconds = 0.1
        api.fail("WATCH pods", "hang")
        await until(lambda: not api.faults["WATCH pods"])
        await api.delete_pod("small-1")
        await until(lambda: len(scene.status.replicas) == 1)


async def test_a_cluster_that_cannot_be_reached_leaves_what_was_known(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        pool = scene.target._kept["a"].pool
        pool._clock = pool._pods._clock = lambda: 1e9
        assert "what is known of its workload is old" in scene.status.held
        assert len(scene.status.replicas) == 2
        scene.resize(5)
        assert pool._plan() is None


async def test_a_cluster_that_is_not_there_at_the_start_is_seen_later(api, tmp_path):
    await api.deploy("small", 2)
    path = api.kubeconfig(tmp_path)
    good = path.read_text()
    path.write_text("")
    scene = Scene(api, path)
    await scene.target.open(lambda: None)
    assert not scene.status.known
    assert "cannot be called" in scene.status.held
    path.write_text(good)
    running = asyncio.create_task(scene.target.run())
    await until(lambda: scene.status.known and len(scene.status.replicas) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await scene.target.close()


async def test_a_workload_that_is_not_there_is_told(api, tmp_path):
    async with at_work(api, tmp_path, name="other") as scene:
        assert scene.status.trouble == "there is no Deployment pw/other"
        assert scene.status.empty


async def test_one_scaler_acts_and_the_next_takes_over(api, tmp_path):
    def who(name: str) -> Elected:
        return Elected(NAMESPACE, "scaler", name)

    async with at_work(api, tmp_path, elected=who("one")) as first:
        assert first.status.held == ""
        async with at_work(api, tmp_path, elected=who("two")) as second:
            assert second.status.held == "another scaler acts: one"
            assert len(second.status.replicas) == 2
            second.resize(5)
            first.resize(3)
            await until(lambda: api.replicas("small") == 3)
            await second.target._kept["a"].pool._turn()
            assert api.replicas("small") == 3
            await first.target.close()
            await second.target._election.turn()
            assert second.status.held == ""
            await until(lambda: api.replicas("small") == 5)
            leads = "pennyweight_scaler_leads"
            assert first.registry.get_sample_value(leads) == 0
            assert second.registry.get_sample_value(leads) == 1


async def test_a_notice_of_the_cluster_makes_a_replica_leave(api, tmp_path):
    await api.mock.post(NODES, json={"kind": "Node", "metadata": {"name": "node-1"}})
    async with at_work(api, tmp_path, taints=(SPOT,)) as scene:
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
        }
        ready = {"type": "Ready", "status": "True"}
        await api.change_pod("small-1", {"status": {"conditions": [ready, condition]}})
        await until(lambda: any(one.leaving for one in scene.status.replicas))
        why = "the cluster takes it away: PreemptionByScheduler"
        assert [one.leaving for one in scene.status.replicas] == [why, ""]
        pool = scene.target._kept["a"].pool
        pool.configure(made(taints=(SPOT,), notice_seconds=120.0))
        assert [(one.leaving, one.notice) for one in scene.status.replicas] == [("", why), ("", "")]
        start = pool._clock()
        pool._clock = lambda: start + 90.0
        assert scene.status.replicas[0].leaving == why
        pool.configure(made(taints=(SPOT,)))
        taint = {"key": SPOT, "effect": "NoSchedule"}
        await api.mock.patch(f"{NODES}/node-1", json={"spec": {"taints": [taint]}})
        await until(lambda: all(one.leaving for one in scene.status.replicas))
        assert scene.status.replicas[1].leaving == f"its node node-1 has the taint {SPOT}"


async def test_a_replica_is_ready_once_its_service_has_it(api, tmp_path):
    async with at_work(api, tmp_path, service="small") as scene:
        assert [one.ready for one in scene.status.replicas] == [False, False]
        await api.mock.post(
            SLICES,
            json={
                "metadata": {"name": "small-abc", "namespace": NAMESPACE},
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": ["10.0.0.1"],
                        "conditions": {"ready": ready},
                        "targetRef": {"kind": "Pod", "uid": uid},
                    }
                    for uid, ready in (("uid-0001", True), ("uid-0002", False))
                ],
            },
        )
        await until(lambda: scene.status.replicas[0].ready)
        assert not scene.status.replicas[1].ready


async def test_with_keda_as_actuator_costs_are_set_and_sizes_are_not(api, tmp_path):
    async with at_work(api, tmp_path, 3, actuator=Actuator.KEDA) as scene:
        scene.resize(2, drained=["small-1"])
        await until(lambda: api.cost("small-1") == DRAINED)
        await scene.target._kept["a"].pool._turn()
        assert api.replicas("small") == 3
        await api.set_replicas("small", 2)  # as KEDA does
        await api.settle("small")
        await until(lambda: len(scene.status.replicas) == 2)
        assert scene.status.by_hand is None
        assert api.pods() == ["small-2", "small-3"]


async def test_a_pod_that_cannot_be_placed_is_told_and_holds_up_nothing(api, tmp_path):
    async with at_work(api, tmp_path) as scene:
        scene.resize(3)
        await until(lambda: api.replicas("small") == 3)
        await api.settle("small")
        why = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes have a GPU"}
        await api.change_pod("small-3", {"status": {"conditions": [why]}})
        await until(lambda: "pod small-3 cannot be placed: 0/3 nodes" in scene.status.trouble)
        scene.resize(2)
        await until(lambda: api.replicas("small") == 2)
        await api.settle("small")
        assert api.pods() == ["small-1", "small-2"]


async def test_a_rollout_that_does_not_come_to_its_end_is_told(api, tmp_path):
    late = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": 'ReplicaSet "small-5" has timed out progressing.',
    }
    said = 'Deployment pw/small: its rollout does not come to its end: ReplicaSet "small-5" has'
    async with at_work(api, tmp_path) as scene:
        assert scene.status.trouble == ""
        await api.tell("small", late)
        await until(lambda: scene.status.trouble.startswith(said))
        await api.tell("small", late | {"status": "True", "reason": "ReplicaSetUpdated"})
        await until(lambda: scene.status.trouble == "")
        quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
        await api.tell("small", quota)
        told = "Deployment pw/small: its pods cannot be made: exceeded quota: gpus"
        await until(lambda: scene.status.trouble == told)


@pytest.mark.parametrize(
    ("condition", "after", "told"),
    [
        ({"type": "Available", "status": "False"}, 119.0, ""),
        (
            {"type": "Available", "status": "False"},
            121.0,
            "LeaderWorkerSet pw/big: its groups have not all been ready for 121 s",
        ),
        ({"type": "Available", "status": "True"}, 121.0, ""),
        ({"type": "Progressing", "status": "False"}, 121.0, ""),
    ],
)
async def test_groups_that_do_not_become_ready_are_told(
    api, client, condition: dict[str, str], after: float, told: str
):
    sets = f"/apis/leaderworkerset.x-k8s.io/v1/namespaces/{NAMESPACE}/leaderworkersets"
    api.mock.resources["leaderworkerset.x-k8s.io/v1/leaderworkersets"] = {}
    since = dt.datetime(2026, 11, 29, 2, tzinfo=dt.UTC)
    condition |= {"lastTransitionTime": since.isoformat().replace("+00:00", "Z")}
    group = {
        "metadata": {"name": "big", "namespace": NAMESPACE},
        "spec": {"replicas": 2},
        "status": {"conditions": [condition]},
    }
    await api.mock.post(sets, json=group)
    settings = made(name="big", kind="LeaderWorkerSet")
    assert settings.kubernetes is not None
    pool = pools.KubernetesPool(
        "a",
        settings,
        settings.kubernetes,
        client,
        metrics=Metrics(CollectorRegistry()),
        on_change=lambda: None,
        nodes=dict,
        held=str,
        clock=time.monotonic,
        wall=lambda: since.timestamp() + after,
    )
    await pool.open()
    assert pool.status().trouble == told


async def test_groups_of_a_leader_worker_set_go_from_the_end(api, client):
    path = f"/apis/leaderworkerset.x-k8s.io/v1/namespaces/{NAMESPACE}/leaderworkersets"
    from services.scaler.pools.places import WorkloadKind
    from services.scaler.targets.kubernetes.client import workloads

    kind = WorkloadKind.LEADER_WORKER_SET
    api.mock.resources["leaderworkerset.x-k8s.io/v1/leaderworkersets"] = {}
    api.mock[kmock.method.PUT, f"{path}/big/scale"] << (lambda request: request.data)
    await api.mock.post(
        path, json={"metadata": {"name": "big", "namespace": NAMESPACE}, "spec": {"replicas": 4}}
    )
    ((found,), _) = await client.list(workloads(kind, NAMESPACE, "big"))
    assert found.replicas == 4
    assert found.labels == {
        "leaderworkerset.sigs.k8s.io/name": "big",
        "leaderworkerset.sigs.k8s.io/worker-index": "0",
    }
    await client.scale(kind, NAMESPACE, "big", 3, "")
    assert ("PUT", f"{path}/big/scale") in api.calls


async def test_the_fleet_drains_the_idle_one_and_it_is_the_one_that_goes(api, tmp_path):
    await api.deploy("small", 3)
    path = api.kubeconfig(tmp_path)
    metrics, loads = Metrics(CollectorRegistry()), Loads()
    scaling = Scaling(pools={"a": made(3)})
    target = KubernetesTarget(scaling.pools, lambda: KubernetesClient.open(path), metrics)
    clock = asyncio.get_running_loop().time
    fixed = sizes(scaling, loads)
    fleet = Fleet(scaling, target, loads, metrics, fixed, clock=clock, decide_seconds=0.02)
    await fleet.adopt()
    running = asyncio.create_task(fleet.run())
    names = {
        one.replica.id.rpartition("-uid")[0]: one.replica.id for one in fleet.pools()[0].replicas
    }
    busy = {names["small-1"]: 3, names["small-2"]: 0, names["small-3"]: 1}
    loads.take("router", Report({}, busy), clock())
    fleet.configure(Scaling(pools={"a": made(2)}))
    await until(lambda: api.cost("small-2") == DRAINS)
    states = {one.replica.id: one.state for one in fleet.pools()[0].replicas}
    assert states[names["small-2"]] is ReplicaState.DRAINING
    async with asyncio.timeout(8.0):
        while api.replicas("small") != 2:
            loads.take("router", Report({}, busy), clock())
            await asyncio.sleep(0.05)
    await api.settle("small")
    assert api.pods() == ["small-1", "small-3"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await target.close()
