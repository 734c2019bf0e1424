"""What the scaler refuses at the start, and how precisely it says why."""

import os
from pathlib import Path

import pytest

from services.common.config import ConfigError, from_environment, load_document, prefix_of
from services.scaler import check
from services.scaler.config import Capacity, ScalerSettings, Scaling

GOOD = """\
pools:
  a:
    tier: small
    model: m
    precision: int8
    repository: models
    slots:
      - {grpc_port: 1, metrics_port: 2}
      - {grpc_port: 3, metrics_port: 4, cpus: [0, 1]}
    size: 1
    parameters: {model: weights, num_threads: 2, reuse: true}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "models/m").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models/m/config.pbtxt").touch()
        (tmp_path / "policies").mkdir(exist_ok=True)
        path = tmp_path / "policies/scaling.yaml"
        path.write_text(text)
        return path

    return write


def test_a_good_file(write, tmp_path):
    pool = Scaling.load(write(GOOD)).pools["a"]
    assert pool.repository == tmp_path / "models"
    assert pool.capacity is Capacity.ON_DEMAND
    assert pool.slots[1].cpus == (0, 1)
    assert pool.parameters == {"model": "weights", "num_threads": "2", "reuse": "true"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('backend: "python', "must have a config.pbtxt that Triton takes, and it is not a model"),
        ("no_such_key: 1", "no field named"),
        ("parameters {" * 500, "must have a config.pbtxt that Triton takes, and it is not a model"),
        ('name: "other"', "names the model 'other', not 'm', got"),
        (b"\xff", "must have a config.pbtxt that can be read"),
    ],
)
def test_a_model_configuration_that_is_none_is_refused_with_its_line(
    write, written: str | bytes, said: str
):
    path = write(GOOD)
    file = path.parents[1] / "models/m/config.pbtxt"
    file.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(
        ConfigError, match=r"line 4: pools\.a\.model: must have a config\.pbtxt"
    ) as told:
        Scaling.load(path)
    assert said in str(told.value)
    assert Scaling.of(load_document(path, Scaling), path, models=False).pools["a"].size == 1
    assert check.main([str(path)]) == 1
    assert check.main([str(path), "--no-models"]) == 0


def test_a_pipe_in_its_place_is_refused_too(write):
    path = write(GOOD)
    file = path.parents[1] / "models/m/config.pbtxt"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is no plain file"):
        Scaling.load(path)


def test_what_it_says_is_no_key_of_the_file(write):
    path = write(GOOD + "    config_pbtxt: ''\n")
    with pytest.raises(ConfigError, match=r"no such key; .* start_seconds, drain_seconds$"):
        Scaling.load(path)


def test_the_file_we_ship():
    scaling = Scaling.load(Path(__file__).parents[3] / "policies/scaling.yaml")
    assert sorted(scaling.pools) == ["large-cpu", "small-cpu"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: 1", "size: 3", "line 10: pools.a.size: must not exceed the number of"),
        ("size: 1", "size: -1", "line 10: pools.a.size: must be at least 0, got -1"),
        (
            "size: 1",
            "sice: 1",
            "line 10: pools.a.sice: no such key; did you mean size? There are tier, model",
        ),
        ("    size: 1\n", "", "pools.a.size: is missing"),
        (
            "grpc_port: 3",
            "grpc_port: 2",
            (
                "line 9: pools.a.slots.1.grpc_port: must be a port of its own, got 2, as in "
                "pools.a.slots.0.metrics_port"
            ),
        ),
        (
            "grpc_port: 3",
            "grpc_port: 70000",
            "pools.a.slots.1.grpc_port: must be at most 65535, got 70000",
        ),
        ("model: m", "model: n", "line 4: pools.a.model: must be a model folder with config.pbtxt"),
        ("model: m", "model: ../m", "line 4: pools.a.model: must "),
        ("repository: models", "repository: none", "line 6: pools.a.repository: must be a folder"),
        ("  a:", "  A_1:", "pools"),
        (
            "pools:",
            "pool:",
            "line 1: pool: no such key; did you mean pools? There are pools, restart",
        ),
        (
            "tier: small",
            "tier: small\n    tier: large",
            "line 4: pools.a.tier: appears twice, first in line 3",
        ),
        ("precision: int8", "precision: int8\n    capacity: rented", "line 6: pools.a.capacity"),
    ],
)
def test_what_is_refused(write, old, new, message):
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        Scaling.load(path)
    assert caught.value.source == str(path)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


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


def test_settings_come_from_the_environment():
    settings = from_environment(
        ScalerSettings,
        prefix_of("scaler"),
        {"PENNYWEIGHT_SCALER_STOP_REPLICAS_ON_EXIT": "false", "PENNYWEIGHT_ROUTER_LISTEN": "x:1"},
    )
    assert settings.listen == "127.0.0.1:50053"
    assert settings.stop_replicas_on_exit is False


def test_an_address_no_router_can_use_is_refused():
    with pytest.raises(ConfigError, match="advertise_host must be set"):
        from_environment(
            ScalerSettings, prefix_of("scaler"), {"PENNYWEIGHT_SCALER_REPLICA_HOST": "0.0.0.0"}
        )


def test_a_repository_starts_where_the_file_is_named(write, tmp_path):
    write(GOOD)
    for folder in ("mounted/policies", "mounted/models/m"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mounted/models/m/config.pbtxt").touch()
    named = tmp_path / "mounted/policies/scaling.yaml"
    named.symlink_to(tmp_path / "policies/scaling.yaml")
    assert Scaling.load(named).pools["a"].repository == tmp_path / "mounted/models"


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


def test_kedas_port_is_not_open_to_all_by_accident():
    told = {"PENNYWEIGHT_SCALER_KEDA_LISTEN": "0.0.0.0:1"}
    with pytest.raises(ConfigError, match=r"keda_listen: 0\.0\.0\.0:1 is not loopback"):
        from_environment(ScalerSettings, prefix_of("scaler"), told)
    told = {"PENNYWEIGHT_SCALER_LEASE": "scaler"}
    with pytest.raises(ConfigError, match="must be namespace/name"):
        from_environment(ScalerSettings, prefix_of("scaler"), told)


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


def test_places_are_allowed_as_a_list():
    told = {"PENNYWEIGHT_SCALER_PLACES_ALLOWED": "10.0.0.7:8001, /models/large"}
    settings = from_environment(ScalerSettings, prefix_of("scaler"), told)
    assert settings.places_allowed == ("10.0.0.7:8001", "/models/large")
    assert ScalerSettings().places_allowed == ()
