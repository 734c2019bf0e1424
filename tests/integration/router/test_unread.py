"""Callers who do not read: the engine's place is free once it is done, and their calls end."""

import gc
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router.request.context import RequestState
from tests.integration.raw_caller import GENERATE, RawCaller
from tests.integration.router.world import (
    HELLO,
    KEYS,
    Caller,
    World,
    asking,
    tokens,
    until,
)
from tests.integration.scripted_triton import Hold, Say, Script, Wait

PLACES = 4
LONG = "3600S"
"""As long as callers like."""


def stall(raw: RawCaller, times: int, request: pb.GenerateRequest | None = None) -> None:
    for _ in range(times):
        raw.call(GENERATE, (request or asking()).SerializeToString(), grpc_timeout=LONG)


async def unread(world: World) -> int:
    return int(await world.metric("unread_total"))


SAID = HELLO * 40
"""An answer that fits none of these windows."""

FIRST, REST = Say(tokens(SAID)[:2]), Say(tokens(SAID)[2:], final=True)
SCRIPTS = [[FIRST, REST], [FIRST, Wait(0.5), REST]]


@pytest.mark.parametrize("script", SCRIPTS, ids=["at once", "in two"])
@pytest.mark.parametrize("window", [0, 400], ids=["no window", "a small one"])
async def test_callers_who_do_not_read_keep_no_place(
    world: World, caller: Caller, window: int, script: Script
) -> None:
    replica = await world.add("a", max_in_flight=PLACES, script=script)
    async with RawCaller(world.port, KEYS["acme"], window=window) as raw:
        stall(raw, 8 * PLACES)
        assert (await caller.ask(asking(), seconds=15.0)).text == SAID
        assert (await caller.whole()).text == SAID
        await until(lambda: len(replica.received) == 8 * PLACES + 2)
        await world.eventually(lambda: world.metric("running", tier="small"), 0)
        assert not any(stream.ended for stream in raw.streams.values())  # they may still read
    assert len(await world.ledger(8 * PLACES + 2)) == 8 * PLACES + 2


@pytest.fixture
def changes(request: pytest.FixtureRequest) -> dict[str, Any]:
    return getattr(request, "param", {})


@pytest.mark.parametrize("changes", [{"unread_seconds": 1.0}], indirect=True)
@pytest.mark.parametrize("window", [0, 400], ids=["no window", "a small one"])
async def test_a_caller_who_reads_nothing_for_too_long_has_its_call_ended_and_charged(
    world: World, window: int
) -> None:
    said = tokens(HELLO * 60)
    await world.add("a", script=[Say(said[:100]), Say(said[100:], final=True)])
    async with RawCaller(world.port, KEYS["acme"], window=window) as raw:
        stall(raw, 1)
        (record,) = await world.ledger(1)
        assert record["status"] == "DEADLINE_EXCEEDED"
        assert 1000.0 <= record["total_ms"] < 10_000.0
        (attempt,) = record["attempts"]
        assert attempt["output_tokens"] == len(said)
        assert attempt["verdict"] == (
            "outlived" if window else "left"
        )  # all of it was taken or not
        assert not attempt["estimated"]
        assert record["micro_usd"] == attempt["micro_usd"] > 0
        assert attempt["took_ms"] < record["total_ms"]  # the place was free before
        assert await unread(world) == 1
        (stream,) = raw.streams
        raw.grant(stream, 1_000_000)  # what was written comes, and then the status
        await until(lambda: raw.streams[stream].ended)
        assert b"read nothing of the answer" in raw.streams[stream].headers[-1]


@pytest.mark.parametrize("changes", [{"unread_seconds": 1.0}], indirect=True)
@pytest.mark.parametrize("window", [0, 400], ids=["no window", "a small one"])
async def test_one_who_goes_without_taking_the_status_is_no_error(
    world: World, caller: Caller, window: int, caplog: pytest.LogCaptureFixture
) -> None:
    await world.add("a", script=[Say(tokens(HELLO * 60), final=True)])
    async with RawCaller(world.port, KEYS["acme"], window=window) as raw:
        stall(raw, 1)
        await world.ledger(1)
    for _ in range(20):
        await caller.whole()
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


async def test_nothing_of_an_answer_waits_with_a_summary_that_is_not_read(
    world: World, caller: Caller
) -> None:
    await world.add("a", script=[FIRST, REST])
    told = await caller.ask()
    last = told.summary.ByteSize()
    async with RawCaller(world.port, KEYS["acme"], window=20_000) as raw:
        stall(raw, 1)
        await until(lambda: raw.streams[1].ended)
        whole = raw.streams[1].data
    async with RawCaller(world.port, KEYS["acme"], window=whole - last // 2) as raw:
        stall(raw, 3)
        await world.ledger(5)
        await world.eventually(_kept, 0)
        assert not any(stream.ended for stream in raw.streams.values())
    assert {one["status"] for one in await world.ledger(5)} == {"OK"}


@pytest.mark.parametrize("changes", [{"unread_seconds": 1.0}], indirect=True)
@pytest.mark.parametrize("window", [0, 400], ids=["no window", "a small one"])
async def test_nothing_of_an_answer_waits_with_a_status_that_is_not_read(
    world: World, window: int
) -> None:
    await world.add("a", script=[FIRST, REST])
    async with RawCaller(world.port, KEYS["acme"], window=window) as raw:
        stall(raw, 3)
        await world.ledger(3)
        await world.eventually(_kept, 0)
        assert not any(stream.ended for stream in raw.streams.values())


async def _kept() -> int:
    """Requests that are still held by something."""
    gc.collect()
    return sum(isinstance(one, RequestState) for one in gc.get_objects())


@pytest.mark.parametrize("changes", [{"unread_seconds": 1.0}], indirect=True)
async def test_an_engine_that_still_works_for_a_caller_who_does_not_read_is_stopped(
    world: World,
) -> None:
    replica = await world.add("a", script=[Say(tokens()[:2]), Hold()])
    async with RawCaller(world.port, KEYS["acme"]) as raw:
        stall(raw, 1)
        await until(lambda: replica.received and replica.received[0].cancelled_at)
        (record,) = await world.ledger(1)
    assert record["status"] == "DEADLINE_EXCEEDED"
    assert record["attempts"][0]["verdict"] == "left"


@pytest.mark.parametrize("changes", [{"unread_seconds": 1.0}], indirect=True)
async def test_a_stored_answer_is_not_kept_for_ever_for_who_does_not_read_it(
    cached_world: World,
) -> None:
    await cached_world.add("a")
    caller = await cached_world.caller()
    await caller.ask(asking("cached"))
    async with RawCaller(cached_world.port, KEYS["acme"]) as raw:
        stall(raw, 1, asking("cached"))
        records = await cached_world.ledger(2)
    assert {(one["status"], one["cache"]) for one in records} == {
        ("OK", "miss"),
        ("DEADLINE_EXCEEDED", "exact"),
    }


@pytest.mark.parametrize("changes", [{"unread_bytes": 5_000}], indirect=True)
async def test_stored_answers_count_in_what_is_kept(cached_world: World) -> None:
    said = tokens(SAID)  # 192 bytes each
    await cached_world.add("a", script=[Say(said, final=True)])
    caller = await cached_world.caller()
    await caller.ask(asking("cached"))
    async with RawCaller(cached_world.port, KEYS["acme"]) as raw:
        stall(raw, 2, asking("cached"))
        records = await cached_world.ledger(3)
    assert [one["status"] for one in records] == ["OK", *["DEADLINE_EXCEEDED"] * 2]


@pytest.mark.parametrize("changes", [{"unread_bytes": 20_000}], indirect=True)
async def test_what_is_kept_for_those_who_do_not_read_is_bounded(world: World) -> None:
    said = tokens(HELLO * 60)
    await world.add("a", script=[Say(said[:1]), Say(said[1:], final=True)])
    async with RawCaller(world.port, KEYS["acme"]) as raw:
        stall(raw, 4)
        records = await world.ledger(4)
        assert await unread(world) == 4
    assert {one["status"] for one in records} == {"DEADLINE_EXCEEDED"}


@pytest.mark.parametrize("changes", [{"unread_bytes": 400_000}], indirect=True)
async def test_what_one_tenants_callers_do_not_read_ends_no_call_of_another(world: World) -> None:
    crowd, alone = tokens(HELLO * 10), tokens(HELLO * 40)  # 19 and 77 KB
    await world.add("a", script=[Say(crowd[:1]), Say(crowd[1:], final=True)], max_in_flight=1000)
    await world.add("b", "tight", script=[Say(alone[:1]), Say(alone[1:], final=True)])
    async with (
        RawCaller(world.port, KEYS["acme"]) as many,
        RawCaller(world.port, KEYS["umbrella"]) as other,
    ):
        stall(other, 1, asking("tight"))
        stall(many, 40)
        ended = await world.ledger(20)
        other.grant(1, 1_000_000)
        await until(lambda: other.streams[1].ended)
        for stream in many.streams:
            many.grant(stream, 1_000_000)
        await until(lambda: all(seen.ended for seen in many.streams.values()))
        last = [seen.headers[-1] for seen in many.streams.values()]
    assert {(record["tenant"], record["status"]) for record in ended} == {
        ("acme", "DEADLINE_EXCEEDED")
    }
    records = await world.ledger(41)
    assert [one["status"] for one in records if one["tenant"] == "umbrella"] == ["OK"]
    assert any(b"too much waited for callers of this tenant" in headers for headers in last)
