"""The pages say what the tree holds."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.sizing.settings import Budget, Measure, Money, Scale
from services.scaler.pools.places import TAINTS
from services.scaler.pools.pool import Pool, Restart
from tools import metrics, scaling_keys, settings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_tables_of_settings_are_the_services_own() -> None:
    text = settings.PAGE.read_text()
    assert text == settings.page(text), "run: python -m tools.settings"


def test_the_tables_of_metrics_are_the_services_own() -> None:
    text = metrics.PAGE.read_text()
    assert text == metrics.page(text), "run: python -m tools.metrics"


def test_the_tables_of_keys_are_the_scaling_policys_own() -> None:
    text = scaling_keys.PAGE.read_text()
    assert text == scaling_keys.page(text), "run: python -m tools.scaling_keys"


@pytest.mark.parametrize("kind", [Pool, Scale, Budget, Money, Restart])
def test_every_key_of_the_scaling_policy_has_a_row(kind: type) -> None:
    schema = TypeAdapter(kind).json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    names = {name for part in parts for name in part.get("properties", {})}
    names -= {"config_pbtxt"}  # no key of the file
    rows = re.findall(r"^\| `([^`]+)` \|", scaling_keys.tables(), re.MULTILINE)
    assert names <= {re.split(r"[.\]\[]+", row)[-1] for row in rows}


def test_every_measure_has_a_row() -> None:
    assert scaling_keys.measures().keys() == set(map(str, Measure))


def test_a_key_has_its_values_and_its_default() -> None:
    rows = {key.name: key for key in scaling_keys.keys(Scale, "scale")}
    assert [
        (rows[name].values, rows[name].default)
        for name in (
            "scale.max",
            "scale.work.window_seconds",
            "scale.signals.<measure>.target",
            "scale.rules[].change",
            "scale.behavior.scale_up.select_policy",
            "scale.queries.<name>.per_replica",
        )
    ] == [
        ("whole number, from 1 to 1,024", "must be given"),
        ("number, from 5 to 3,600", "`60`"),
        ("number, more than 0 to 1,000,000,000", "must be given"),
        ("whole number, from -100 to 100", "must be given"),
        ("`Max`, `Min`, `Disabled`", "`Max`"),
        ("true, false", "`true`"),
    ]


def test_a_pools_keys_have_theirs_too() -> None:
    rows = {key.name: key for key in scaling_keys.keys(Pool, "pool")}
    assert [
        (rows[name].values, rows[name].default)
        for name in (
            "pool.usd_per_hour",
            "pool.spot_notice",
            "pool.notice_seconds",
            "pool.slots[].gpus",
            "pool.kubernetes.kind",
            "pool.kubernetes.metrics_port",
            "pool.external.addresses",
        )
    ] == [
        ("number, from 0 to 1,000,000", "`0`"),
        ("text", "empty"),
        ("number, more than 0 to 86,400", "`30`"),
        ("list; each: whole number, from 0 to 1,023", "none"),
        ("`Deployment`, `LeaderWorkerSet`", "`Deployment`"),
        ("whole number, from 0 to 65,535", "`8002`"),
        ("list; each: text", "none"),
    ]
    assert TAINTS[0] in rows["pool.kubernetes.taints"].default
    assert not any(name.startswith("pool.scale.") for name in rows), "they have their own table"
    assert "pool.config_pbtxt" not in rows, "no key of the file"


def test_a_metric_has_its_kind_and_its_labels() -> None:
    rows = {row.name: row for rows in metrics.services().values() for row in rows}
    shown = {
        name.removeprefix("pennyweight_"): (rows[name].kind, rows[name].labels)
        for name in (
            "pennyweight_router_requests_total",
            "pennyweight_router_queued_seconds",
            "pennyweight_router_waiting",
            "pennyweight_router_shed_total",
            "pennyweight_cache_lookups_total",
            "pennyweight_scaler_watchers",
        )
    }
    assert shown == {
        "router_requests_total": ("counter", ("route", "tier", "status")),
        "router_queued_seconds": ("histogram", ("tier",)),
        "router_waiting": ("gauge", ("tier",)),
        "router_shed_total": ("counter", ("tier",)),
        "cache_lookups_total": ("counter", ("result",)),
        "scaler_watchers": ("gauge", ()),
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    named = set(
        re.findall(r"\bpennyweight_(?:router|cache|scaler|log|folder)_\w+", page.read_text())
    )
    assert named <= metrics.names()


def alerts() -> list[dict[str, str]]:
    """The rules that Prometheus is given."""
    folder = ROOT / "deploy" / "prometheus"
    named_files = yaml.safe_load((folder / "prometheus.yml").read_text())["rule_files"]
    return [
        rule
        for name in named_files
        for group in yaml.safe_load((folder / name).read_text())["groups"]
        for rule in group["rules"]
    ]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_alert_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"\balerts? (`\w+`(?:, `\w+`)*)", page.read_text())
    known = {rule["alert"] for rule in alerts()}
    assert {one for names in named for one in re.findall(r"\w+", names)} <= known


def test_a_pool_that_lacks_replicas_is_told() -> None:
    (rule,) = [rule for rule in alerts() if rule["alert"] == "PoolShortOfReplicas"]
    assert 'pennyweight_scaler_replicas{state="ready"}' in rule["expr"]
    assert ReplicaState.READY == "ready"


def test_alerts_are_about_metrics_that_exist() -> None:
    rules = alerts()
    assert rules
    for rule in rules:
        about = set(re.findall(r"\bpennyweight_\w+", rule["expr"]))
        assert about
        assert about <= set(metrics.names())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_inside_the_tree_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
        assert target in targets
