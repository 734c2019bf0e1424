"""Too many requests for the replicas there are: who waits, who is refused, and how."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.router.world import (
    HELLO,
    OPERATOR,
    PATIENCE,
    Caller,
    World,
    asking,
    hello,
    until,
)
from tests.integration.scripted_triton import Hold, ScriptedTriton

BACKGROUND, BATCH = pb.PRIORITY_CLASS_BACKGROUND, pb.PRIORITY_CLASS_BATCH
INTERACTIVE, CRITICAL = pb.PRIORITY_CLASS_INTERACTIVE, pb.PRIORITY_CLASS_CRITICAL


def urgent(priority: int, content: str = "hi") -> pb.GenerateRequest:
    return asking("tight", content, terms=pb.Terms(priority=priority))


class Crowd:
    """One busy replica of the tier with two places in its line."""

    def __init__(self, world: World, caller: Caller, triton: ScriptedTriton, hold: Hold) -> None:
        self.world, self.caller, self.triton, self.hold = world, caller, triton, hold

    async def wait_in_line(self, *priorities: int) -> list[asyncio.Task[str]]:
        """Lets requests join the line one after another."""
        tasks = []
        for priority in priorities:
            before = await self.waiting()
            tasks.append(asyncio.create_task(self._text(urgent(priority))))
            await self.world.eventually(self.waiting, before + 1)
        return tasks

    async def waiting(self) -> int:
        """Requests in the line, as the last report says."""
        seen = len(self.world.scaler.reports)
        await until(lambda: len(self.world.scaler.reports) > seen)
        return next(
            one.waiting for one in self.world.scaler.reports[-1].tiers if one.tier == "tight"
        )

    async def _text(self, request: pb.GenerateRequest) -> str:
        return (await self.caller.ask(request)).text


@pytest.fixture
async def crowd(world: World, caller: Caller) -> AsyncIterator[Crowd]:
    hold = Hold()
    triton = await world.add("a", "tight", script=hello(), max_in_flight=1)
    triton.scripts.append([hold, *hello()])
    first = asyncio.create_task(caller.ask(urgent(INTERACTIVE)))
    await until(lambda: triton.received)
    yield Crowd(world, caller, triton, hold)
    hold.until.set()
    await first


async def test_the_lowest_class_is_refused_first_and_told_when_to_come_back(crowd: Crowd) -> None:
    batch, background = await crowd.wait_in_line(BATCH, BACKGROUND)
    important = asyncio.create_task(crowd.caller.ask(urgent(CRITICAL)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await background
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = await crowd.caller.refused(urgent(BACKGROUND))
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert told.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 1
    assert told.details["RequestInfo"].request_id
    assert await crowd.world.metric("shed_total", tier="tight") == 2
    crowd.hold.until.set()
    assert (await important).text == await batch == HELLO


async def test_the_most_important_goes_first(crowd: Crowd) -> None:
    order: list[str] = []

    async def asked(priority: int, name: str) -> None:
        await crowd.caller.ask(urgent(priority, name))
        order.append(name)

    tasks = []
    for number, (priority, name) in enumerate(((BATCH, "job"), (CRITICAL, "boss")), start=1):
        tasks.append(asyncio.create_task(asked(priority, name)))
        await crowd.world.eventually(crowd.waiting, number)
    crowd.hold.until.set()
    await asyncio.gather(*tasks)
    assert order == ["boss", "job"]


async def test_a_flood_of_one_tenant_costs_another_none_of_its_answers(crowd: Crowd) -> None:
    quiet = await crowd.world.caller("umbrella")
    over = asyncio.Event()

    async def flood() -> None:
        while not over.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError):
                await crowd.caller.ask(urgent(CRITICAL))

    loud = [asyncio.create_task(flood()) for _ in range(8)]
    await crowd.world.eventually(crowd.waiting, 2)
    crowd.hold.until.set()
    answers = [(await quiet.ask(urgent(INTERACTIVE))).text for _ in range(20)]
    over.set()
    await asyncio.gather(*loud)
    assert answers == [HELLO] * 20
    assert await crowd.world.metric("shed_total", tier="tight") > 0


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[World]:
    """A router that has room for two of a tenant."""
    async with World(tmp_path).running(cache=False, requests_at_once=4) as one:
        yield one


async def test_a_tenant_has_a_part_of_the_router_and_others_theirs(narrow: World) -> None:
    hold = Hold()
    triton = await narrow.add("a", script=[hold, *hello()])
    loud, quiet = await narrow.caller("acme"), await narrow.caller("umbrella")
    held = [asyncio.create_task(one) for one in (loud.ask(), loud.whole())]
    await until(lambda: len(triton.received) == 2)
    for refused in (loud.ask(), loud.whole()):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    explain = pb.ExplainRequest.FromString(asking().SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError, match="too many requests of this tenant"):
        await loud.stub.Explain(explain, metadata=loud.metadata, timeout=PATIENCE)
    assert (await loud.refused()).reason == "TOO_MANY_REQUESTS"
    counted = {"route": "chat", "status": "RESOURCE_EXHAUSTED", "tier": ""}
    assert await narrow.metric("requests_total", **counted) == 4
    levers, operator = pb.ListLeversRequest(route="chat"), f"Bearer {OPERATOR}"
    for plain, request in (
        (loud.stub.RecordOutcome, pb.RecordOutcomeRequest(route="chat", handle="none")),
        (loud.stub.ListRoutes, pb.ListRoutesRequest()),
        (loud.stub.ListLevers, levers),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="too many requests of this tenant"):
            await plain(request, metadata=loud.metadata, timeout=PATIENCE)
    held.append(asyncio.create_task(quiet.ask()))
    held.append(asyncio.create_task(quiet.whole()))
    await until(lambda: len(triton.received) == 4)
    answer = await quiet.stub.ListLevers(levers, metadata=(("authorization", operator),))
    assert answer.policy_version  # though nobody else could come in
    hold.until.set()
    assert {one.text for one in await asyncio.gather(*held)} == {HELLO}
    for _ in range(6):  # each leaves when it ends
        assert (await loud.ask()).text == HELLO


async def test_critical_is_refused_to_a_key_that_may_not_say_so(world: World) -> None:
    told = await (await world.caller("umbrella")).refused(urgent(CRITICAL))
    assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CRITICAL_FORBIDDEN")
    counted = {"route": "tight", "status": "PERMISSION_DENIED", "tier": ""}
    assert await world.metric("requests_total", **counted) == 1


@pytest.mark.parametrize("whole", [False, True])
async def test_an_hour_that_a_caller_grants_is_cut_to_what_its_route_does(
    world: World, caller: Caller, *, whole: bool
) -> None:
    hold = Hold()
    await world.add("a", script=[hold, *hello()], max_in_flight=1)
    request = asking("bounded")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (caller.whole(request, 3600.0) if whole else caller.ask(request, 3600.0))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (record,) = await world.ledger(1)  # its place is free
    assert record["status"] == "DEADLINE_EXCEEDED"
    hold.until.set()


async def test_a_deadline_that_passes_in_the_line_is_told(crowd: Crowd) -> None:
    told = await crowd.caller.refused(urgent(INTERACTIVE), seconds=0.3)
    assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
    records = await crowd.world.ledger(1)
    assert [one["status"] for one in records] == ["DEADLINE_EXCEEDED"]


async def test_a_burst_is_served_in_the_end(world: World, caller: Caller) -> None:
    await world.add("a", script=hello(), max_in_flight=2)
    await world.add("b", script=hello(), max_in_flight=2)
    asked = [caller.ask() if n % 2 else caller.whole() for n in range(60)]
    told = await asyncio.gather(*asked)
    assert {one.text for one in told} == {HELLO}
    most = {name: len(one.received) for name, one in world.replicas.items()}
    assert sum(most.values()) == 60
    assert min(most.values()) > 10
