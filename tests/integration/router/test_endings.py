"""However a router ends, and whatever outlives its caller: each request has its exact record."""

import asyncio
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2 as pb
from services.common.channel import Peer
from services.common.server import Server
from services.common.telemetry import Tracing
from services.router.clients.cache import CacheStream
from services.router.fleet.fleet import Fleet
from services.router.fleet.replica import Replica
from services.router.metrics import Metrics
from services.router.policy.prompts import Message
from services.router.ports import Asked, CacheHit, Finish, Written
from services.router.request import runner
from tests.integration.router.world import (
    PATIENCE,
    CacheService,
    Caller,
    World,
    asking,
    complete,
    hello,
    tokens,
    until,
)
from tests.integration.scripted_triton import Fail, Hold, Say, ScriptedTriton, Wait, answer
from tests.making.policies import TOKENIZER, ladder

MANY = 100
WORDS = tokens("word " * 40)


async def test_a_stop_leaves_a_record_of_each_request_that_it_cuts_off(tmp_path: Path) -> None:
    async with World(tmp_path).running(cache=False, drain_seconds=0.2) as world:
        await world.add("s", script=[Say(tokens()[:3]), Hold()], max_in_flight=2 * MANY)
        caller = await world.caller()
        calls = [caller.generate(asking("many")) for _ in range(MANY)]
        for call in calls:
            assert (await call.read()).HasField("started")
        await world.stop()
        assert len(world.written()) == MANY
        for call in calls:
            call.cancel()


async def test_what_a_stop_cuts_off_still_says_how_far_it_came(tmp_path: Path) -> None:
    async with World(tmp_path).running(cache=True, drain_seconds=0.3) as world:
        triton = await world.add("s", script=answer(WORDS[:16], delay=0.2))
        caller = await world.caller()
        wanted = asking("cached", sampling=pb.Sampling(max_output_tokens=16))
        leader, follower = (
            caller.stub.Complete(complete(wanted), metadata=caller.metadata, timeout=PATIENCE)
            for _ in range(2)
        )
        await until(lambda: triton.received)
        await world.eventually(lambda: world.cache.count("waiters"), 1)
        leader.cancel()  # its attempt goes on for the follower, beyond the time of the stop
        await world.stop()
        follower.cancel()
        (made,) = [record["attempts"] for record in world.written() if record["attempts"]]
        assert [(one["verdict"], one["estimated"]) for one in made] == [("left", False)]
        assert made[0]["output_tokens"] == triton.received[0].sent


async def test_a_router_that_fails_takes_no_record_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = asyncio.Event()

    async def broken(*_: Any) -> None:
        await fail.wait()
        raise RuntimeError("broken")

    monkeypatch.setattr(Server, "until_stopped", broken)
    world = World(tmp_path)
    with pytest.RaisesGroup(RuntimeError):
        async with world.running(cache=False):
            await world.add("s")
            caller = await world.caller()
            for _ in range(20):
                await caller.ask()
            fail.set()
            await until(lambda: len(world.written()) == 20)
    assert len(world.written()) == 20


async def test_a_link_that_breaks_begins_anew(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add("s")
    whole, broke = Fleet.update, asyncio.Event()

    def breaks_once(fleet: Fleet, replicas: Iterable[Replica]) -> None:
        if not broke.is_set():
            broke.set()
            raise RuntimeError("broken")
        whole(fleet, replicas)

    monkeypatch.setattr(Fleet, "update", breaks_once)
    await world.add("t", "top")  # waits until the router knows it
    assert broke.is_set()
    assert (await caller.ask()).text


async def test_policies_may_change_while_a_tier_is_probed(tmp_path: Path) -> None:
    world = World(tmp_path)
    routes = tmp_path / "policies/routes.yaml"
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        shutil.copytree(TOKENIZER, folder)

    def with_top(folder: Path) -> str:
        return "\n".join(
            line.replace(str(TOKENIZER), str(folder)) if line.startswith("  top:") else line
            for line in original.splitlines()
        )

    original = routes.read_text()
    routes.write_text(with_top(folders[0]))
    async with world.running(cache=False, probe_engines=True):
        hold = Hold()
        small = await world.add("s", script=[hold, *answer(tokens(), sure=-1.0)])
        top = await world.add("t", "top", script=hello(sure=-1.0))
        await until(lambda: small.received)

        async def version() -> str:
            return re.findall(r'policy_version{version="(\w+)"} 1', await world.metrics())[0]

        before = await version()
        routes.write_text(with_top(folders[1]))

        async def changed() -> bool:
            return await version() != before

        await world.eventually(changed, wanted=True)
        hold.until.set()
        await until(lambda: top.received)


async def test_a_run_that_must_drain_has_the_patience_of_its_shape(tmp_path: Path) -> None:
    world = World(tmp_path)
    _edit(
        world,
        ("cancel: drain", "cancel: drain, first_token_seconds: 20, idle_seconds: 0.1"),
        ("share_until_calibrated: 1.0}}", "share_until_calibrated: 1.0, seconds: 0.3}}"),
    )
    async with world.running(cache=False):
        careful = await world.add("c", "careful", script=[Wait(1.5), *hello()])
        await world.add("t", "top", script=hello())
        caller = await world.caller()
        await caller.whole(asking("shadowed"))
        (record,) = await world.ledger(1)
        assert careful.stops == []
        found = {one["tier"]: one for one in record["attempts"]}["careful"]
        assert (found["output_tokens"], found["estimated"]) == (len(tokens()), False)


@pytest.mark.parametrize("streaming", [True, False])
async def test_what_outlives_its_caller_does_so_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, streaming: bool
) -> None:
    monkeypatch.setattr(runner, "BEYOND_DEADLINE_SECONDS", 0.3)
    async with World(tmp_path).running(cache=False) as world:
        await world.add("c", "careful", script=[Hold(), *hello()])
        caller = await world.caller()
        ask = caller.ask if streaming else caller.whole
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(asking("careful"), 0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        (record,) = await world.ledger(1)
        assert record["status"] == "DEADLINE_EXCEEDED"


async def test_a_replica_that_moves_takes_its_answers_along(world: World, caller: Caller) -> None:
    said = tokens()
    await world.add("s", script=[Say(said[:3]), Hold()])
    call = caller.generate(asking())
    for _ in range(2):
        await call.read()
    other = ScriptedTriton(hello())
    await other.start()
    try:
        await world.tell("s", other.address)
        with pytest.raises(grpc.aio.AioRpcError, match="replica s was lost in the middle"):
            await asyncio.wait_for(call.read(), PATIENCE)
    finally:
        await other.stop()


async def test_true_statuses_end_no_other_callers_answer(tmp_path: Path) -> None:
    async with World(tmp_path).running(cache=False, triton_grpc_errors=True) as world:
        hold = Hold()
        triton = await world.add("s", script=lambda _: script())

        def script() -> list[Any]:
            odd = len(triton.received) > 8
            return [Fail("Invalid request: too odd")] if odd else [hold, *hello()]

        caller = await world.caller()
        good = [asyncio.create_task(caller.whole(asking(content=f"{n}"))) for n in range(8)]
        await until(lambda: len(triton.received) >= 8)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.whole(asking(content="odd"))
        hold.until.set()
        assert len(await asyncio.gather(*good)) == 8


async def test_who_waits_for_a_router_whose_stream_broke_goes_on_and_its_answer_still_counts() -> (
    None
):
    cache = CacheService()
    await cache.start()
    one, other = (
        CacheStream(
            Peer(f"127.0.0.1:{cache.port}"),
            timeout_seconds=PATIENCE,
            metrics=Metrics(CollectorRegistry()),
            tracing=Tracing("test", ""),
        )
        for _ in range(2)
    )
    running = [asyncio.create_task(stream.run()) for stream in (one, other)]
    (small,) = ladder("small")
    asked = Asked((Message("user", "hi"),), None, 16, 0.0, 1.0, 0, None, ())
    written = Written((("Hello", 1),), Finish.STOP, 3, 1, "small", "small", "int8", "v1")

    async def look(stream: CacheStream, *, lease: bool = True, wait: float = 0.0) -> Any:
        return await stream.lookup(
            "acme", "cached", asked, (small,), lease=lease, max_wait_seconds=wait
        )

    async def connected(stream: CacheStream) -> None:
        while not (await look(stream, lease=False)).available:
            await asyncio.sleep(0.01)

    try:
        await asyncio.gather(connected(one), connected(other))
        lease = (await look(one)).lease
        assert lease
        waiting = asyncio.create_task(look(other, wait=60.0))
        while not await cache.count("waiters"):
            await asyncio.sleep(0.01)
        running[0].cancel()
        assert (await asyncio.wait_for(waiting, PATIENCE)).lease
        running.append(asyncio.create_task(one.run()))
        await connected(one)
        one.store("acme", "cached", asked, written, lease=lease, ttl_seconds=60.0)
        assert await one.flush(PATIENCE)
        assert isinstance(await look(other), CacheHit)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await cache.stop()


async def test_a_pile_of_long_prompts_does_not_break_the_stream_to_the_cache() -> None:
    cache = CacheService()
    await cache.start()
    stream = CacheStream(
        Peer(f"127.0.0.1:{cache.port}"),
        timeout_seconds=PATIENCE,
        metrics=Metrics(CollectorRegistry()),
        tracing=Tracing("test", ""),
    )
    running = asyncio.create_task(stream.run())
    tier: Any = SimpleNamespace(name="small", model="small", precision="int8")
    try:

        async def look(content: str) -> bool:
            asked = Asked((Message("user", content),), None, 16, 0.0, 1.0, 0, None, ())
            found: Any = await stream.lookup(
                "acme", "cached", asked, (tier,), lease=False, max_wait_seconds=0.0
            )
            return bool(found.available)

        while not await look("hi"):  # until it is connected
            await asyncio.sleep(0.01)
        assert all(await asyncio.gather(*(look(f"{n} " + "x" * 400_000) for n in range(24))))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cache.stop()


def _edit(world: World, *changes: tuple[str, str]) -> None:
    routes = world.folder / "policies/routes.yaml"
    text = routes.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    routes.write_text(text)
