"""``pennyweight ledger`` over files as routers write them."""

import json
from pathlib import Path
from typing import Any

from tests.integration.client.running import pennyweight, rows_of
from tests.making import ledger as making
from tests.making.old_ledger import first_days, lines, outcome, pair, request


def write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text(lines(*records))


async def test_a_ledger_of_the_first_days_is_added_up(tmp_path: Path) -> None:
    """Its records have neither kind nor id."""

    def line(tier: str, cache: str, paid: int) -> dict[str, Any]:
        return first_days(tier, paid, cache=cache, baseline_micro_usd=40_000)

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
    assert "left out: 1 (b.jsonl: 1)." in ended.err


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
    told = await pennyweight("ledger", "--folder", str(tmp_path), "--json")
    assert [json.loads(line) for line in told.out.splitlines()] == [
        {
            "kind": "route",
            "name": "chat",
            "requests": 3,
            "cached": 0,
            "prompt_tokens": 3000,
            "output_tokens": 30,
            "paid": 49,
            "shadow": 40,
            "saved": 31,
            "baseline": 120,
            "known": 0,
            "resolved": 0,
            "known_cost": 0,
            "rated": 0,
            "ratings": 0.0,
        }
    ]
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


async def test_a_ledger_is_added_up_by_day(tmp_path: Path) -> None:
    evidence = making.attempt("large", 40, cause="evidence", verdict="evidence")
    (tmp_path / "new.jsonl").write_text(
        making.line(making.request("1", making.attempt(), evidence))
        + making.line(making.pair("1"))
        + making.line(making.outcome("1", resolved=True))
    )
    write(tmp_path / "old.jsonl", request("2"), pair("2", 40))
    ended = await pennyweight("ledger", "--folder", str(tmp_path), "--by", "day")
    assert ended.code == 0, ended.err
    row = ["1", "0", "1,000", "10", "3 µ$", "40 µ$", "-3 µ$", "-8%"]
    rows = rows_of(ended.out)
    assert rows[:2] == [["2026-09-21", *row], ["2026-11-28", *row]]
    assert ["2026-11-28", "1", "100%", "43 µ$", "0", "-"] in rows


async def test_what_cannot_be_read_is_named_and_the_rest_added_up(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", request("1"))
    (tmp_path / "core.jsonl").write_bytes(b"\x7fELF\0\0\n\xff\xff")
    (tmp_path / "endless.jsonl").write_bytes(b'{"a": "' + b"x" * 40_000_000)
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert ended.code == 0
    assert [row[:2] for row in rows_of(ended.out)] == [["chat", "1"]]
    assert "left out: 2 (core.jsonl: 2)." in ended.err
    assert "left out: 1 (endless.jsonl: " in ended.err


async def test_no_ledger(tmp_path: Path) -> None:
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert ended.code == 2
    assert "No ledger in" in ended.err


async def test_what_a_killed_router_lost_is_told_as_the_least(tmp_path: Path) -> None:
    gap = making.line(making.gap(missing=1_204))
    (tmp_path / "a.jsonl").write_text(making.line(making.request()) + gap)
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    said = " ".join(ended.err.split())
    assert "At least 1,204 are missing" in said
    assert "last half second is in no count, nor is what was under way" in said
