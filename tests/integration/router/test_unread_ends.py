"""Calls that have ended and whose end nobody reads: they take nobody's place in the router."""

from contextlib import suppress
from typing import Any

import grpc
import pytest

from services.router.policy import permits
from tests.integration.raw_caller import GENERATE, RawCaller
from tests.integration.router.world import HELLO, KEYS, World, asking, complete, tokens
from tests.integration.scripted_triton import Say

COMPLETE = "/pennyweight.router.v1.RouterService/Complete"
LONG = tokens(HELLO * 60)
ASKED = asking().SerializeToString()


@pytest.fixture
def changes() -> dict[str, Any]:
    """Room for four of a tenant, and little patience with who does not read."""
    return {"unread_seconds": 0.5, "requests_at_once": 8}


@pytest.mark.parametrize("method", [GENERATE, COMPLETE])
async def test_ended_calls_that_nobody_reads_leave_room(world: World, method: str) -> None:
    await world.add("a", script=[Say(LONG, final=True)])
    async with (
        RawCaller(world.port, KEYS["acme"]) as one,
        RawCaller(world.port, KEYS["umbrella"]) as two,
    ):
        for raw in (one, two):
            for _ in range(4):
                raw.call(method, ASKED)
        await world.ledger(8)  # all of them have ended
        for tenant in ("acme", "umbrella"):
            caller = await world.caller(tenant)
            assert (await caller.whole()).text
        assert not any(seen.ended for raw in (one, two) for seen in raw.streams.values())


async def test_who_reads_no_end_is_refused_and_others_are_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add("a", script=[Say(LONG, final=True)])
    acme, umbrella = await world.caller("acme"), await world.caller("umbrella")
    monkeypatch.setattr(permits.Crowd, "is_read", lambda _, unread: unread.requests < 3)
    async with RawCaller(world.port, KEYS["acme"]) as raw:
        for number in range(3):
            raw.call(COMPLETE, complete(asking()).SerializeToString())
            await world.ledger(number + 1)
        assert (await acme.refused()).reason == "TOO_MANY_UNREAD"
        assert (await umbrella.whole()).text

    async def is_answered() -> bool:
        with suppress(grpc.aio.AioRpcError):
            return bool((await acme.whole()).text)
        return False

    await world.eventually(is_answered, wanted=True)
