"""What deploy/kubernetes holds is what Kubernetes takes, and what our services understand."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from services.cache.config import CacheSettings
from services.common.config import from_environment, parse_document, prefix_of
from services.router.config import RouterSettings
from services.scaler.config import ScalerSettings, Scaling

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy/kubernetes"
SCHEMAS = ROOT / "tests/data/kubernetes"
NEWEST = "1.37"
OWN = {
    "ScaledObject": json.loads((SCHEMAS / "scaled-object.json").read_text()),
    "LeaderWorkerSet": json.loads((SCHEMAS / "leader-worker-set.json").read_text()),
}
SETTINGS = {"router": RouterSettings, "cache": CacheSettings, "scaler": ScalerSettings}


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}:{document['kind']}/{document['metadata']['name']}", document)
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for document in yaml.safe_load_all(path.read_text())
    ]


DOCUMENTS = dict(documents())


def found(kind: str, name: str) -> dict[str, Any]:
    (one,) = [
        one for one in DOCUMENTS.values() if (one["kind"], one["metadata"]["name"]) == (kind, name)
    ]
    return one


def validate(document: dict[str, Any]) -> None:
    schema = OWN.get(document["kind"])
    if schema is None:
        kubernetes_validate.validate(document, NEWEST, strict=True)
        return
    jsonschema.validate(document, schema)
    template = document["spec"].get("leaderWorkerTemplate", {})
    for part in ("leaderTemplate", "workerTemplate"):
        if part in template:
            pod = {"apiVersion": "v1", "kind": "Pod", **template[part]}
            kubernetes_validate.validate(pod, NEWEST, strict=True)


def test_every_manifest_is_one():
    for name, document in DOCUMENTS.items():
        try:
            validate(document)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("Deployment", "scaler", ("spec", "stratgy")),
        ("ScaledObject", "small", ("spec", "coolDownPeriod")),
        ("LeaderWorkerSet", "large", ("spec", "leaderWorkerTemplate", "workers")),
        ("LeaderWorkerSet", "large", ("spec", "leaderWorkerTemplate", "leaderTemplate", "specs")),
    ],
)
def test_a_misspelt_key_is_found(kind, name, path):
    document = json.loads(json.dumps(found(kind, name)))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = {}
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(document)


@pytest.mark.parametrize("service", list(SETTINGS))
def test_what_a_service_is_told_are_its_settings(service):
    kind = "StatefulSet" if service == "router" else "Deployment"
    (container,) = found(kind, service)["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value", "some-name") for one in container["env"]}
    settings = from_environment(SETTINGS[service], prefix_of(service), told)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert settings.listen == f"0.0.0.0:{ports['grpc']}"
    assert settings.metrics_listen == f"0.0.0.0:{ports['metrics']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == ports["grpc"]
    mounts = {one["name"] for one in container["volumeMounts"]}
    spec = found(kind, service)["spec"]
    volumes = {one["name"] for one in spec["template"]["spec"]["volumes"]}
    claims = {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", ())}
    assert mounts == volumes | claims
    if service == "scaler":
        assert settings.keda_listen == f"0.0.0.0:{ports['keda']}"
        assert not settings.stop_replicas_on_exit


def test_the_pools_are_those_that_the_scaler_keeps():
    text = found("ConfigMap", "scaling")["data"]["scaling.yaml"]
    document = parse_document(text, Scaling, source="scaling.yaml")
    pool = Scaling.of(document, ROOT / "policies/scaling.yaml").pools["small"]
    assert pool.kubernetes is not None
    workload = found(pool.kubernetes.kind, pool.kubernetes.name)
    assert workload["metadata"]["namespace"] == pool.kubernetes.namespace
    assert "replicas" not in workload["spec"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert {"name": "grpc", "containerPort": pool.kubernetes.port} in container["ports"]
    assert (
        found("Service", pool.kubernetes.service)["spec"]["selector"]
        == (workload["spec"]["selector"]["matchLabels"])
    )
    pod = workload["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > pool.drain_seconds
    trigger = found("ScaledObject", "small")["spec"]["triggers"][0]["metadata"]
    assert trigger["pool"] == "small"


def test_the_scaler_may_do_what_it_does_and_nothing_else():
    granted = {
        (group, resource, verb)
        for kind, name in (("Role", "scaler"), ("ClusterRole", "pennyweight-scaler-nodes"))
        for rule in found(kind, name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    sets = "leaderworkerset.x-k8s.io"
    assert granted == {
        *(("", "pods", verb) for verb in ("list", "watch", "patch", "delete")),
        *(("discovery.k8s.io", "endpointslices", verb) for verb in ("list", "watch")),
        *(("apps", "deployments", verb) for verb in ("list", "watch")),
        ("apps", "deployments/scale", "update"),
        *((sets, "leaderworkersets", verb) for verb in ("list", "watch")),
        (sets, "leaderworkersets/scale", "update"),
        *(("coordination.k8s.io", "leases", verb) for verb in ("get", "update", "create")),
        *(("", "nodes", verb) for verb in ("list", "watch")),
    }
    for rule in found("Role", "scaler")["rules"]:
        if rule["apiGroups"] == ["apps"]:
            assert rule["resourceNames"] == ["small"]


def test_all_that_can_be_applied_is():
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    others = {"kustomization.yaml", "keda.yaml", "leader-worker-set.yaml"}
    assert {*listed, *others} == {path.name for path in FOLDER.glob("*.yaml")}
