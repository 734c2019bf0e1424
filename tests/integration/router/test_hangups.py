"""Callers who hang up: what stops at once, what goes on to its end, and for whom."""

import asyncio
import time
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
from tests.integration.scripted_triton import Hold, Received, Say, Script

SOON = 0.2
"""Seconds within which a replica hears that its caller has gone."""


def halting() -> tuple[Hold, Script]:
    """An answer that waits in its middle."""
    hold, said = Hold(), tokens()
    return hold, [Say(said[:3]), hold, Say(said[3:], final=True)]


async def hang_up(world: World, caller: Caller, request: Any, *, streaming: bool) -> float:
    """Asks, waits until a replica runs it, hangs up, and says when."""
    before = len(received(world))
    if streaming:
        call = caller.generate(request)
        assert (await call.read()).HasField("started")
        assert (await call.read()).delta.text
    else:
        call = caller.stub.Complete(complete(request), metadata=caller.metadata, timeout=PATIENCE)
        call.add_done_callback(lambda _: None)  # only this makes it start without being awaited
        task = asyncio.ensure_future(call)
        await until(lambda: len(received(world)) > before)
    at = time.monotonic()
    call.cancel()
    if not streaming:
        with pytest.raises(asyncio.CancelledError):
            await task
    return at


def received(world: World) -> list[Received]:
    return [one for triton in world.replicas.values() for one in triton.received]


async def free(world: World, replica: str = "a", running: int = 0) -> None:
    """Waits until the router says anew that so much runs on the replica, or nothing."""
    seen = len(world.scaler.reports)
    await until(
        lambda: any(
            (load.replica, load.in_flight) == (replica, running)
            for report in world.scaler.reports[seen:]
            for load in report.replicas
        )
    )


each_shape = pytest.mark.parametrize("streaming", [True, False])


@each_shape
async def test_a_run_nobody_wants_is_cancelled_at_once(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    delays = []
    triton = await world.add("a", script=halting()[1])
    for number in range(3):  # the best of three, for machines that are busy
        at = await hang_up(world, caller, asking(), streaming=streaming)
        await until(lambda: triton.received[-1].cancelled_at)
        delays.append((triton.received[number].cancelled_at or 0) - at)
    assert min(delays) < SOON
    assert {one["status"] for one in await world.ledger(3)} == {"CANCELLED"}
    await free(world)


@each_shape
async def test_a_cached_run_nobody_waits_for_is_cancelled_at_once(
    cached_world: World, *, streaming: bool
) -> None:
    world, delays = cached_world, []
    caller = await world.caller()
    triton = await world.add("a", script=halting()[1])
    for number in range(3):
        request = asking("cached", f"question {number}")
        at = await hang_up(world, caller, request, streaming=streaming)
        await until(lambda: triton.received[-1].cancelled_at)
        delays.append((triton.received[number].cancelled_at or 0) - at)
    assert min(delays) < SOON
    await free(world)


@each_shape
async def test_a_tier_that_must_not_be_cancelled_runs_to_its_end(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    hold, script = halting()
    triton = await world.add("a", "careful", script=script)
    await hang_up(world, caller, asking("careful"), streaming=streaming)
    await world.ended(1)
    assert world.written() == []  # what still runs belongs to it
    hold.until.set()
    await until(lambda: triton.received[0].ended_at)
    (record,) = await world.ledger(1)
    assert record["status"] == "CANCELLED"
    (attempt,) = record["attempts"]
    assert (attempt["verdict"], attempt["output_tokens"]) == ("outlived", len(tokens()))
    await free(world)
    assert triton.received[0].cancelled_at is None
    assert triton.stops == []


@each_shape
async def test_a_deadline_does_not_cancel_where_it_must_not(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    hold, script = halting()
    triton = await world.add("a", "careful", script=script)
    ask = caller.ask if streaming else caller.whole
    with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
        await ask(asking("careful"), 0.5)  # type: ignore[operator]
    await world.ended(1)
    hold.until.set()
    await until(lambda: triton.received[0].ended_at)
    assert triton.received[0].cancelled_at is None


async def test_a_stop_text_does_not_cancel_where_it_must_not(world: World, caller: Caller) -> None:
    hold, said = Hold(), tokens()
    triton = await world.add("a", "careful", script=[Say(said), hold, Say(said, final=True)])
    told = await caller.ask(asking("careful", sampling=pb.Sampling(stop=["you"])))
    assert told.text == "Hello, "
    hold.until.set()
    await until(lambda: triton.received[0].ended_at)
    assert triton.received[0].cancelled_at is None


async def test_a_stop_text_after_a_hang_up_does_not_cancel_where_it_must_not(
    world: World, caller: Caller
) -> None:
    first, second, said = Hold(), Hold(), tokens()
    script = [Say(said[:3]), first, Say(said[3:]), second, Say(said, final=True)]
    triton = await world.add("a", "careful", script=script)
    request = asking("careful", sampling=pb.Sampling(stop=["two"]))
    await hang_up(world, caller, request, streaming=True)
    await world.ended(1)
    first.until.set()
    await until(lambda: triton.received[0].sent == len(said))
    await free(world, running=1)  # it keeps its place while the replica works on it
    second.until.set()
    await until(lambda: triton.received[0].ended_at)
    assert triton.received[0].cancelled_at is None
    await free(world)


async def test_a_stop_text_ends_the_run_where_it_may(world: World, caller: Caller) -> None:
    triton = await world.add("a", script=[Say(tokens()), Hold()])
    told = await caller.ask(asking(sampling=pb.Sampling(stop=["you"])))
    assert told.text == "Hello, "
    await until(lambda: triton.received[0].cancelled_at)


@each_shape
async def test_a_run_that_others_wait_for_goes_on_without_its_caller(
    cached_world: World, *, streaming: bool
) -> None:
    world = cached_world
    first, second = await world.caller(), await world.caller()
    hold, script = halting()
    triton = await world.add("a", script=script)
    request = asking("cached")
    waiting: list[asyncio.Task[Any]] = []

    async def others_wait() -> None:
        waiting.append(asyncio.create_task(second.ask(request)))
        await world.eventually(lambda: world.cache.count("waiters"), 1)

    if streaming:
        call = first.generate(request)
        assert (await call.read()).HasField("started")
    else:
        call = first.stub.Complete(complete(request), metadata=first.metadata, timeout=PATIENCE)
        asyncio.ensure_future(call).add_done_callback(lambda done: done.cancelled())
        await until(lambda: triton.received)
    await others_wait()
    call.cancel()
    await world.ended(1)
    hold.until.set()
    told = await waiting[0]
    assert told.text == HELLO
    assert told.decision.cache == pb.CACHE_OUTCOME_SHARED
    assert len(triton.received) == 1
    assert triton.received[0].cancelled_at is None
    assert triton.stops == []


async def test_who_waits_for_a_run_that_fails_runs_it_again(cached_world: World) -> None:
    world = cached_world
    first, second = await world.caller(), await world.caller()
    doomed = await world.add("a", script=[Say(tokens()[:3]), hold := Hold()])
    call = first.generate(asking("cached"))
    assert (await call.read()).HasField("started")
    waiting = asyncio.create_task(second.ask(asking("cached")))
    await world.eventually(lambda: world.cache.count("waiters"), 1)
    call.cancel()
    await world.ended(1)
    await world.add("b")
    world.gone("a")
    told = await waiting
    assert (told.text, told.decision.replica) == (HELLO, "b")
    assert not hold.until.is_set()
    await until(lambda: doomed.received[0].cancelled_at)


async def test_who_hangs_up_while_waiting_does_not_take_the_lease_along(
    cached_world: World,
) -> None:
    world = cached_world
    callers = [await world.caller() for _ in range(3)]
    await world.add("a", script=[Say(tokens()[:3]), Hold()])
    request = asking("cached")
    leading = callers[0].generate(request)
    assert (await leading.read()).HasField("started")
    waiting = [asyncio.create_task(callers[1].ask(request))]
    await world.eventually(lambda: world.cache.count("waiters"), 1)
    waiting.append(asyncio.create_task(callers[2].ask(request)))
    await world.eventually(lambda: world.cache.count("waiters"), 2)
    waiting[0].cancel()
    await world.ended(1)
    await world.add("b")
    world.gone("a")  # the run fails and the lease goes to the first in the line, who has gone
    async with asyncio.timeout(5):  # less than a lease lasts, and less than anybody waits for one
        told = await waiting[1]
    assert (told.text, told.decision.replica) == (HELLO, "b")


async def test_who_hangs_up_in_the_line_leaves_it(world: World, caller: Caller) -> None:
    hold, script = halting()
    triton = await world.add("a", script=script, max_in_flight=1)
    leading = asyncio.create_task(caller.ask())
    await until(lambda: triton.received)
    gone = caller.generate(asking())
    gone_task = asyncio.ensure_future(gone.read())

    def waiting() -> int:
        return sum(one.waiting for report in world.scaler.reports[-1:] for one in report.tiers)

    await until(lambda: waiting() == 1)
    gone_task.cancel()
    await until(lambda: waiting() == 0)
    hold.until.set()
    await leading
    assert len(triton.received) == 1
    await free(world)
