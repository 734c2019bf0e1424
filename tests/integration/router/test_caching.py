"""Stored answers, one run for many, and a cache that goes away."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.router.processes import Process
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    Answer,
    Caller,
    World,
    asking,
    hello,
    texts,
    tokens,
    until,
)
from tests.integration.scripted_triton import Hold, Refuse, Say, ScriptedTriton, answer
from tests.making.ports import free_port

MISS, EXACT, SHARED = pb.CACHE_OUTCOME_MISS, pb.CACHE_OUTCOME_EXACT, pb.CACHE_OUTCOME_SHARED
NOT_ASKED, UNAVAILABLE = pb.CACHE_OUTCOME_NOT_ASKED, pb.CACHE_OUTCOME_UNAVAILABLE


class Scene:
    """A world with a cache, one replica and a caller."""

    def __init__(self, world: World, caller: Caller, triton: ScriptedTriton) -> None:
        self.world, self.caller, self.triton = world, caller, triton

    async def outcome(self, request: pb.GenerateRequest | None = None) -> int:
        told = await self.caller.ask(request or asking("cached"))
        assert told.text == HELLO
        return told.decision.cache

    async def stored(self, count: int = 1) -> None:
        """Waits until the cache has stored that many answers."""
        cache = self.world.cache
        await self.world.eventually(lambda: cache.count("stores_total", result="stored"), count)


@pytest.fixture
async def scene(cached_world: World) -> Scene:
    triton = await cached_world.add("a")
    return Scene(cached_world, await cached_world.caller(), triton)


async def test_a_stored_answer_serves_whole_and_for_nothing(scene: Scene) -> None:
    first = await scene.caller.ask(asking("cached"))
    await scene.stored()
    again = await scene.caller.ask(asking("cached"))
    assert (first.decision.cache, again.decision.cache) == (MISS, EXACT)
    assert texts([first, again]) == {HELLO}
    assert [one.text for one in again.pieces] == [one.text for one in first.pieces]
    assert again.decision.reason == pb.REASON_CACHED
    assert (again.decision.tier, again.decision.replica) == ("small", "")
    assert again.summary.usage.output_tokens == first.summary.usage.output_tokens
    assert again.summary.usage.prompt_tokens == first.summary.usage.prompt_tokens
    assert again.summary.cost.micro_usd == 0
    assert again.summary.cost.baseline_micro_usd == first.summary.cost.baseline_micro_usd > 0
    whole = await scene.caller.whole(asking("cached"))
    assert (whole.text, whole.summary.decision.cache) == (HELLO, EXACT)
    assert len(scene.triton.received) == 1
    assert [one["cache"] for one in await scene.world.ledger(3)] == ["miss", "exact", "exact"]


async def test_what_would_be_answered_otherwise_is_another_entry(scene: Scene) -> None:
    others = [
        asking("cached", "another question"),
        asking("cached", sampling=pb.Sampling(max_output_tokens=100)),
        asking("cached", sampling=pb.Sampling(stop=["never"])),
        asking("cached", sampling=pb.Sampling(temperature=0.5, seed=1)),
        asking("cached", sampling=pb.Sampling(temperature=0.5, seed=2)),
    ]
    for request in (asking("cached"), *others):
        assert await scene.outcome(request) == MISS
    await scene.stored(6)
    for request in (asking("cached"), *others):
        assert await scene.outcome(request) == EXACT


async def test_tenants_do_not_share_answers(scene: Scene) -> None:
    assert await scene.outcome() == MISS
    await scene.stored()
    other = await scene.world.caller("umbrella")
    assert (await other.ask(asking("cached"))).decision.cache == MISS
    assert len(scene.triton.received) == 2


async def test_what_is_drawn_anew_each_time_is_not_cached(scene: Scene) -> None:
    drawn = asking("cached", sampling=pb.Sampling(temperature=0.5))
    assert [await scene.outcome(drawn) for _ in range(2)] == [NOT_ASKED, NOT_ASKED]
    assert [await scene.outcome(asking("chat")) for _ in range(2)] == [NOT_ASKED, NOT_ASKED]
    assert await scene.world.cache.count("lookups_total", result="leased") == 0


async def test_a_caller_may_keep_the_cache_out(scene: Scene) -> None:
    bypass = asking("cached", terms=pb.Terms(cache_use=pb.CACHE_USE_BYPASS))
    assert await scene.outcome(bypass) == NOT_ASKED
    assert await scene.outcome() == MISS
    await scene.stored()
    assert await scene.outcome(bypass) == NOT_ASKED
    assert len(scene.triton.received) == 3


async def test_a_caller_may_have_the_stored_answer_renewed(scene: Scene) -> None:
    assert await scene.outcome() == MISS
    await scene.stored()
    scene.triton.script = answer(tokens("Something new"))
    refresh = asking("cached", terms=pb.Terms(cache_use=pb.CACHE_USE_REFRESH))
    told = await scene.caller.ask(refresh)
    assert (told.text, told.decision.cache) == ("Something new", NOT_ASKED)
    await scene.stored(2)
    told = await scene.caller.ask(asking("cached"))
    assert (told.text, told.decision.cache) == ("Something new", EXACT)


async def test_a_failed_answer_is_not_stored(scene: Scene) -> None:
    scene.triton.script = [Say(tokens()[:3]), Refuse("something broke")]
    await scene.caller.refused(asking("cached"))
    scene.triton.script = hello()
    assert await scene.outcome() == MISS


@pytest.mark.parametrize("streaming", [True, False])
async def test_many_identical_requests_are_one_run(scene: Scene, *, streaming: bool) -> None:
    hold = Hold()
    scene.triton.script = [Say(tokens()[:3]), hold, Say(tokens()[3:], final=True)]
    ask = scene.caller.ask if streaming else scene.caller.whole
    asked = [asyncio.create_task(ask(asking("cached"))) for _ in range(20)]  # type: ignore[operator]
    await scene.world.eventually(lambda: scene.world.cache.count("waiters"), 19)
    hold.until.set()
    told = await asyncio.gather(*asked)
    assert {one.text for one in told} == {HELLO}
    outcomes = sorted(one.summary.decision.cache for one in told)
    assert outcomes == [MISS, *[SHARED] * 19]
    assert len(scene.triton.received) == 1
    assert sum(one.summary.cost.micro_usd > 0 for one in told) == 1


async def test_when_a_run_fails_the_next_who_waits_tries(scene: Scene) -> None:
    hold = Hold()
    scene.triton.scripts.append([hold, Refuse("something broke")])
    first = asyncio.create_task(scene.caller.refused(asking("cached")))
    await until(lambda: scene.triton.received)
    others = [asyncio.create_task(scene.caller.ask(asking("cached"))) for _ in range(5)]
    await scene.world.eventually(lambda: scene.world.cache.count("waiters"), 5)
    hold.until.set()
    assert not (await first).so_far.pieces
    told: list[Answer] = await asyncio.gather(*others)
    assert sorted(one.decision.cache for one in told) == [MISS, *[SHARED] * 4]
    assert len(scene.triton.received) == 2


async def test_an_explanation_looks_but_takes_no_lease(scene: Scene) -> None:
    request = pb.ExplainRequest.FromString(asking("cached").SerializeToString())

    async def explained() -> pb.ExplainResponse:
        return await scene.caller.stub.Explain(
            request, metadata=scene.caller.metadata, timeout=PATIENCE
        )

    told = await explained()
    assert (told.decision.cache, told.decision.reason) == (MISS, pb.REASON_FIXED_TIER)
    assert await scene.world.cache.count("lookups_total", result="leased") == 0
    assert await scene.outcome() == MISS
    await scene.stored()
    told = await explained()
    assert (told.decision.cache, told.decision.reason) == (EXACT, pb.REASON_CACHED)
    assert told.max_micro_usd == 0
    assert len(scene.triton.received) == 1


async def test_without_the_cache_answers_come_all_the_same(scene: Scene) -> None:
    assert await scene.outcome() == MISS
    await scene.stored()
    await scene.world.cache.stop()
    assert await scene.outcome() == UNAVAILABLE
    assert (await scene.caller.whole(asking("cached"))).text == HELLO
    assert await scene.world.metric("cache_unavailable_total") >= 2
    await scene.world.cache.start()
    await scene.world.eventually(scene.outcome, MISS)
    await scene.world.eventually(scene.outcome, EXACT)


class CacheProcess:
    """The cache in a process of its own, that can be killed."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: Process | None = None

    async def start(self) -> None:
        told = {
            "PENNYWEIGHT_CACHE_LISTEN": f"127.0.0.1:{self.port}",
            "PENNYWEIGHT_CACHE_METRICS_LISTEN": "127.0.0.1:0",
        }
        self._process = Process("services.cache", environ=told)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send(number)


async def test_a_cache_that_hangs_costs_one_moment_not_each_request_its_wait(
    tmp_path: Path,
) -> None:
    world, cache = World(tmp_path), CacheProcess()
    world.cache = cache  # type: ignore[assignment]
    async with world.running(cache=True):
        await world.add("a")
        caller = await world.caller()

        async def outcome() -> int:
            return (await caller.ask(asking("cached"))).decision.cache

        await world.eventually(outcome, EXACT)
        cache.send(signal.SIGSTOP)
        hung = time.monotonic()
        assert await outcome() == UNAVAILABLE
        assert await outcome() == UNAVAILABLE
        assert time.monotonic() - hung < 5.0, "the route would wait 10 s for another's answer"
        cache.send(signal.SIGCONT)
        await world.eventually(outcome, EXACT)


async def test_a_cache_killed_under_load_is_a_miss_and_nothing_else(
    tmp_path: Path,
) -> None:
    world, cache = World(tmp_path), CacheProcess()
    world.cache = cache  # type: ignore[assignment]
    async with world.running(cache=True):
        await world.add("a")
        caller = await world.caller()
        outcomes: set[int] = set()
        enough = asyncio.Event()

        async def keep_asking(worker: int) -> None:
            number = 0
            while not enough.is_set():
                number += 1
                request = asking("cached", f"question {worker} {number % 3}")
                told = await caller.ask(request)
                assert told.text == HELLO
                outcomes.add(told.decision.cache)

        async def seen(*wanted: int) -> None:
            outcomes.clear()
            await until(lambda: outcomes.issuperset(wanted), f"only {outcomes}")

        workers = [asyncio.create_task(keep_asking(one)) for one in range(4)]
        try:
            await seen(EXACT)
            await cache.stop()
            await seen(UNAVAILABLE)
            await cache.start()
            await seen(EXACT)
        finally:
            enough.set()
            results: list[Any] = await asyncio.gather(*workers, return_exceptions=True)
    assert results == [None] * 4
