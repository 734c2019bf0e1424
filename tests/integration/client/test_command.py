"""The command as a process of its own, against a scripted router."""

import asyncio
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pennyweight.router.v1 import router_pb2 as pb
from services.common.config import parse_document
from services.common.credentials import KeyFile
from services.common.errors import BadRequest, Overloaded, Violation
from tests.integration.client.scripted_router import DECISION, Stage, events, summary

QUESTION = "Where is my card?"


@dataclass
class Ended:
    code: int
    out: str
    err: str


async def pennyweight(*arguments: str, **environment: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pennyweight.command", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PENNYWEIGHT_API_KEY": "", **environment},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_ask_streams_the_answer_and_sums_up(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert (ended.code, ended.out) == (0, "Your card usually reaches you.\n")
    assert ended.err == (
        "small (int8) · fixed tier · cache miss · 21 + 7 tokens · engine 80.5 ms · total 125 ms"
        " · 3 µ$, saved 37 µ$\n"
    )


async def test_ask_whole_explained(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.CompleteResponse(text="Soon.", summary=summary())]
    wishes = ("--whole", "--explain", "--cache", "bypass")
    ended = await pennyweight("ask", QUESTION, *wishes, PENNYWEIGHT_ADDRESS=stage.address)
    assert (ended.code, ended.out) == (0, "Soon.\n")
    assert ended.err.startswith("The route's policy names this tier.\nroute support-chat · tier")
    assert stage.router.requests[0].terms.cache_use == pb.CACHE_USE_BYPASS


async def test_ask_as_json(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--json", "--address", stage.address)
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["kind"] for line in lines] == ["started", "delta", "delta", "finished"]
    assert lines[-1]["cost"] == {"micro_usd": 3, "baseline_micro_usd": 40}


async def test_an_answer_cannot_steer_the_terminal(stage: Stage) -> None:
    stage.router.script = lambda _: events("\x1b[2JRed \x9b31m[bold]\n\tdone")
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert ended.code == 0, ended.err
    assert ended.out == "[2JRed 31m[bold]\n\tdone\n"


async def test_explain_and_routes(stage: Stage) -> None:
    stage.router.script = lambda _: [
        pb.ExplainResponse(decision=DECISION, prompt_tokens=21, max_micro_usd=90)
    ]
    ended = await pennyweight("explain", QUESTION, "--address", stage.address)
    assert ended.code == 0
    assert "21 prompt tokens · at most 90 µ$" in ended.out

    tiers = [pb.Tier(name="small", model="small", precision="int8", ready_replicas=2)]
    route = pb.Route(name="support-chat", ladder=tiers, fixed_tier="small")
    stage.router.script = lambda _: [pb.ListRoutesResponse(routes=[route], policy_version="v1")]
    ended = await pennyweight("routes", "--address", stage.address)
    assert ended.code == 0
    assert "small ◂ answers" in ended.out
    assert "policy v1" in ended.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            BadRequest.of(Violation("sampling.max_output_tokens", "must be at most 256")),
            "sampling.max_output_tokens: must be at most 256\n",
        ),
        (
            Overloaded("no room", reason="QUEUE_FULL", handle="h-9", retry_after_seconds=2),
            "no room (request h-9)\nTry again in 2 s.\n",
        ),
    ],
)
async def test_refusals_read_as_sentences(stage: Stage, error: Exception, said: str) -> None:
    stage.router.script = lambda _: [error]
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == said


async def test_a_wrong_key_is_said(stage: Stage) -> None:
    ended = await pennyweight("routes", PENNYWEIGHT_ADDRESS=stage.address, PENNYWEIGHT_API_KEY="x")
    assert ended.code == 1
    assert ended.err.startswith("unknown API key\n")


@pytest.mark.parametrize("command", [("ask", QUESTION), ("routes",), ("pools",)])
async def test_nothing_running(command: tuple[str, ...]) -> None:
    ended = await pennyweight(*command, "--address", "127.0.0.1:1")
    assert ended.code == 3
    assert ended.err.startswith("Nothing answers at 127.0.0.1:1.\nStart it with `make up`.\n")


async def test_wrong_words_are_usage_errors(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--cache", "never", "--address", stage.address)
    assert (ended.code, ended.err) == (2, "'never' is no cache use\n")


@pytest.mark.parametrize("role", ["caller", "service"])
async def test_a_made_key_fits_the_key_file(role: str) -> None:
    ended = await pennyweight("key", "--tenant", "acme", "--role", role)
    assert ended.code == 0
    entry = ended.err[ended.err.index("keys:") :]
    assert yaml.safe_load(entry)["keys"][0]["tenant"] == "acme"
    (parsed,) = parse_document(entry, KeyFile, source="entry").keys
    assert parsed.sha256 == hashlib.sha256(ended.out.strip().encode()).hexdigest()
    assert parsed.role == role


async def test_the_ledger_is_added_up(tmp_path: Path) -> None:
    def line(tier: str, cache: str, paid: int) -> str:
        record = {"handle": "h", "tenant": "acme", "route": "r", "tier": tier, "cache": cache}
        counts = {"prompt_tokens": 1000, "output_tokens": 10}
        money = {"micro_usd": paid, "baseline_micro_usd": 40_000}
        return json.dumps({**record, **counts, **money, "attributes": {"team": "x"}})

    first = [line("small", "miss", 3), line("small", "exact", 0)]
    (tmp_path / "a.jsonl").write_text("\n".join(first) + "\n")
    (tmp_path / "b.jsonl").write_text(line("large", "miss", 40_000) + '\n{"handle": "h2", "ten')
    ended = await pennyweight("ledger", "--folder", str(tmp_path), "--by", "tier")
    assert ended.code == 0
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in ended.out.splitlines()]
    assert ["large", "1", "0", "1,000", "10", "$0.0400", "0 µ$", "0%"] in rows
    assert ["small", "2", "1", "2,000", "20", "3 µ$", "$0.0800", "100%"] in rows
    assert ["all", "3", "1", "3,000", "30", "$0.0400", "$0.0800", "67%"] in rows
    assert "left out: 1" in ended.err


async def test_no_ledger(tmp_path: Path) -> None:
    ended = await pennyweight("ledger", "--folder", str(tmp_path))
    assert ended.code == 2
    assert "No ledger in" in ended.err
