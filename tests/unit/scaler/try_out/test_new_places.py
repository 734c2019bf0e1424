"""A file that is sent names no place that the one in force does not, unless it is allowed."""

import pytest
import yaml

from services.common.config import ConfigError
from services.scaler.try_out.checks import check

TRITON = {"tier": "small", "model": "m", "precision": "int8"}
LOCAL = TRITON | {
    "repository": "models",
    "slots": [{}],
    "size": 1,
    "parameters": {"weights": "weights/int8", "threads": 1},
}
THEIRS = TRITON | {"external": {"addresses": ["10.0.0.7:8001"]}}
NAMED = TRITON | {"external": {"dns": "tritons.svc:8001"}}
PODS = TRITON | {"kubernetes": {"namespace": "ml", "name": "small"}, "size": 1}
LIVE = {"local": LOCAL, "theirs": THEIRS, "named": NAMED, "pods": PODS}


@pytest.fixture
def checked(tmp_path):
    for repository in ("models", "others"):
        for model in ("m", "n"):
            (tmp_path / repository / model).mkdir(parents=True)
            (tmp_path / repository / model / "config.pbtxt").write_text('backend: "python"')
    path = str(tmp_path / "policies" / "scaling.yaml")

    def checked(pools, allowed=(), *, by_hand=False):
        here = {"cores": [0], "gpus": None, "queries": None}
        live = None if by_hand else yaml.safe_dump({"pools": LIVE})
        text = yaml.safe_dump({"pools": pools})
        check(text, path=path, live=live, allowed=allowed, **here)

    return checked


def test_sizes_settings_and_new_pools_of_places_that_are_there_are_taken(checked):
    changed = LOCAL | {"slots": [{}] * 3, "size": 2, "drain_seconds": 7, "max_in_flight": 8}
    changed["parameters"] = {"weights": "weights/int8", "threads": 4, "fast": True}
    fewer = {"local": changed, "another": THEIRS, "theirs": NAMED}
    checked(fewer)


STRANGE = [
    ({"external": {"addresses": ["10.0.0.7:8001", "6.6.6.6:1"]}}, "external.addresses.1", "6:1"),
    ({"external": {"dns": "evil.example:1"}}, "external.dns", "evil.example:1"),
    (THEIRS | {"tier": "large"}, "external.addresses.0", "large"),
    (PODS | {"kubernetes": {"namespace": "ml", "name": "mine"}}, "kubernetes.name", "mine"),
    (PODS | {"kubernetes": PODS["kubernetes"] | {"port": 9}}, "kubernetes.name", "small:9"),
    (LOCAL | {"repository": "others"}, "repository", "others/m"),
    (LOCAL | {"repository": "/etc"}, "repository", "/etc/m"),
    (LOCAL | {"model": "n"}, "repository", "models/n"),
    (LOCAL | {"parameters": {"weights": "../evil"}}, "parameters.weights", "weights=../evil"),
    (LOCAL | {"parameters": {"EXECUTION_ENV_PATH": "/e"}}, "parameters.EXECUTION_ENV_PATH", "/e"),
    (LOCAL | {"spot_notice": "http://10.0.0.9/"}, "spot_notice", "http://10.0.0.9/"),
]  # fmt: skip


@pytest.mark.parametrize(("pool", "key", "value"), STRANGE)
def test_new_places_are_refused_by_line_key_rule_and_value(checked, pool, key, value):
    with pytest.raises(ConfigError) as refused:
        checked({"a": TRITON | pool})
    (problem,) = refused.value.details
    assert problem.key == f"pools.a.{key}"
    assert problem.line > 1
    assert "must be what the file in force has there for tier" in problem.rule
    assert "PENNYWEIGHT_SCALER_PLACES_ALLOWED" in problem.rule
    assert value in f"{problem.rule} {problem.value}"


def test_what_would_be_valid_is_named(checked):
    with pytest.raises(ConfigError, match=r"for tier small \(10.0.0.7:8001, tritons.svc:8001\)"):
        checked({"a": THEIRS | {"external": {"addresses": ["6.6.6.6:1"]}}})


def test_folders_of_the_host_are_not_looked_at_for_others(checked):
    """Whether one is there is no caller's to know."""
    with pytest.raises(ConfigError, match="must be what the file in force has there"):
        checked({"a": LOCAL | {"repository": "/nowhere"}})


def test_allowed_places_and_those_of_a_hand_are_taken(checked, tmp_path):
    new = {"a": LOCAL | {"repository": "others"}, "b": THEIRS | {"external": {"dns": "new:1"}}}
    checked(new, [str(tmp_path / "others"), "new:1"])
    with pytest.raises(ConfigError, match="others/m"):
        checked(new, [str(tmp_path / "other"), "new:1"])
    checked(new, by_hand=True)


@pytest.mark.parametrize("where", ["repository", "model", "repository in force", "name too long"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["sent", "by hand"])
def test_a_folder_that_leads_nowhere_is_named(checked, tmp_path, where, *, by_hand):
    round_, pool = tmp_path / "round", dict(LOCAL)
    round_.symlink_to("round")
    match where:
        case "repository":
            pool["repository"] = "round"
        case "model":
            (tmp_path / "models" / "round").symlink_to("round")
            pool["model"] = "round"
        case "repository in force":
            (tmp_path / "models").rename(tmp_path / "away")
            (tmp_path / "models").symlink_to("models")
        case "name too long":
            pool["repository"] = "round" * 100
    named = "round" if pool != LOCAL else "models"
    with pytest.raises(ConfigError, match=rf"pools.local.(model|repository): must .*/{named}"):
        checked({"local": pool}, by_hand=by_hand)
