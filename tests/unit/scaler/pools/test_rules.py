"""Pools that do not go with each other, with this machine or with their place."""

import pytest

from services.common.config import ConfigError
from services.scaler.config import Scaling
from tests.making.scaling_files import GOOD


@pytest.mark.parametrize(
    ("cpus", "problem"),
    [
        ("[0, 1]", ""),
        ("[]", ""),
        ("[0, 1, 7]", "must be cores that this machine has, 0-1, got 7"),
        ("[2, 3, 4, 9]", "must be cores that this machine has, 0-1, got 2-4, 9"),
        ("[1, 1]", "names a core twice, got [1, 1]"),
        ("[-1]", "must be at least 0, got -1"),
        ("[70000]", "must be at most 65535, got 70000"),
    ],
)
def test_a_slot_may_only_name_cores_that_there_are(write, cpus, problem):
    path = write(GOOD.replace("cpus: [0, 1]", f"cpus: {cpus}"))
    if not problem:
        assert Scaling.load(path, {0, 1}).pools["a"].slots[1].cpus in ((0, 1), ())
        return
    with pytest.raises(ConfigError) as caught:
        Scaling.load(path, {0, 1})
    (found,) = caught.value.problems
    assert found.startswith("line 9: pools.a.slots.1.cpus")
    assert found.endswith(problem)


def test_cores_of_another_machine_are_not_judged(write):
    path = write(GOOD.replace("cpus: [0, 1]", "cpus: [63]"))
    assert Scaling.load(path).pools["a"].slots[1].cpus == (63,)


def test_free_ports_may_repeat(write):
    text = GOOD.replace("{grpc_port: 1, metrics_port: 2}", "{}").replace("grpc_port: 3", "cpus: []")
    with pytest.raises(ConfigError, match="appears twice"):
        Scaling.load(write(text))
    text = GOOD.replace("{grpc_port: 1, metrics_port: 2}", "{}").replace(
        "{grpc_port: 3, metrics_port: 4, cpus: [0, 1]}", "{}"
    )
    assert Scaling.load(write(text)).pools["a"].slots[0].grpc_port == 0


CLUSTER = "kubernetes: {namespace: pw, name: small}"
SLOTS = """\
    repository: models
    slots:
      - {grpc_port: 1, metrics_port: 2}
      - {grpc_port: 3, metrics_port: 4, cpus: [0, 1]}
"""
PARAMETERS = "    parameters: {model: weights, num_threads: 2, reuse: true}\n"


def elsewhere(place: str) -> str:
    return GOOD.replace(SLOTS, f"    {place}\n").replace(PARAMETERS, "")


def test_a_pool_on_kubernetes(write):
    pool = Scaling.load(write(elsewhere(CLUSTER))).pools["a"]
    assert pool.kubernetes is not None
    assert (pool.kubernetes.kind, pool.kubernetes.port) == ("Deployment", 8001)
    assert (pool.slots, pool.repository) == ((), None)


def test_a_workload_is_of_one_pool_alone(write):
    second = elsewhere(CLUSTER).partition("pools:\n")[2].replace("  a:", "  b:")
    with pytest.raises(ConfigError) as caught:
        Scaling.load(write(elsewhere(CLUSTER) + second))
    (problem,) = caught.value.problems
    assert "pools.b.kubernetes.name: must be a workload of its own, pool a has it too" in problem
    assert problem.endswith("got Deployment pw/small")
    other = second.replace("name: small}", "name: small, kind: LeaderWorkerSet}")
    assert len(Scaling.load(write(elsewhere(CLUSTER) + other)).pools) == 2


@pytest.mark.parametrize("place", ["addresses: ['10.0.0.1:8001', '[::1]:8001']", "dns: a.b:8001"])
def test_a_pool_of_others_has_no_size(write, place):
    text = elsewhere(f"external: {{{place}}}").replace("    size: 1\n", "")
    assert Scaling.load(write(text)).pools["a"].first == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace(SLOTS, ""), "line 2: pools.a: must have one of slots, kubernetes, external"),
        (
            GOOD + f"    {CLUSTER}\n",
            "line 12: pools.a.kubernetes: must not stand beside slots: a pool has one place",
        ),
        (
            elsewhere(CLUSTER) + "    repository: models\n",
            "line 8: pools.a.repository: must not stand beside kubernetes: it is of pools on slots",
        ),
        (
            elsewhere(CLUSTER) + PARAMETERS,
            "line 8: pools.a.parameters: must not stand beside kubernetes",
        ),
        (
            GOOD.replace("    repository: models\n", ""),
            "pools.a.repository: is missing: replicas on slots need one",
        ),
        (
            elsewhere("external: {addresses: ['x:1']}"),
            "line 7: pools.a.size: must not stand beside external: its servers are as they are",
        ),
        (elsewhere("external: {}"), "pools.a.external: must have either addresses or dns"),
        (
            elsewhere("external: {addresses: ['x:1', 'x:1']}"),
            "pools.a.external.addresses: names a server twice, got x:1",
        ),
        (
            elsewhere("external: {addresses: [x]}"),
            "pools.a.external.addresses.0: must be host:port, such as 10.0.0.7:8001, got 'x'",
        ),
        (
            elsewhere("external: {dns: 'x:99999'}"),
            "pools.a.external.dns: must be host:port",
        ),
        (
            elsewhere("kubernetes: {namespace: pw, name: Small}"),
            "pools.a.kubernetes.name: must be the name of a Kubernetes object",
        ),
        (
            elsewhere("kubernetes: {namespace: pw, name: a, kind: Job}"),
            "pools.a.kubernetes.kind: must be Deployment or LeaderWorkerSet, got 'Job'",
        ),
        (
            elsewhere("kubernetes: {namespace: pw, name: a, taints: ['a b']}"),
            "pools.a.kubernetes.taints.0: must be the key of a taint",
        ),
    ],
)
def test_where_a_pool_cannot_be(write, text, message):
    with pytest.raises(ConfigError) as caught:
        Scaling.load(write(text))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def many(count: int, place: str) -> str:
    of = "tier: t, model: m, precision: p"
    return "pools:\n" + "".join(
        f"  p{at}: {{{of}, {place.replace('AT', str(at))}}}\n" for at in range(count)
    )


POD = "kubernetes: {namespace: n, name: w}"
WAITING = "{signal: waiting, above: 1, change: 1}"
NIGHT = "{cron: '0 AT * * *', duration_seconds: 60, max: 1}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (many(257, f"{POD}, size: 0"), "pools: must have at most 256 entries"),
        (many(5, f"{POD}, size: 1024"), "4,096 replicas (scale.max, size or addresses) together"),
        (many(5, f"{POD}, scale: {{max: 1024}}"), "4,096 replicas"),
        (
            many(5, f"{POD}, scale: {{max: 1, schedule: [{NIGHT.replace('1}', '1024}')}]}}"),
            "4,096 replicas",
        ),
        (
            many(3, f"repository: m, size: 0, slots: [{', '.join(['{}'] * 400)}]"),
            "line 1: pools: must have at most 1,024 slots together, got 1,200",
        ),
        (
            many(3, f"external: {{addresses: [{', '.join(f'h{x}:1' for x in range(200))}]}}"),
            "512 external addresses together, got 600",
        ),
        (
            many(100, f"{POD}, scale: {{max: 1, rules: [{', '.join([WAITING] * 30)}]}}"),
            "2,048 rules together, got 3,000",
        ),
        (
            many(60, f"{POD}, scale: {{max: 1, schedule: [{', '.join([NIGHT] * 10)}]}}"),
            "512 schedules together, got 600",
        ),
        (
            many(
                30,
                f"{POD}, scale: {{max: 1, queries: "
                f"{{{', '.join(f'q{x}: {{query: up, target: 1}}' for x in range(10))}}}}}",
            ),
            "256 queries together, got 300",
        ),
    ],
)
def test_what_rounds_and_ticks_go_over_is_bounded_for_all_pools_together(write, text, message):
    with pytest.raises(ConfigError) as caught:
        Scaling.load(write(text), models=False)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems
