"""``python -m services.local traffic`` as a process of its own, against a scripted router."""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pennyweight.router.v1 import router_pb2 as pb
from services.local.plan import ROOT
from tests.integration.client.running import rows_of
from tests.integration.client.scripted_router import ESCALATED, Stage, summary
from tests.making.ledger import attempt, line, request

Answer = Callable[[pb.CompleteRequest], list[Any]]


def told(reason: pb.Reason = pb.REASON_CALIBRATED, **cost: int) -> pb.CompleteResponse:
    result = summary()
    if reason == pb.REASON_ESCALATED:
        result.decision.CopyFrom(ESCALATED)
    result.decision.reason = reason
    result.cost.MergeFrom(pb.Cost(**cost))
    return pb.CompleteResponse(text="Soon.", summary=result)


def routes_and(answer: Answer) -> Callable[[Any], list[Any]]:
    routes = [pb.Route(name="support-chat"), pb.Route(name="support-expert")]

    def script(request: Any) -> list[Any]:
        if isinstance(request, pb.ListRoutesRequest):
            return [pb.ListRoutesResponse(routes=routes, policy_version="v1")]
        return answer(request)

    return script


@asynccontextmanager
async def traffic(address: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.local", "traffic", "--address", address, *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PENNYWEIGHT_API_KEY": "", "COLUMNS": "120"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ran(
    address: str, *arguments: str, ledger: Path = Path("/nowhere")
) -> tuple[int | None, str]:
    arguments = (*arguments, "--ledger", str(ledger))
    async with traffic(address, *arguments) as process:
        out, _ = await process.communicate()
    return process.returncode, out.decode()


def asked(stage: Stage) -> list[pb.CompleteRequest]:
    return [one for one in stage.router.requests if isinstance(one, pb.CompleteRequest)]


async def test_it_tells_which_tiers_answered_why_and_what_was_saved(stage: Stage) -> None:
    number = itertools.count(1)

    def answer(_: pb.CompleteRequest) -> list[Any]:
        escalated = next(number) % 4 == 0
        reason = pb.REASON_ESCALATED if escalated else pb.REASON_CALIBRATED
        return [told(reason, micro_usd=43 if escalated else 3, baseline_micro_usd=40)]

    stage.router.script = routes_and(answer)
    code, out = await ran(stage.address, "--requests", "100", "--in-flight", "7")
    assert code == 0, out
    assert rows_of(out.replace("┃", "│")) == [
        ["tier", "why", "answers", "share", "paid", "baseline", "saved"],
        ["small", "calibrated", "75", "75%", "225 µ$", "3,000 µ$", "92%"],
        ["large", "escalated", "25", "25%", "1,075 µ$", "1,000 µ$", "-8%"],
        ["all", "", "100", "100%", "1,300 µ$", "4,000 µ$", "68%"],
    ]
    assert (
        "Escalated 25%. Paid 1,300 µ$; always the top tier, without a cache: 4,000 µ$. "
        "Saved 68% before what evidence cost: only the router's ledger knows that." in out
    )
    assert "50 of 100 · 0 failed" in out  # on a terminal: a bar instead
    assert len({one.prompt.messages[0].content for one in asked(stage)}) > 90
    for one in asked(stage):
        assert one.route == "support-chat"
        assert one.terms.cache_use == pb.CACHE_USE_BYPASS
        assert one.terms.attributes == {"feature": "traffic"}


async def test_what_evidence_cost_is_taken_off_what_was_saved(stage: Stage, tmp_path: Path) -> None:
    number = itertools.count(1)
    evidence = attempt("large", 40, cause="evidence", verdict="evidence", committed=False)

    def answer(_: pb.CompleteRequest) -> list[Any]:
        name = str(next(number))
        response = told(micro_usd=3, baseline_micro_usd=40)
        response.summary.handle = f"h-{name}"
        record = request(name, attempt(), evidence, reason="calibrated", baseline_micro_usd=40)
        with (tmp_path / "router.jsonl").open("a") as file:
            file.write(line(record))
        return [response]

    stage.router.script = routes_and(answer)
    code, out = await ran(stage.address, "--requests", "10", ledger=tmp_path)
    assert code == 0, out
    assert rows_of(out.replace("┃", "│")) == [
        ["tier", "why", "answers", "share", "paid", "evidence", "baseline", "saved"],
        ["small", "calibrated", "10", "100%", "30 µ$", "400 µ$", "400 µ$", "-8%"],
    ]
    assert (
        "Paid 430 µ$, 400 µ$ of it for evidence; always the top tier, without a cache: 400 µ$. "
        "Saved -8%." in out
    )


async def test_a_ledger_of_another_router_is_not_waited_for(stage: Stage, tmp_path: Path) -> None:
    stage.router.script = routes_and(lambda _: [told(micro_usd=3, baseline_micro_usd=40)])
    (tmp_path / "router.jsonl").write_text(line(request("1", attempt())))
    code, out = await ran(stage.address, "--requests", "3", ledger=tmp_path)
    assert code == 0, out
    assert "before what evidence cost" in out


async def test_questions_of_a_file_of_another_route_with_the_cache(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("Where?\nWhen?\n")
    stage.router.script = routes_and(lambda _: [told()])
    code, out = await ran(
        stage.address,
        *("--route", "support-expert", "--file", str(tmp_path / "own.txt"), "--use-cache"),
        *("--requests", "4", "--rate", "1000"),
    )
    assert code == 0, out
    texts = sorted(one.prompt.messages[0].content for one in asked(stage))
    assert texts == ["When?", "When?", "Where?", "Where?"]
    assert {one.route for one in asked(stage)} == {"support-expert"}
    assert {one.terms.cache_use for one in asked(stage)} == {pb.CACHE_USE_UNSPECIFIED}


async def test_some_failures_are_counted_by_code_and_told(stage: Stage) -> None:
    number = itertools.count(1)
    stage.router.script = routes_and(
        lambda _: [told()] if next(number) % 5 else [ValueError("broken")]
    )
    code, out = await ran(stage.address, "--requests", "50")
    assert code == 1
    assert "40 answered" in out
    assert "Failed: 10 INTERNAL." in out


async def test_it_stops_early_when_the_first_all_fail(stage: Stage) -> None:
    stage.router.script = routes_and(lambda _: [ValueError("broken")])
    code, out = await ran(stage.address, "--requests", "500", "--in-flight", "4")
    assert code == 1
    assert "of 500, as the first all failed." in out
    assert 20 <= len(asked(stage)) <= 24


async def test_ctrl_c_still_shows_the_table(stage: Stage) -> None:
    never, number = asyncio.Event(), itertools.count(1)
    stage.router.script = routes_and(lambda _: [told()] if next(number) <= 30 else [never, told()])
    arguments = ("--requests", "100", "--in-flight", "8", "--ledger", "/nowhere")
    async with traffic(stage.address, *arguments) as process:
        while len(asked(stage)) < 38:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out = (await process.communicate())[0].decode()
    assert process.returncode == 0, out
    assert "Stopped after 30 of 100, when it was asked to." in out
    assert "calibrated" in out
    assert "Traceback" not in out


async def test_an_unreachable_stack_is_told_in_one_sentence() -> None:
    code, out = await ran("127.0.0.1:1")
    assert code == 3
    assert out.startswith("Nothing answers at 127.0.0.1:1.\nStart it with `make up`.")


async def test_an_unknown_route_is_told_with_those_there_are(stage: Stage) -> None:
    stage.router.script = routes_and(lambda _: [told()])
    code, out = await ran(stage.address, "--route", "nowhere")
    assert code == 2
    assert out == "There is no route nowhere. There are: support-chat, support-expert.\n"
