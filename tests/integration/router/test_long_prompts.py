"""Long prompts: refused before they are tokenised, or tokenised while everybody else is served."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pennyweight.router.v1 import router_pb2 as pb
from services.router import servicer
from services.router.admission import tokenising
from services.router.engines import tokenizer
from services.router.wire.requests import LONG_REQUEST
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    Caller,
    World,
    asking,
    hello,
    until,
)

EMOJI = "🎈" * 395_000
SERVING = health_pb2.HealthCheckResponse.SERVING
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def served(cached_world: World) -> World:
    """A world in which a question of umbrella's has a stored answer."""
    await cached_world.add("a", script=hello())
    quiet = await cached_world.caller("umbrella")
    await quiet.ask(asking("cached"))
    await cached_world.eventually(
        lambda: cached_world.cache.count("stores_total", result="stored"), 1
    )
    return cached_world


class Gate:
    """Holds up long work in its threads, until it is opened."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.open = threading.Event()
        self.begun: list[int] = []
        self._inner = inner

    def __call__(self, *given: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            self.begun.append(1)
            if not self.open.wait(PATIENCE):
                raise AssertionError("the gate stayed shut")
        return self._inner(*given, **named)


@pytest.fixture
async def gate(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    made = Gate(tokenising._run)
    monkeypatch.setattr(tokenising, "_run", made)
    yield made
    made.open.set()


async def everybody_else_is_served(world: World) -> None:
    """Health, another tenant's stored answer, and a short question of the same tenant's."""
    quiet, loud = await world.caller("umbrella"), await world.caller("acme")
    health = health_pb2_grpc.HealthStub(quiet.channel)
    told = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert told.status == SERVING
    stored = await quiet.ask(asking("cached"))
    assert (stored.text, stored.decision.cache) == (HELLO, pb.CACHE_OUTCOME_EXACT)
    assert (await loud.ask()).text == HELLO


async def test_everybody_else_is_served_while_three_long_prompts_are_tokenised(
    served: World, gate: Gate
) -> None:
    loud = await served.caller("acme")
    long = [asyncio.create_task(loud.refused(asking("roomy", EMOJI))) for _ in range(3)]
    await until(lambda: gate.begun)
    await everybody_else_is_served(served)
    assert len(gate.begun) == 1  # of this tenant
    other = await served.caller("umbrella")
    theirs = asyncio.create_task(other.refused(asking("roomy", EMOJI)))
    await until(lambda: len(gate.begun) == 2)
    await everybody_else_is_served(served)
    assert not any(one.done() for one in (*long, theirs))
    gate.open.set()
    for told in await asyncio.gather(*long, theirs):
        assert told.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "roomy takes fewer than 1000000 tokens, got at least 15" in told.message


async def test_everybody_else_is_served_while_long_requests_are_checked(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(servicer.check)
    monkeypatch.setattr(servicer, "check", gate)
    loud, other = await served.caller("acme"), await served.caller("umbrella")
    large = "x " * (LONG_REQUEST // 2)
    long = [asyncio.create_task(loud.refused(asking("chat", large))) for _ in range(8)]
    await until(lambda: gate.begun)
    await everybody_else_is_served(served)
    theirs = asyncio.create_task(other.refused(asking("chat", large)))
    await until(lambda: len(gate.begun) == 2)
    await everybody_else_is_served(served)
    gate.open.set()
    told = await asyncio.gather(*long, theirs)
    assert {one.code for one in told} == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_too_many_new_forms_are_told_in_their_own_words(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(servicer.check)
    monkeypatch.setattr(servicer, "check", gate)
    loud = await served.caller("acme")
    asked = [asking("chat") for _ in range(130)]
    for number, request in enumerate(asked):
        request.prompt.response_format.regex = f"form {number}"
    many = [asyncio.create_task(loud.refused(request)) for request in asked]
    async with asyncio.timeout(PATIENCE):
        done, kept = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
    told = done.pop().result()
    assert (told.code, told.reason) == (EXHAUSTED, "NEW_FORMS")
    for task in kept:
        task.cancel()
    gate.open.set()
    await asyncio.gather(*kept, return_exceptions=True)


async def test_too_many_long_prompts_of_a_tenant_are_refused_and_no_others(
    served: World, gate: Gate
) -> None:
    loud, other = await served.caller("acme"), await served.caller("umbrella")
    long = [asyncio.create_task(loud.refused(asking("roomy", EMOJI))) for _ in range(9)]
    async with asyncio.timeout(PATIENCE):
        done, kept = await asyncio.wait(long, return_when=asyncio.FIRST_COMPLETED)
    told = done.pop().result()
    assert (told.code, told.reason) == (EXHAUSTED, "LONG_PROMPTS")
    assert told.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 1
    theirs = asyncio.create_task(other.refused(asking("roomy", EMOJI)))
    await until(lambda: len(gate.begun) == 2)
    gate.open.set()
    codes = [one.code for one in await asyncio.gather(*kept)]
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert (await theirs).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_who_hangs_up_on_a_long_prompt_waits_for_nothing(served: World, gate: Gate) -> None:
    loud = await served.caller("acme")
    long = loud.generate(asking("roomy", EMOJI))
    await until(lambda: gate.begun)
    long.cancel()
    records = await served.ledger(2)
    assert [one["status"] for one in records[1:]] == ["CANCELLED"]
    gate.open.set()
    await everybody_else_is_served(served)


async def test_a_deadline_that_passes_before_a_long_prompt_is_tokenised_is_told(
    served: World, gate: Gate
) -> None:
    loud = await served.caller("acme")
    long = asyncio.create_task(loud.refused(asking("roomy", EMOJI)))
    await until(lambda: gate.begun)
    told = await loud.refused(asking("bounded", EMOJI), seconds=3600.0)
    assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
    gate.open.set()
    await long


@pytest.mark.parametrize("whole", [False, True])
async def test_what_cannot_fit_is_refused_before_it_is_tokenised(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was tokenised")

    monkeypatch.setattr(tokenizer, "_encoding", never)
    request = asking("laddered", EMOJI)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (caller.whole(request) if whole else caller.ask(request))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "top takes fewer than 200 tokens, got at least" in str(caught.value.details())
    (record,) = await world.ledger(1)
    assert record["attempts"] == []


async def test_a_long_prompt_that_fits_is_answered(world: World, caller: Caller) -> None:
    triton = await world.add("r", "roomy", script=hello())
    told = await caller.ask(asking("roomy", "card " * 20_000))
    assert told.text == HELLO
    assert told.summary.usage.prompt_tokens > 20_000
    assert len(triton.received) == 1
