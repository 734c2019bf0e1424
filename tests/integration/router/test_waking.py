"""Tiers that come from zero: requests wait for the first replica, over real gRPC."""

import asyncio

import grpc

from tests.integration.router.world import HELLO, Caller, World, asking, until
from tests.integration.scripted_triton import ScriptedTriton


async def test_requests_wait_for_a_replica_that_is_on_its_way(world: World, caller: Caller) -> None:
    world.scaler.can_wake, world.scaler.coming = True, 30.0
    asked = [asyncio.create_task(caller.ask(asking("tight", "hi"))) for _ in range(2)]
    await until(lambda: world.scaler.woken)
    assert set(world.scaler.woken) == {"tight"}
    await world.add("a", "tight")
    assert [(await one).text for one in asked] == [HELLO, HELLO]
    assert await world.metric("wakes_total", answer="coming", tier="tight") >= 1


async def test_where_none_is_on_its_way_nobody_waits(world: World, caller: Caller) -> None:
    world.scaler.can_wake = True
    told = await caller.refused(asking("tight", "hi"))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_REPLICA")
    assert world.scaler.woken == ["tight"]


async def test_an_older_scaler_says_nothing(world: World, caller: Caller) -> None:
    asked = asyncio.create_task(caller.ask(asking("tight", "hi")))

    async def unknown() -> bool:
        return await world.metric("wakes_total", answer="unknown", tier="tight") > 0

    await world.eventually(unknown, wanted=True)
    triton: ScriptedTriton = await world.add("a", "tight")
    assert (await asked).text == HELLO
    assert triton.received
