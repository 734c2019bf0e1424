"""What is planned from the environment, what the ledger gained, and how it reads."""

import json
from pathlib import Path

from services.local.ledger_tail import LedgerTail, Totals
from services.local.plan import ROOT, plan
from services.local.screen import status_line
from services.local.status import PoolStatus, Status


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


def _line(**fields: object) -> str:
    record = {"status": "OK", "cache": "miss", "output_tokens": 10, "micro_usd": 2}
    return json.dumps({**record, "baseline_micro_usd": 9, **fields}) + "\n"


def test_the_ledger_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text(_line())
    tail = LedgerTail(tmp_path)
    assert tail.read() == Totals()
    with old.open("a") as file:
        file.write(_line(cache="exact", micro_usd=0))
    new.write_text(_line(status="CANCELLED", output_tokens=None) + _line()[:20])
    assert tail.read() == Totals(2, 1, 1, 10, 2, 18)
    with new.open("a") as file:
        file.write(_line()[20:])
    assert tail.read() == Totals(3, 1, 1, 20, 4, 27)
    assert tail.read() == tail.totals


def test_a_status_in_one_line() -> None:
    pools = (
        PoolStatus("large", 1, (("ready", 1), ("starting", 1)), 0, 2, ""),
        PoolStatus("small", 0, (), 0, 0, ""),
    )
    status = Status(pools, Totals(1200, 0, 300, 40_000, 5_000, 105_000), 2.0, 80.0, 17)
    assert status_line(status) == (
        "large 1 ready, 1 starting, small no replicas · 1,200 requests · 40,000 tokens · "
        "300 from the cache · saved $0.1000"
    )
