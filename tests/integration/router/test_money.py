"""Money over real connections: the ledger has every token that the replicas sent, and no other."""

import asyncio
import random
from typing import Any

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    Caller,
    World,
    asking,
    complete,
    tokens,
    until,
)
from tests.integration.scripted_triton import Hold, Say, Wait, answer


def sent(world: World) -> int:
    """Tokens that replicas have made, for whomever."""
    return sum(one.sent for triton in world.replicas.values() for one in triton.received)


def charged(records: list[dict[str, Any]]) -> int:
    return sum(one["output_tokens"] for record in records for one in record["attempts"])


each_shape = pytest.mark.parametrize("streaming", [True, False])


def start(caller: Caller, request: pb.GenerateRequest, *, streaming: bool) -> Any:
    """The call, under way."""
    if streaming:
        return asyncio.ensure_future(caller.ask(request))
    call = caller.stub.Complete(complete(request), metadata=caller.metadata, timeout=PATIENCE)
    return asyncio.ensure_future(call)


@each_shape
async def test_a_leader_who_leaves_pays_for_what_its_follower_gets(
    cached_world: World, *, streaming: bool
) -> None:
    world = cached_world
    first, second = await world.caller(), await world.caller()
    hold, said = Hold(), tokens()
    triton = await world.add("a", script=[Say(said[:3]), hold, Say(said[3:], final=True)])
    leader = start(first, asking("cached"), streaming=streaming)
    await until(lambda: triton.received)
    follower = start(second, asking("cached"), streaming=streaming)
    await world.eventually(lambda: world.cache.count("waiters"), 1)
    leader.cancel()
    await world.ended(1)
    hold.until.set()
    told = await follower
    assert told.text == HELLO
    assert told.summary.cost.micro_usd == 0
    records = {record["status"]: record for record in await world.ledger(2)}
    price = 100_000, 400_000
    exact = records["CANCELLED"]["prompt_tokens"] * price[0] + len(said) * price[1]
    assert records["CANCELLED"]["micro_usd"] == -(-exact // 1_000_000)
    assert records["CANCELLED"]["attempts"][0]["verdict"] == "outlived"
    assert records["OK"]["micro_usd"] == 0
    assert records["CANCELLED"]["baseline_micro_usd"] <= records["CANCELLED"]["micro_usd"]
    assert charged(list(records.values())) == sent(world) == len(said)
    assert await world.metric("output_tokens_total", tier="small") == len(said)


@each_shape
async def test_an_answer_cancelled_in_its_middle_costs_what_was_made(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    hold = Hold()
    await world.add("a", script=[Say(tokens()[:3]), hold])
    call = start(caller, asking(), streaming=streaming)
    await asyncio.wait_for(hold.reached.wait(), PATIENCE)
    call.cancel()
    (record,) = await world.ledger(1)
    (attempt,) = record["attempts"]
    assert (attempt["verdict"], attempt["output_tokens"]) == ("left", 3)
    assert (attempt["estimated"], record["estimated"]) == (False, False)
    assert sent(world) == 3


async def test_a_replica_that_says_nothing_leaves_an_estimate(world: World, caller: Caller) -> None:
    triton = await world.add("a", script=[Say(tokens()[:3]), Hold()])
    triton.mute = True
    call = start(caller, asking(), streaming=False)
    await until(lambda: triton.received)
    await asyncio.sleep(0.3)  # the time that passes is what the estimate is made from
    call.cancel()
    (record,) = await world.ledger(1)
    (attempt,) = record["attempts"]
    assert (attempt["estimated"], record["estimated"]) == (True, True)
    assert attempt["output_tokens"] > 0  # at the pace of fifty a second
    assert attempt["micro_usd"] > 0


@each_shape
async def test_a_stop_text_costs_the_same_whoever_waits(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    said = tokens("one two three four five six seven eight nine ten")
    await world.add("a", script=[*answer(said[:4]), Wait(0.3), *answer(said[4:])])
    request = asking(sampling=pb.Sampling(stop=["tw"]))
    told = await start(caller, request, streaming=streaming)
    assert told.text == "one "
    (record,) = await world.ledger(1)
    assert record["attempts"][0]["output_tokens"] == sent(world) < len(said)
    assert record["micro_usd"] == told.summary.cost.micro_usd


async def test_an_empty_answer_is_one_run_for_all(cached_world: World) -> None:
    world = cached_world
    triton = await world.add("a", script=[Wait(0.1), *answer(tokens())])
    callers = [await world.caller() for _ in range(8)]
    request = asking("cached", sampling=pb.Sampling(stop=["Hello"]))
    told = await asyncio.gather(*(one.ask(request) for one in callers))
    assert {one.text for one in told} == {""}
    assert len(triton.received) == 1
    again = await callers[0].ask(request)
    assert (again.text, again.decision.cache) == ("", pb.CACHE_OUTCOME_EXACT)
    assert len(triton.received) == 1


async def test_pieces_add_up_to_the_answer_fresh_and_stored(cached_world: World) -> None:
    world, caller = cached_world, await cached_world.caller()
    await world.add("a", script=answer(tokens("🎈🎈 two balloons 🎈"), delay=0.005))
    for cache in (pb.CACHE_OUTCOME_MISS, pb.CACHE_OUTCOME_EXACT):
        told = await caller.ask(asking("cached"))
        assert told.decision.cache == cache
        assert sum(one.tokens for one in told.pieces) == told.summary.usage.output_tokens
        stored = world.cache.count("stores_total", result="stored")
        await world.eventually(lambda counted=stored: _same(counted), 1)
    assert len(world.replicas["a"].received) == 1


async def _same(value: Any) -> float:
    return await value


async def test_a_refused_prompt_is_no_prompt_that_ran(world: World, caller: Caller) -> None:
    await world.add("a")
    refused = await caller.refused(asking(content="long " * 300))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    (record,) = await world.ledger(1)
    assert (record["prompt_tokens"], record["attempts"], record["micro_usd"]) == (0, [], 0)
    assert await world.metric("prompt_tokens_total", tier="small") == 0


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_callers_do_the_ledger_is_what_replicas_made(
    cached_world: World, seed: int
) -> None:
    world, dice = cached_world, random.Random(seed)
    for name, tier in (("a", "small"), ("b", "small"), ("c", "careful"), ("d", "top")):
        sure = dice.choice([-0.1, -2.0])
        await world.add(name, tier, script=answer(tokens(), delay=0.004, sure=sure))
    callers = [await world.caller() for _ in range(4)]
    routes = ("chat", "cached", "careful", "careful-cached", "laddered", "streamed")

    async def one(number: int) -> None:
        # Pauses are for nothing to happen: callers come, and leave, at any moment of a run.
        await asyncio.sleep(dice.random() * 0.4)
        stop = pb.Sampling(stop=["you"]) if dice.random() < 0.3 else None
        request = asking(dice.choice(routes), f"question {dice.randrange(4)}", sampling=stop)
        caller = callers[number % len(callers)]
        call = start(caller, request, streaming=dice.random() < 0.5)
        if dice.random() < 0.5:
            await asyncio.sleep(dice.random() * 0.08)
            call.cancel()
        await asyncio.wait((call,))
        if not call.cancelled():
            call.exception()

    await asyncio.gather(*map(one, range(60)))
    await until(lambda: not any(triton.running for triton in world.replicas.values()))
    # Records come when the last of a request's attempts has ended.
    await until(lambda: charged(world.written()) == sent(world))
    records = world.written()
    assert not any(record["estimated"] for record in records)
    made = sum([await world.metric("output_tokens_total", tier=one) for one in TIERS])
    assert made == sent(world)


TIERS = ("small", "careful", "top")
