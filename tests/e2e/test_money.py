"""The ledger against Triton's own count: each token that an engine makes is charged, once.

The real stack: two replicas whose engines count what they make, callers who leave at any moment,
share runs, stop answers by a text, and climb the ladder.
"""

import asyncio
import contextlib
import json
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pennyweight import Client, PennyweightError
from tests.e2e.running_stack import RunningStack

QUESTION = "My card has not arrived yet, what can I do?"
RAMBLING = {"max_output_tokens": 200, "temperature": 2.0}
"""A hot model rambles to its limit; with a seed its answer may be shared."""

COUNTS = {
    "prompt_tokens": ("nv_llm_input_token_len_sum{", '"total_input_tokens"'),
    "output_tokens": ("nv_llm_output_token_len_sum{", '"total_output_tokens"'),
}
"""Name of the engine's metric and a label of it."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    running = RunningStack(
        tmp_path_factory.mktemp("stack"),
        sizes={"small-cpu": 1, "large-cpu": 1},
        environment={"PENNYWEIGHT_ROUTER_PROBE_ENGINES": "false"},  # those tokens are nobody's
    )
    try:
        for name in ("cache", "scaler", "router"):
            running.start(name)
        yield running
    finally:
        running.close()


@pytest.fixture
async def client(stack: RunningStack) -> AsyncIterator[Client]:
    async with stack.client() as connected:
        give_up = time.monotonic() + 100
        while True:
            with contextlib.suppress(PennyweightError):
                routes = (await connected.list_routes()).routes
                if all(tier.ready_replicas for route in routes for tier in route.ladder):
                    break
            assert time.monotonic() < give_up, "the fleet is not whole"
            await asyncio.sleep(0.05)
        yield connected


def counted(stack: RunningStack) -> dict[str, int]:
    """What the engines have read and made, as they count it themselves."""
    total = dict.fromkeys(COUNTS, 0)
    for file in stack.plan.scaler_state.glob("replicas/*/record.json"):
        port = json.loads(file.read_text())["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        for name, (metric, label) in COUNTS.items():
            found = [line for line in lines if line.startswith(metric) and label in line]
            total[name] += sum(int(float(line.split()[-1])) for line in found)
    return total


def charged(stack: RunningStack) -> list[dict[str, Any]]:
    """Every attempt in the ledger."""
    return [
        attempt
        for file in stack.plan.ledger.glob("*.jsonl")
        for line in file.read_text().splitlines()
        for attempt in json.loads(line).get("attempts", ())
    ]


async def agreed(stack: RunningStack, before: dict[str, int]) -> None:
    """Waits until the ledger has what the engines made since, and no more.

    On a machine with much other work an engine may come to its last word after the router has
    ceased to wait for it; then less is charged than was made, and the attempt says so.
    """
    give_up = time.monotonic() + 30
    while True:
        made = {name: count - before[name] for name, count in counted(stack).items()}
        attempts = charged(stack)
        ledger = {name: sum(one[name] for one in attempts) for name in COUNTS}
        if made == ledger and made["output_tokens"]:
            return
        if time.monotonic() > give_up:
            said = f"engines made {made}, the ledger has {ledger}"
            assert any(one["estimated"] for one in attempts), said
            assert all(ledger[name] <= made[name] for name in COUNTS), said
            return
        await asyncio.sleep(0.2)


async def test_the_ledger_is_what_the_engines_made(stack: RunningStack, client: Client) -> None:
    before = counted(stack)
    await _leaders_leave(client)
    await agreed(stack, before)
    await _answers_are_stopped(client)
    await agreed(stack, before)
    await _anything_goes(client)
    await agreed(stack, before)
    attempts = charged(stack)
    assert sum(one["estimated"] for one in attempts) <= len(attempts) / 10
    assert {"stood", "left", "outlived"} <= {one["verdict"] for one in attempts}


async def _leaders_leave(client: Client) -> None:
    """Ten leaders leave after 100 ms; a follower waits for each one's answer."""

    async def leader(number: int) -> None:
        with contextlib.suppress(PennyweightError):
            await client.complete(
                "support-expert", QUESTION, seed=number, timeout_seconds=0.1, **RAMBLING
            )

    async def follower(number: int) -> int:
        await asyncio.sleep(0.02)
        answer = await client.complete("support-expert", QUESTION, seed=number, **RAMBLING)
        return answer.summary.cost.micro_usd

    paid = [(await asyncio.gather(leader(number), follower(number)))[1] for number in range(10)]
    # Where the leader's time is over before it was taken, the follower leads.
    assert paid.count(0) >= 5


async def _answers_are_stopped(client: Client) -> None:
    """The same answer, ended by a text that no engine matches as tokens, streamed and whole."""
    options: dict[str, Any] = {"seed": 7, "stop": ["e "], "cache_use": "bypass", **RAMBLING}
    whole = await client.complete("support-expert", QUESTION, **options)
    streamed = ""
    async for event in client.generate("support-expert", QUESTION, **options):
        streamed += getattr(event, "text", "")
    assert streamed == whole.text
    assert "e " not in whole.text


async def _anything_goes(client: Client) -> None:
    """Callers of every kind at once; half of them leave when they like."""
    dice = random.Random(11)

    async def one() -> None:
        await asyncio.sleep(dice.random() * 2)
        route = dice.choice(["support-chat", "support-expert"])
        options: dict[str, Any] = {"cache_use": dice.choice(["", "bypass"]) or None}
        options = {key: value for key, value in options.items() if value}
        if dice.random() < 0.6:
            options |= RAMBLING | {"seed": dice.randrange(6)}
        question = dice.choice([QUESTION, "What is the weather in Lisbon?"])
        stays = dice.choice([None, 0.02, 0.05, 0.1, 0.3])

        async def ask() -> None:
            if dice.random() < 0.5:
                await client.complete(route, question, **options)
                return
            async with contextlib.aclosing(client.generate(route, question, **options)) as events:
                async for _ in events:
                    pass

        with contextlib.suppress(PennyweightError, TimeoutError):
            async with asyncio.timeout(stays):
                await ask()

    await asyncio.gather(*(one() for _ in range(80)))
