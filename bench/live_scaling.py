"""The real stack under a load that doubles, falls, stops and comes again.

The small pool goes from one replica to two, to one, to none and to one again: once as processes of
the scaler's own, once as pods that KEDA has made by what the scaler tells it (`live_cluster`). Both
times every replica is a real Triton. The load is callers that each have one request at a time, so
that what it asks for does not hang on how fast this machine is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import yaml

from bench import report
from bench.live_cluster import KedaCluster
from bench.stack import METADATA, BenchError, Stack, free_port, pool, route, tier
from pennyweight import Client, PennyweightError
from pennyweight.ledger.tail import Tail
from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from services.local.traffic import questions

POOL = "small"
PLACES = 4
"""Of one replica: a load that a laptop can make fills them."""
CALLERS = 3
REST_SECONDS, QUICK_REST_SECONDS = 3.0, 0.5
"""How long the load goes on once the size is right."""
STEP_SECONDS = 60.0
"""Longest wait for a size."""
LOOK_SECONDS = 0.1

SCALE = {
    "min": 0,
    "max": 2,
    "work": None,
    "signals": {"running": {"target": 0.8}, "waiting": {"target": 1}},
    "behavior": {"scale_down": {"stabilization_window_seconds": 8}},
    "zero": {"idle_seconds": 5},
}
"""Windows are as short as they may be where nobody pays for a start."""


@dataclass(frozen=True)
class Seen:
    """The pool at one moment.

    Attributes:
        wanted: replicas.
        ready: replicas that are sent requests.
        there: replicas in any state.
        why: the last decision's.
    """

    wanted: int
    ready: int
    there: int
    why: str


@dataclass(frozen=True)
class Step:
    """A part of the course: what the load was, what came of it, and after how many seconds."""

    load: str
    before: Seen
    after: Seen
    seconds: float


@dataclass(frozen=True)
class Ran:
    """One course.

    Attributes:
        asked: requests.
        lost: requests that callers or the ledger know no answer of.
        breach_to_ready: seconds from the doubled load to the second replica that is ready.
        from_zero: seconds from a request that finds no replica to its answer.
    """

    steps: list[Step]
    asked: int
    lost: int
    breach_to_ready: float
    from_zero: float


def run(*, quick: bool) -> None:
    """Runs both and prints."""
    ours = asyncio.run(_ours(quick=quick))
    _tell("By the scaler's own processes", ours)
    keda = asyncio.run(_keda(quick=quick))
    _tell("By KEDA's protocol", keda)
    for prefix, ran in (("", ours), ("keda_", keda)):
        report.figure(f"live.{prefix}lost_requests", ran.lost, "x")
        report.figure(f"live.{prefix}breach_to_ready", ran.breach_to_ready, "s")
        report.figure(f"live.{prefix}from_zero", ran.from_zero, "s")


def _tell(title: str, ran: Ran) -> None:
    report.table(
        title,
        ("load", "ready before", "after", "seconds"),
        [
            (step.load, str(step.before.ready), str(step.after.ready), f"{step.seconds:.1f}")
            for step in ran.steps
        ],
        note=f"{ran.asked:,} requests, {ran.lost} of them lost.",
    )


async def _ours(*, quick: bool) -> Ran:
    """The pool has slots of this machine."""
    with Stack() as stack:
        slots = [{"grpc_port": 0, "metrics_port": 0} for _ in range(2)]
        place = {"repository": pool(POOL)["repository"], "slots": slots}
        scaler = _scaler(stack, place, {})
        return await _course(stack, scaler, quick=quick)


async def _keda(*, quick: bool) -> Ran:
    """The pool is a Deployment whose replicas KEDA sets."""
    with Stack() as stack:
        keda = f"127.0.0.1:{free_port()}"
        async with KedaCluster.open(stack, keda, pool=POOL, model=POOL) as cluster:
            settings = {"KUBECONFIG": cluster.kubeconfig, "KEDA_LISTEN": keda}
            scaler = _scaler(stack, {"kubernetes": cluster.place}, settings)
            ran = await _course(stack, scaler, quick=quick)
        if cluster.fell_back:
            report.say(f"KEDA fell back {cluster.fell_back} times")
        return ran


def _scaler(stack: Stack, place: dict[str, Any], settings: dict[str, object]) -> str:
    """Starts a scaler with the pool at this place. Returns its address."""
    declared = {key: value for key, value in pool(POOL).items() if key not in _OF_SLOTS}
    declared |= {"max_in_flight": PLACES, "scale": SCALE, **place}
    file = stack.folder / "policies" / "scaling.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"tick_seconds": 1, "pools": {POOL: declared}}))
    given = {"SCALING_FILE": file, "STATE_FOLDER": stack.folder / "scaler", **settings}
    return stack.service("scaler", given)[1]


_OF_SLOTS = frozenset(("repository", "slots", "parameters"))


async def _course(stack: Stack, scaler: str, *, quick: bool) -> Ran:
    routes = {
        "tiers": {POOL: tier(POOL)},
        "routes": {"chat": {**route(POOL, cache=False)}},
    }
    report.say("starting a cache, a scaler, a router and a replica of small")
    ledger = Tail(stack.folder / "ledger")
    # In a thread, as what the scaler asks of a cluster is answered here.
    _, address = await asyncio.to_thread(
        lambda: stack.router(routes, cache=stack.cache(), scaler=scaler)
    )
    async with (
        Client(address, max_attempts=1, timeout_seconds=STEP_SECONDS) as client,
        _watched(scaler) as sight,
    ):
        load = Load(client)
        ran = await _steps(sight, load, QUICK_REST_SECONDS if quick else REST_SECONDS)
    # What ends in order writes all of its ledger.
    await asyncio.to_thread(stack.processes.pop("router").end)
    steps, breach_to_ready, from_zero = ran
    lost = _lost(load, ledger)
    return Ran(steps, load.asked, lost, breach_to_ready, from_zero)


async def _steps(sight: "Sight", load: "Load", rest: float) -> tuple[list[Step], float, float]:
    steps: list[Step] = []

    async def step(callers: int, size: int, says: str) -> float:
        before, started = sight.now, time.monotonic()
        load.be(callers)
        report.say(f"{callers} callers")
        await sight.until(lambda seen: seen.ready == seen.there == seen.wanted == size, says)
        took = time.monotonic() - started
        await asyncio.sleep(rest)
        steps.append(Step(says, before, sight.now, took))
        return took

    await step(CALLERS, 1, f"{CALLERS} callers")
    breach_to_ready = await step(2 * CALLERS, 2, f"{2 * CALLERS} callers")
    await step(1, 1, "1 caller")
    await step(0, 0, "none")
    before, started = sight.now, time.monotonic()
    await load.ask()
    from_zero = time.monotonic() - started
    await sight.until(lambda seen: seen.ready == 1, "1 request")
    steps.append(Step("1 request", before, sight.now, from_zero))
    await load.ended()
    return steps, breach_to_ready, from_zero


class Load:
    """Callers that each ask again as soon as they have an answer.

    Attributes:
        asked: requests so far.
        answered: of these, those with an answer.
    """

    def __init__(self, client: Client) -> None:
        """Nobody calls yet."""
        self.asked = 0
        self.answered = 0
        self._client = client
        self._questions: Iterator[str] = questions(None, 1)
        self._wanted = 0
        self._callers: dict[int, asyncio.Task[None]] = {}

    def be(self, callers: int) -> None:
        """So many callers; one too many goes once it has its answer."""
        self._wanted = callers
        for number in range(callers):
            if number not in self._callers or self._callers[number].done():
                self._callers[number] = asyncio.create_task(self._call(number))

    async def ask(self) -> None:
        """One request. An error is told, and is one that is lost."""
        self.asked += 1
        try:
            await self._client.complete("chat", next(self._questions))
        except PennyweightError as error:
            report.say(f"lost: {error}")
        else:
            self.answered += 1

    async def ended(self) -> None:
        """Waits until no request is under way."""
        await asyncio.gather(*self._callers.values())

    async def _call(self, number: int) -> None:
        while number < self._wanted:
            await self.ask()


class Sight:
    """What the scaler says of the pool, looked at again and again.

    Attributes:
        now: what it said last.
    """

    def __init__(self, stub: Any) -> None:
        """Nothing was seen yet."""
        self.now = Seen(0, 0, 0, "")
        self._stub = stub
        self._changed = asyncio.Event()

    async def watch(self) -> None:
        """Looks for ever; the caller owns it."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                self._take(
                    await self._stub.ListPools(pb.ListPoolsRequest(), metadata=METADATA, timeout=5)
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def until(self, is_so: Callable[[Seen], bool], load: str) -> None:
        """Waits for it.

        Raises:
            BenchError: it does not come.
        """
        try:
            async with asyncio.timeout(STEP_SECONDS):
                while not is_so(self.now):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            said = f"{load}: after {STEP_SECONDS:.0f} s the pool is {self.now}"
            raise BenchError(said) from None

    def _take(self, found: pb.ListPoolsResponse) -> None:
        (one,) = found.pools
        ready = sum(each.state == pb.REPLICA_STATE_READY for each in one.replicas)
        before = self.now
        self.now = Seen(one.desired_replicas, ready, len(one.replicas), one.why)
        if replace(self.now, why=before.why) != before:
            there = f"{ready} of {self.now.there} ready"
            report.say(f"  {self.now.wanted} wanted, {there}: {one.why}")
        self._changed.set()


@contextlib.asynccontextmanager
async def _watched(scaler: str) -> AsyncIterator[Sight]:
    async with grpc.aio.insecure_channel(scaler) as channel:
        sight = Sight(scaler_pb2_grpc.ScalerServiceStub(channel))
        watching = asyncio.create_task(sight.watch())
        try:
            await sight.until(lambda seen: seen.ready > 0, "at first")
            yield sight
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _lost(load: Load, ledger: Tail) -> int:
    """Requests without an answer: as callers have it, or the ledger, whichever knows of more."""
    records = [record for record in ledger.read() if record["kind"] == "request"]
    answered = [record["status"] for record in records].count("OK")
    return max(load.asked - load.answered, load.asked - answered, len(records) - answered)
