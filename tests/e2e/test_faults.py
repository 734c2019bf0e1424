"""Parts of the real stack are killed under load: what callers see, and that nothing is lost.

Router, cache over Redis, scaler and three real Tritons run as processes. Every test leaves the
stack as whole as it found it: recovering is what is tested.
"""

import asyncio
import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Self

import pytest

from pennyweight import Client, Delta, Finished, PennyweightError, Started, Unavailable
from tests.e2e.running_stack import RunningStack
from tests.redis_server import RedisServer

QUESTION = "My card has not arrived yet, what can I do?"
LONG = {"max_output_tokens": 256, "temperature": 2.0, "cache_use": "bypass"}
"""A hot model rambles to its limit: long enough to be interrupted."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[RunningStack]:
    running = RunningStack(
        tmp_path_factory.mktemp("stack"),
        sizes={"small-cpu": 2, "large-cpu": 1},
        environment={"PENNYWEIGHT_CACHE_STORE": redis.url},
    )
    try:
        for name in ("cache", "scaler", "router"):
            running.start(name)
        yield running
    finally:
        replicas = running.replica_ids()
        running.close()
    assert len(replicas) == 3
    assert running.left_of(replicas) == []


@pytest.fixture
async def client(stack: RunningStack) -> AsyncIterator[Client]:
    async with stack.client() as connected:
        await ready(connected, {"small": 2, "large": 1})
        yield connected


async def ready(client: Client, replicas: dict[str, int]) -> None:
    """Waits until the router sees that many ready replicas of each tier."""
    give_up = time.monotonic() + 100
    while True:
        with contextlib.suppress(PennyweightError):
            found = {
                tier.name: tier.ready_replicas
                for route in (await client.list_routes()).routes
                for tier in route.ladder
            }
            if found == replicas:
                return
        assert time.monotonic() < give_up, "the fleet is not whole"
        await asyncio.sleep(0.05)


async def replica_of(client: Client, route: str) -> str:
    answer = await client.complete(route, QUESTION, cache_use="bypass")
    return answer.summary.decision.replica


class Stream:
    """One streamed answer and how it ended."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.text = ""
        self.finished: Finished | None = None
        self.error: PennyweightError | None = None

    async def run(self, client: Client, route: str) -> "Stream":
        try:
            async for event in client.generate(route, QUESTION, **LONG):
                if isinstance(event, Started):
                    self.started = event
                elif isinstance(event, Delta):
                    self.text += event.text
                else:
                    self.finished = event
        except PennyweightError as error:
            self.error = error
        return self


async def kill_while_streaming(stack: RunningStack, client: Client, role: str) -> None:
    """Kills one process of the large tier's replica under 24 streams; 16 more come after it."""
    replica = await replica_of(client, "support-expert")
    victim = stack.replica_processes(replica)[role]
    streams = [Stream() for _ in range(24)]
    tasks = [asyncio.create_task(one.run(client, "support-expert")) for one in streams]
    while not any(one.text for one in streams):
        await asyncio.sleep(0.005)
    victim.kill()
    late = [asyncio.create_task(Stream().run(client, "support-expert")) for _ in range(16)]
    ended = [*await asyncio.gather(*tasks), *await asyncio.gather(*late)]
    lost = [one for one in ended if one.error is not None]
    assert lost, "the replica was killed in the middle of answers"
    for one in lost:
        assert one.started is not None, "before the first token the caller never notices"
        assert isinstance(one.error, Unavailable)
        assert one.error.reason == "REPLICA_LOST"
        assert (one.error.retry_after_seconds or 0.0) >= 1.0, "it says when to ask anew"
        assert one.error.handle == one.started.handle
    assert all(one.finished is not None for one in ended if one.error is None)
    assert all(one.error is None for one in ended[24:]), "who came later was answered"


async def test_streams_survive_a_killed_server_until_their_first_token(
    stack: RunningStack, client: Client
) -> None:
    await kill_while_streaming(stack, client, "server")


async def test_streams_survive_a_killed_stub_until_their_first_token(
    stack: RunningStack, client: Client
) -> None:
    await kill_while_streaming(stack, client, "stub")


async def test_streams_survive_a_killed_engine_until_their_first_token(
    stack: RunningStack, client: Client
) -> None:
    await kill_while_streaming(stack, client, "engine")


class Load:
    """A steady stream of whole answers, all of which must arrive."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = False
        self.answers: list[tuple[bool, str]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _ask(self, number: int) -> None:
        route = ("support-chat", "support-expert")[number % 2]
        count = 0
        while not self._stop:
            count += 1
            answer = await self._client.complete(route, f"{QUESTION} {number} {count % 7}")
            assert answer.text
            self.answers.append(
                (answer.summary.decision.fleet_stale, answer.summary.decision.cache)
            )

    async def more(self, number: int) -> None:
        wanted = len(self.answers) + number
        while len(self.answers) < wanted:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)


async def test_no_answer_is_lost_while_the_scaler_is_away(
    stack: RunningStack, client: Client
) -> None:
    before = {await replica_of(client, route) for route in ("support-chat", "support-expert")}
    async with Load(client) as load:
        await load.more(10)
        stack.signal("scaler", signal.SIGKILL)
        stack.wait("scaler")
        await load.more(50)
        assert any(stale for stale, _ in load.answers), "the last known fleet is marked stale"
        stack.start("scaler")
        await ready(client, {"small": 2, "large": 1})
        give_up = time.monotonic() + 20
        while load.answers[-1][0]:
            assert time.monotonic() < give_up, "the fleet is current again"
            await load.more(5)
    after = {await replica_of(client, "support-expert")}
    assert after <= before, "replicas were adopted, not started anew"


async def test_no_answer_is_lost_while_redis_is_away(
    stack: RunningStack, client: Client, redis: RedisServer
) -> None:
    async with Load(client) as load:
        await load.more(40)
        assert any(cache == "exact" for _, cache in load.answers)
        redis.kill()
        at = len(load.answers)
        await load.more(40)
        assert not any(cache == "exact" for _, cache in load.answers[at + 8 :])
        redis.start()
        give_up = time.monotonic() + 20
        while load.answers[-1][1] != "exact":
            assert time.monotonic() < give_up, "answers are cached again"
            await load.more(5)


async def test_the_engine_stops_within_200_ms_when_callers_hang_up(
    stack: RunningStack, client: Client
) -> None:
    replica = await replica_of(client, "support-expert")
    # Other work on the machine makes some of them slower than it is.
    took = [await seconds_to_stop(stack, client, replica) for _ in range(4)]
    # The engine publishes its figures every 100 ms, so the end is seen that much later.
    assert min(took) < 0.2 + 0.1 + 0.1, took


async def seconds_to_stop(stack: RunningStack, client: Client, replica: str) -> float:
    """From hanging up to an idle replica.

    It cuts into the answers of a busy one; what that has already finished proves nothing.
    """
    streams: list[Stream] = []
    tasks: list[asyncio.Task[Stream]] = []
    while await active_requests(stack, replica) < 16 or not all(one.text for one in streams):
        if all(task.done() for task in tasks):  # the first time, or looked at too late
            streams = [Stream() for _ in range(32)]
            tasks = [asyncio.create_task(one.run(client, "support-expert")) for one in streams]
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    hung_up = time.monotonic()
    while await active_requests(stack, replica):
        await asyncio.sleep(0.005)
    took = time.monotonic() - hung_up
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(one.finished is None for one in streams) >= 16, "they were cut, not at their end"
    return took


async def active_requests(stack: RunningStack, replica: str) -> float:
    """Requests in the engine, as the replica itself publishes it."""
    record = json.loads(
        (stack.plan.scaler_state / "replicas" / replica / "record.json").read_text()
    )
    url = f"http://127.0.0.1:{record['metrics_port']}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith("nv_trt_llm_request_metrics") and '"active"' in line:
                return float(line.rsplit(" ", 1)[1])
    raise AssertionError("the replica publishes no figures")


async def test_a_stopping_router_finishes_what_runs_and_refuses_what_comes(
    stack: RunningStack, client: Client
) -> None:
    streams = [Stream() for _ in range(8)]
    tasks = [asyncio.create_task(one.run(client, "support-expert")) for one in streams]
    while not all(one.text for one in streams):
        await asyncio.sleep(0.005)
    stack.signal("router", signal.SIGTERM)
    await asyncio.sleep(0.05)
    async with stack.client() as late:
        with pytest.raises(Unavailable):
            await late.complete("support-chat", QUESTION)
    await asyncio.gather(*tasks)
    assert [one.error for one in streams] == [None] * 8
    assert all(one.finished is not None for one in streams)
    assert stack.wait("router") == 0
    stack.start("router")
    async with stack.client() as back:
        await ready(back, {"small": 2, "large": 1})
