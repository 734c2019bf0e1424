"""What the scaler refuses at the start, and how precisely it says why."""

from pathlib import Path

import pytest

from services.common.config import ConfigError, from_environment, prefix_of
from services.scaler.config import ScalerSettings, Scaling
from services.scaler.pools.pool import Capacity
from tests.making.scaling_files import GOOD


def test_a_good_file(write, tmp_path):
    pool = Scaling.load(write(GOOD)).pools["a"]
    assert pool.repository == tmp_path / "models"
    assert pool.capacity is Capacity.ON_DEMAND
    assert pool.slots[1].cpus == (0, 1)
    assert pool.parameters == {"model": "weights", "num_threads": "2", "reuse": "true"}


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


def test_kedas_port_is_not_open_to_all_by_accident():
    told = {"PENNYWEIGHT_SCALER_KEDA_LISTEN": "0.0.0.0:1"}
    with pytest.raises(ConfigError, match=r"keda_listen: 0\.0\.0\.0:1 is not loopback"):
        from_environment(ScalerSettings, prefix_of("scaler"), told)
    told = {"PENNYWEIGHT_SCALER_LEASE": "scaler"}
    with pytest.raises(ConfigError, match="must be namespace/name"):
        from_environment(ScalerSettings, prefix_of("scaler"), told)


def test_places_are_allowed_as_a_list():
    told = {"PENNYWEIGHT_SCALER_PLACES_ALLOWED": "10.0.0.7:8001, /models/large"}
    settings = from_environment(ScalerSettings, prefix_of("scaler"), told)
    assert settings.places_allowed == ("10.0.0.7:8001", "/models/large")
    assert ScalerSettings().places_allowed == ()
