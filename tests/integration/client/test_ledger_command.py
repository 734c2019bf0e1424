"""``pennyweight ledger`` over files as routers write them."""

import json
from pathlib import Path
from typing import Any

from tests.integration.client.running import pennyweight, rows_of


def request(request_id: str, tier: str = "small", paid: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "request",
        "request_id": request_id,
        "handle": f"h-{request_id}",
        "tenant": "acme",
        "route": "chat",
        "tier": tier,
        "cache": "miss",
        "prompt_tokens": 1000,
        "output_tokens": 10,
        "micro_usd": paid,
        "baseline_micro_usd": 40,
        "time": 1790000000.5,
        "attributes": {"team": "x"},
        **changes,
    }


def pair(request_id: str, shadow: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "pair",
        "request_id": request_id,
        "tenant": "acme",
        "route": "chat",
        "answered": "small",
        "tiers": [{"tier": "small", "micro_usd": 3}, {"tier": "large", "micro_usd": 40}],
        "features": [[3, 1.0]],
        "shadow_micro_usd": shadow,
        "time": "2026-11-02T10:00:00.000+00:00",
        **changes,
    }


def outcome(request_id: str, **said: Any) -> dict[str, Any]:
    time = "2026-11-02T10:00:00.000+00:00"
    return {"kind": "outcome", "request_id": request_id, "time": time, **said}


def write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


async def test_a_ledger_of_the_first_days_is_added_up(tmp_path: Path) -> None:
    """Its records have neither kind nor id."""

    def line(tier: str, cache: str, paid: int) -> dict[str, Any]:
        told = request("", tier, paid, cache=cache, baseline_micro_usd=40_000)
        return {key: told[key] for key in told if key not in ("kind", "request_id", "time")}

    write(tmp_path / "a.jsonl", line("small", "miss", 3), line("small", "exact", 0))
    write(tmp_path / "b.jsonl", line("large", "miss", 40_000))
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"handle": "h2", "ten')
    ended = await pennyweight("ledger", "--folder", str(tmp_path), "--by", "tier")
    assert ended.code == 0, ended.err
    assert rows_of(ended.out) == [
        ["large", "1", "0", "1,000", "10", "$0.0400", "0 µ$", "0 µ$", "0%"],
        ["small", "2", "1", "2,000", "20", "3 µ$", "0 µ$", "$0.0800", "100%"],
        ["all", "3", "1", "3,000", "30", "$0.0400", "0 µ$", "$0.0800", "67%"],
    ]
    assert "left out: 1" in ended.err


async def test_shadow_runs_are_no_requests_and_are_taken_off_what_was_saved(
    tmp_path: Path,
) -> None:
    write(
        tmp_path / "a.jsonl",
        request("1"),
        request("2"),
        request("3", "large", 43),
        pair("1", 40),
        pair("3", 0, answered="large"),
        {"kind": "lever", "route": "chat"},
    )
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert rows_of(ended.out) == [
        ["chat", "3", "0", "3,000", "30", "49 µ$", "40 µ$", "31 µ$", "26%"]
    ]
    assert ended.err == ""


async def test_a_shadow_run_is_paid_by_the_tier_that_answered(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        request("1"),
        request("2", "large", 40),
        pair("1", 40),
        pair("2", 5, kind="cached_pair", answered=""),
        pair("gone", 7),
    )
    ended = await pennyweight("ledger", "--folder", str(tmp_path), "--by", "tier")
    rows = {row[0]: row[6] for row in rows_of(ended.out)}
    assert rows == {"large": "5 µ$", "small": "47 µ$", "all": "52 µ$"}


async def test_outcomes_are_joined_to_their_requests(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        request("1"),
        request("2", "large", 43),
        request("3"),
        request("4", route="other"),
        pair("2", 14),
        outcome("1", resolved=True, rating=1.0),
        outcome("2", resolved=False),
        outcome("nobody", resolved=True, rating=-1.0),
    )
    write(tmp_path / "b.jsonl", outcome("3", rating=0.5, resolved=None))
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    rows = rows_of(ended.out)
    # 3 for the first, 43 and its shadow run for the second: 60 for one resolved task.
    assert ["chat", "2", "50%", "60 µ$", "2", "+0.75"] in rows
    assert ["other", "0", "-", "-", "0", "-"] in rows
    assert ["all", "2", "50%", "60 µ$", "2", "+0.75"] in rows


async def test_the_first_outcome_of_a_request_counts(tmp_path: Path) -> None:
    later = {"time": "2026-11-03T10:00:00.000+00:00"}
    write(
        tmp_path / "a.jsonl",
        request("1"),
        outcome("1", resolved=False, rating=-1.0, **later),
        outcome("1", resolved=True),
    )
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert rows_of(ended.out)[-1] == ["chat", "1", "100%", "3 µ$", "0", "-"]


async def test_without_outcomes_there_is_no_table_of_them(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", request("1"))
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert "resolved" not in ended.out


async def test_no_ledger(tmp_path: Path) -> None:
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert ended.code == 2
    assert "No ledger in" in ended.err
