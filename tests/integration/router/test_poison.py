"""A request that kills replicas: it stops at the second, and is refused when it comes again."""

import asyncio
import contextlib

import grpc
import pytest

from tests.integration.router.test_faults import Doomed
from tests.integration.router.world import HELLO, Caller, Refusal, World, asking, refusal

POISON = "(.*a.{60}){3}"


async def refused(caller: Caller, *, streaming: bool) -> Refusal:
    if streaming:
        return await caller.refused(asking(content=POISON))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.whole(asking(content=POISON))
    return refusal(caught.value)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_request_that_kills_two_replicas_is_not_carried_to_the_third(
    world: World, caller: Caller, *, streaming: bool
) -> None:
    with contextlib.ExitStack() as stack:
        doomed = [stack.enter_context(Doomed("--first-delay", "60")) for _ in range(2)]
        for name, replica in zip("ab", doomed, strict=True):
            await world.tell(name, await replica.listening())
        asked = asyncio.create_task(refused(caller, streaming=streaming))
        await doomed[0].received()
        third = await world.add("c")
        doomed[0].kill()
        await doomed[1].received()
        doomed[1].kill()
        told = await asked
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "REPLICAS_LOST")
    again = await refused(caller, streaming=streaming)
    assert again.reason == "REPLICAS_LOST"
    assert again.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    assert third.received == []
    assert (await caller.ask(asking())).text == HELLO  # another question of the same tenant
    other = await world.caller("umbrella")
    assert (await other.ask(asking(content=POISON))).text == HELLO
    assert await world.metric("poisonous_total") == 2


async def test_replicas_that_are_not_there_are_not_held_against_a_request(
    world: World, caller: Caller
) -> None:
    for name in "abc":
        await world.tell(name, "127.0.0.1:1")
    await world.add("d")
    assert (await caller.ask()).decision.replica == "d"
    assert await world.metric("poisonous_total") == 0
