"""What is planned from the environment, what the ledger gained, and how it reads."""

import io
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pennyweight.channel import DEVELOPMENT_KEY
from pennyweight.ledger.money import Money
from services.local.asking import Step
from services.local.ledger_tail import LedgerTail, Totals
from services.local.plan import ADDRESSES, ROOT, StackError, plan, plan_demo
from services.local.screen import Screen, status_line, status_panel
from services.local.status import PoolStatus, Status
from services.scaler.policy.replicas import NEXT_TRY
from tests.making import old_ledger
from tests.making.ledger import attempt, line, outcome, pair, request


def test_services_are_told_of_each_other(tmp_path: Path) -> None:
    found = plan({"PATH": "/bin"}, tmp_path)
    assert [one.name for one in found.services] == ["cache", "scaler", "router"]
    router = found["router"]
    assert (router.module, router.full_name) == (
        "services.router",
        "pennyweight.router.v1.RouterService",
    )
    assert router.environment["PATH"] == "/bin"
    assert router.environment["PENNYWEIGHT_ROUTER_CACHE_ADDRESS"] == "127.0.0.1:50052"
    assert router.environment["PENNYWEIGHT_ROUTER_SCALER_ADDRESS"] == "127.0.0.1:50053"
    assert found.ledger == tmp_path / "ledger"
    assert found.scaler_state == tmp_path / "scaler"
    scaling = Path(found["scaler"].environment["PENNYWEIGHT_SCALER_SCALING_FILE"])
    assert scaling == ROOT / "policies" / "scaling.yaml"


def test_the_environment_goes_first(tmp_path: Path) -> None:
    found = plan(
        {
            "PENNYWEIGHT_CACHE_LISTEN": "0.0.0.0:7000",
            "PENNYWEIGHT_ROUTER_LEDGER_FOLDER": "/ledger",
            "PENNYWEIGHT_ROUTER_ROUTES_FILE": "",
        },
        tmp_path,
    )
    assert found["cache"].listen == "0.0.0.0:7000"
    assert found["router"].environment["PENNYWEIGHT_ROUTER_CACHE_ADDRESS"] == "127.0.0.1:7000"
    assert found.ledger == Path("/ledger")
    routes = found["router"].environment["PENNYWEIGHT_ROUTER_ROUTES_FILE"]
    assert routes == str(ROOT / "policies" / "routes.yaml")


def _scaling(tmp_path: Path) -> Path:
    """A scaling file with pools of two tiers, and weights for the small one."""
    pools = {
        name: {
            "tier": tier,
            "model": tier,
            "precision": "int8",
            "repository": "models",
            "slots": [{"grpc_port": 18101, "metrics_port": 18201}],
            "parameters": {"model": "weights/int8", "num_threads": 1},
        }
        for name, tier in (("one", "small"), ("two", "small"), ("three", "large"))
    }
    (tmp_path / "models/small/weights/damaged").mkdir(parents=True)
    (tmp_path / "models/small/weights/damaged/openvino_model.xml").touch()
    file = tmp_path / "policies" / "scaling.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"pools": pools}))
    return file


def test_replicas_of_one_tier_can_load_other_weights(tmp_path: Path) -> None:
    environ = {"PENNYWEIGHT_SCALER_SCALING_FILE": str(_scaling(tmp_path))}
    state = tmp_path / "state"
    found = plan(environ, state, weights=["small=weights/damaged"])
    told = yaml.safe_load(found.scaling)
    for name, folder in (("one", "damaged"), ("two", "damaged"), ("three", "int8")):
        pool = told["pools"][name]
        assert pool["parameters"] == {"model": f"weights/{folder}", "num_threads": 1}
        assert pool["precision"] == "int8"
        assert pool["slots"] == [{"grpc_port": 18101, "metrics_port": 18201}]
        assert pool["repository"] == str(tmp_path / "models")


def test_the_scaling_file_is_changed_as_the_scaler_reads_it(tmp_path: Path) -> None:
    source = _scaling(tmp_path)
    source.write_text(source.read_text().replace("num_threads: 1", "num_threads: 010", 1))
    (tmp_path / "named/policies").mkdir(parents=True)
    named = tmp_path / "named/policies/scaling.yaml"
    named.symlink_to(source)
    shutil.copytree(tmp_path / "models", tmp_path / "named/models")
    environ = {"PENNYWEIGHT_SCALER_SCALING_FILE": str(named)}
    found = plan(environ, tmp_path / "state", weights=["small=weights/damaged"])
    pools = yaml.safe_load(found.scaling)["pools"].values()
    assert "010" in [pool["parameters"]["num_threads"] for pool in pools]  # not 8
    assert {pool["repository"] for pool in pools} == {str(tmp_path / "named/models")}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("small", "must be TIER=FOLDER, got 'small'"),
        ("=weights/damaged", "must be TIER=FOLDER"),
        ("tiny=weights/damaged", "names the tier 'tiny'; there are: large, small."),
        ("small=weights/int2", "'weights/int2', but .*/models/small/weights/int2 holds no weights"),
    ],
)
def test_weights_that_are_not_there_stop_the_start(tmp_path: Path, weights: str, said: str) -> None:
    environ = {"PENNYWEIGHT_SCALER_SCALING_FILE": str(_scaling(tmp_path))}
    with pytest.raises(StackError, match=said):
        plan(environ, tmp_path / "state", weights=[weights])


def test_nothing_is_written_before_the_state_folder_is_ones_own(tmp_path: Path) -> None:
    """A stack that runs on that folder would take it up."""
    environ = {"PENNYWEIGHT_SCALER_SCALING_FILE": str(_scaling(tmp_path))}
    found = plan(environ, tmp_path / "state", weights=["small=weights/damaged"])
    assert not (tmp_path / "state").exists()
    found.put_scaling()
    written = Path(found["scaler"].environment["PENNYWEIGHT_SCALER_SCALING_FILE"])
    assert written.read_text() == found.scaling
    usual = plan(environ, tmp_path / "state")
    usual.put_scaling()
    assert usual.scaling == ""


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({"PENNYWEIGHT_API_KEY": "of-another-service"}, DEVELOPMENT_KEY),
        ({"PENNYWEIGHT_ROUTER_KEYS_FILE": "keys.yaml"}, None),
    ],
)
def test_the_key_is_the_published_one_where_no_file_names_others(
    tmp_path: Path, environ: dict[str, str], key: str | None
) -> None:
    assert plan(environ, tmp_path).key() == key


def test_a_demo_keeps_a_ledger_of_its_own(tmp_path: Path) -> None:
    environ = {"PENNYWEIGHT_SCALER_SCALING_FILE": str(_scaling(tmp_path))}
    for name, (listen, metrics) in ADDRESSES.items():  # as nothing is to be bound here
        environ[f"PENNYWEIGHT_{name.upper()}_LISTEN"] = listen
        environ[f"PENNYWEIGHT_{name.upper()}_METRICS_LISTEN"] = metrics
    up = plan(environ, tmp_path)
    demo = plan_demo(environ, tmp_path, tmp_path / "demo-1")
    assert demo.state == tmp_path / "demo-1"
    assert up.ledger == tmp_path / "ledger"
    assert demo.ledger == tmp_path / "demo-ledger"
    assert demo["router"].environment["PENNYWEIGHT_ROUTER_LEDGER_FOLDER"] == str(demo.ledger)
    given = environ | {"PENNYWEIGHT_ROUTER_LEDGER_FOLDER": "/elsewhere"}
    assert plan_demo(given, tmp_path, tmp_path / "demo-1").ledger == Path("/elsewhere")


def _line(**changes: Any) -> str:
    return line(request("1", attempt(micro_usd=2), baseline_micro_usd=9, **changes))


def test_the_ledger_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(_line())
    tail = LedgerTail(tmp_path)
    assert tail.read() == Totals()
    with old.open("a") as file:
        file.write(_line(cache="exact", micro_usd=0))
    new.write_text(_line(status="CANCELLED", output_tokens=0) + _line()[:20])
    assert tail.read() == Totals(2, 1, 1, 10, Money(2, 0, 18))
    with new.open("a") as file:
        file.write(_line()[20:])
    assert tail.read() == Totals(3, 1, 1, 20, Money(4, 0, 27))
    with new.open("a") as file:
        file.write(line(pair(shadow_micro_usd=5)) + line(outcome()))
    assert tail.read() == Totals(3, 1, 1, 20, Money(4, 0, 27))
    assert tail.read() == tail.totals


def test_a_ledger_of_before_is_added_up_too(tmp_path: Path) -> None:
    """A router of before may write beside one of now."""
    tail = LedgerTail(tmp_path)
    (tmp_path / "old.jsonl").write_text(
        old_ledger.lines(
            old_ledger.request("1", status="OK"),
            old_ledger.first_days(status="OK"),
            old_ledger.pair("1", 5),
            old_ledger.outcome("1"),
        )
    )
    assert tail.read() == Totals(2, 0, 0, 20, Money(6, 5, 80))
    assert not tail.unreadable.notes()


def test_what_is_no_record_is_noted_and_not_fatal(tmp_path: Path) -> None:
    tail = LedgerTail(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"\0\0\n" + _line().encode())
    assert tail.read().requests == 1
    assert tail.unreadable.notes() == (
        "Lines that could not be read and are left out: 1 (a.jsonl: 1).",
    )


def test_what_is_up_says_where_the_scaler_is_and_what_it_goes_by(tmp_path: Path) -> None:
    usual = ROOT / "policies" / "scaling.yaml"
    moved = {"PENNYWEIGHT_SCALER_LISTEN": "127.0.0.1:7", "PENNYWEIGHT_SCALER_SCALING_FILE": "mine"}
    for environ, address, file, option in (
        ({}, "127.0.0.1:50053", usual, ""),
        (moved, "127.0.0.1:7", "mine", " --address 127.0.0.1:7"),
    ):
        out = io.StringIO()
        Screen(Console(file=out, width=400)).show_up(plan(environ, tmp_path))
        assert f"the scaler is at {address}, and {file} is in force\n" in out.getvalue()
        assert f".venv/bin/pennyweight pools{option}\n" in out.getvalue()


def test_a_status_in_one_line() -> None:
    pools = (
        PoolStatus("large", 1, (("ready", 1), ("starting", 1)), 0, 2, ""),
        PoolStatus("small", 0, (), 0, 0, ""),
    )
    status = Status(
        pools, Totals(1200, 0, 300, 40_000, Money(4_000, 1_000, 105_000)), 2.0, 80.0, 17
    )
    assert status_line(status) == (
        "large 1 ready, 1 starting, small no replicas · 1,200 requests · 40,000 tokens · "
        "300 from the cache · saved $0.1000"
    )
    assert status_line(replace(status, notes=("Something.",))).endswith(" $0.1000 · Something.")


def test_without_a_terminal_a_pools_trouble_is_in_the_line() -> None:
    lines = set()
    for seconds in (3, 2, 1):
        trouble = f"slot 0: ended with 1{NEXT_TRY}{seconds} s"
        pool = PoolStatus("large", 1, (), 0, 0, trouble)
        lines.add(status_line(Status((pool,), Totals(), 0.0, 0.0, None)))
    (line,) = lines  # it changes when something happens, not as time passes
    assert line.startswith("large no replicas (slot 0: ended with 1) · ")


async def test_without_a_terminal_a_start_says_each_change_of_what_it_waits_for_once() -> None:
    async def starting() -> AsyncIterator[tuple[Step, ...]]:
        router = Step("router", "ready", done=True)
        yield (Step("router", "starting", done=False), Step("pool a", "0 of 1 ready", done=False))
        for seconds in (3, 2):
            state = f"0 of 1 ready (no such model{NEXT_TRY}{seconds} s)"
            yield (router, Step("pool a", state, done=False))
        yield (router, Step("pool a", "1 of 1 ready", done=True))

    out = io.StringIO()
    await Screen(Console(file=out, width=200)).show_start(starting())
    said = [re.sub(r" \([\d.]+ s\)$", "", one) for one in out.getvalue().split("\n") if one.strip()]
    assert said == [
        "router: starting",
        "pool a: 0 of 1 ready",
        "router: ready",
        "pool a: 0 of 1 ready (no such model)",
        "pool a: 1 of 1 ready",
    ]


@pytest.mark.parametrize("width", [72, 80, 120])
def test_a_status_keeps_its_words_whole_on_narrow_screens(width: int) -> None:
    trouble = "small-cpu-1a2b3c ended with 137 [/x] before it was ready; see its log for the reason"
    why = "2 replicas: running is 0.8, and [/x] 0.4 is aimed at"
    pools = (PoolStatus("small-cpu", 1, (("ready", 1), ("starting", 1)), 12, 34, trouble, why),)
    totals = Totals(1_234_567, 0, 300_000, 400_000_000, Money(50_000_000, 0, 105_000_000))
    out = io.StringIO()
    screen = Console(file=out, width=width, markup=False)
    screen.print(status_panel(Status(pools, totals, 2000.0, 80_000.0, 17_000)))
    shown = out.getvalue()
    for words in ("small-cpu", "1 ready, 1 starting", "34 running, 12 waiting", "17,000 answers"):
        assert words in shown
    assert set(trouble.split()) <= set(shown.split())
    assert set(why.split()) <= set(shown.split())
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_a_size_that_changes_is_told_with_its_reason_where_there_is_no_terminal():
    totals = Totals(0, 0, 0, 0, Money(0, 0, 0))
    why = "2 replicas: running is 0.8"

    def said(desired: int, *states: tuple[str, int]) -> str:
        pool = PoolStatus("a", desired, states, 0, 0, "", why)
        return status_line(Status((pool,), totals, 0.0, 0.0, None)).partition(" · ")[0]

    assert said(2, ("ready", 1)) == f"a 1 ready of 2: {why}"
    starting = said(2, ("ready", 1), ("starting", 1))
    assert starting == f"a 1 ready, 1 starting of 2: {why}", "a start is long"
    assert said(2, ("ready", 2)) == "a 2 ready", "nothing that changes all the time"
    assert said(1, ("draining", 1), ("ready", 1)) == "a 1 draining, 1 ready"
