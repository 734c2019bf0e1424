"""compose.yaml and what it mounts agree with the services' settings and policies."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.config import from_environment, prefix_of
from services.common.credentials import DEVELOPMENT_KEY, Identity, Keyring, Role
from services.scaler.config import Scaling
from tools.settings import SERVICES

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = ["router", "cache", "scaler"]
DRAWN = Path("/run/pennyweight")
"""Where containers see what is drawn at the first start."""


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_each_service_is_right(name: str) -> None:
    environment = COMPOSE["services"][name]["environment"]
    prefix = prefix_of(name)
    assert all(key.startswith(prefix) for key in environment)
    settings: Any = from_environment(SERVICES[name.upper()], prefix, environment)
    assert settings.listen.startswith("0.0.0.0:")
    probe = COMPOSE["services"][name]["healthcheck"]["test"][-1]
    assert probe.rpartition(":")[2] == settings.listen.rpartition(":")[2]
    grace = COMPOSE["services"][name]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > settings.drain_seconds


def draw(folder: Path) -> dict[str, str]:
    """What the container that draws secrets leaves in its folder."""
    script = ROOT / "deploy/compose/draw-secrets"
    subprocess.run(["sh", script, folder], check=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_secret_between_services_and_redis_is_drawn_once(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    drawn = draw(here)
    assert draw(here) == drawn
    others = draw(there)
    assert all(drawn[name] != others[name] for name in drawn)
    secrets = {name: text for name, text in drawn.items() if name != "redis.conf"}
    assert all(len(bytes.fromhex(text)) == 32 for text in secrets.values())
    assert len(set(secrets.values())) == len(secrets) == 3
    assert drawn["redis.conf"] == f"requirepass {drawn['redis-password']}\n"


def test_each_is_given_what_it_needs_of_them(tmp_path: Path) -> None:
    drawn = draw(tmp_path)
    wanted = {
        ("router", "redis_password_file"): "redis-password",
        ("router", "handle_key_file"): "handle-key",
        ("cache", "redis_password_file"): "redis-password",
        ("cache", "hash_key_file"): "hash-key",
    }
    for (name, setting), file in wanted.items():
        environment = COMPOSE["services"][name]["environment"]
        settings = from_environment(SERVICES[name.upper()], prefix_of(name), environment)
        assert getattr(settings, setting) == DRAWN / file
        assert f"secrets:{DRAWN}:ro" in COMPOSE["services"][name]["volumes"]
        assert file in drawn
    assert f"{DRAWN}/redis.conf" in COMPOSE["services"]["redis"]["command"]
    assert not any(word == "no" for word in COMPOSE["services"]["redis"]["command"])
    assert "secrets" not in str(COMPOSE["services"]["operator"]["volumes"])


@pytest.mark.parametrize("name", [*OURS, "operator"])
def test_each_service_is_unprivileged_and_read_only(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["user"] != "0"
    assert service["build"]["target"] == name
    assert f" AS {name}\n" in (ROOT / "Dockerfile").read_text()


def test_the_scaler_can_write_its_scaling_file_and_no_other_policy(tmp_path: Path) -> None:
    scaler, seed = COMPOSE["services"]["scaler"], COMPOSE["services"]["scaling"]
    file = Path(scaler["environment"]["PENNYWEIGHT_SCALER_SCALING_FILE"])
    mounted = f"scaling:{file.parent}"
    assert mounted in scaler["volumes"]
    assert "scaling" in COMPOSE["volumes"]
    assert not any("policies" in volume for volume in scaler["volumes"])
    assert scaler["depends_on"]["scaling"] == {"condition": "service_completed_successfully"}
    # Whoever seeds it is the user who writes it, and repositories are found from where it lies.
    assert seed["user"] == scaler["user"]
    assert mounted in seed["volumes"]
    assert file.parent.parent == Path("/app")
    assert f"-o pennyweight -g pennyweight {file.parent}\n" in (ROOT / "Dockerfile").read_text()
    assert seed["entrypoint"][2:] == ["/app/policies/scaling.yaml", str(file)]

    script = ROOT / "deploy/compose/seed-scaling"
    (tmp_path / "from.yaml").write_text("one")
    there = tmp_path / "to.yaml"
    for text in ("one", "two"):  # what is there stays
        (tmp_path / "from.yaml").write_text(text)
        subprocess.run(["sh", script, tmp_path / "from.yaml", there], check=True)
        assert there.read_text() == "one"
    assert not (tmp_path / "to.yaml.new").exists()


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for one in COMPOSE["services"].values() for port in one.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_published_keys_open_what_they_should() -> None:
    files = {name: ROOT / one["file"] for name, one in COMPOSE["secrets"].items()}
    keyring = Keyring.load(files["keys"])

    def identity(key: str) -> Identity:
        return keyring.identify([("authorization", f"Bearer {key}")])

    assert identity(DEVELOPMENT_KEY) == Identity("development", Role.OPERATOR, critical=True)
    service_key = files["service-key"].read_text().strip()
    assert identity(service_key) == Identity("pennyweight", Role.SERVICE)
    assert len(keyring.by_digest) == 2


def test_prometheus_scrapes_every_service_and_every_slot() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    scraped = {
        (job["job_name"], target)
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    wanted = {
        ("triton", f"scaler:{slot.metrics_port}")
        for pool in Scaling.load(ROOT / "policies/scaling.yaml").pools.values()
        for slot in pool.slots
    }
    for name in OURS:
        listen = COMPOSE["services"][name]["environment"][
            f"PENNYWEIGHT_{name.upper()}_METRICS_LISTEN"
        ]
        wanted.add((name, f"{name}:{listen.rpartition(':')[2]}"))
    assert scraped == wanted
