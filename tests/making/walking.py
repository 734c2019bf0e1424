"""A request's way without sockets: doubles say what they are told to and note what happens."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import InternalError
from services.router.evidence.drift import DriftWatch
from services.router.evidence.pairs import Pairs
from services.router.fleet.fleet import Fleet, Replica, State
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.decision import Decision
from services.router.policy.routes import Route, Tier
from services.router.ports import (
    Asked,
    CacheHit,
    CacheMiss,
    EngineChunk,
    Message,
    Written,
)
from services.router.request.journey import Journey
from services.router.request.path import RequestPath
from services.router.wire.requests import check
from tests.making.policies import compiled


class Letters:
    """Stands for a tokenizer: one token a letter."""

    end_id, pad_id = 2, 0

    async def encode(self, turns: Sequence[Message]) -> list[int]:
        return [ord(one) for turn in turns for one in turn.content]

    def encode_plain(self, text: str) -> list[int]:
        return [ord(one) for one in text]

    def detokenizer(self) -> "Letters":
        return self

    def feed(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def rest(self) -> str:
        return ""


@dataclass(eq=False)
class Run:
    """A run that says its chunks one after another; an exception among them is raised.

    `sure` is the log-probability of every token; None says none.
    """

    chunks: list[str | Exception]
    sure: float | None = None
    cancelled: bool = False
    finished: bool = False
    said: int = 0
    asked: dict[str, Any] = field(default_factory=dict)

    async def read(self, timeout_seconds: float) -> EngineChunk:
        await asyncio.sleep(0)
        text = self.chunks.pop(0)
        if isinstance(text, Exception):
            raise text
        self.said += len(text)
        log_probs = None if self.sure is None else [self.sure] * self.said
        return EngineChunk([ord(one) for one in text], final=not self.chunks, log_probs=log_probs)

    async def finish(self) -> None:
        self.finished = True

    def cancel(self) -> None:
        self.cancelled = True

    def give_up(self, why: str) -> None:
        raise AssertionError(why)


@dataclass
class Engine:
    """Starts the runs of each tier in turn; without one it cannot start."""

    runs: dict[str, list[Run]]
    started: list[tuple[str, Run]] = field(default_factory=list)

    def start(self, address: str, tier: Tier, prompt: Any, asked: Any, **told: Any) -> Run:
        if not self.runs.get(tier.name):
            raise InternalError("cannot start")
        run = self.runs[tier.name].pop(0)
        run.asked = {"prompt": prompt, "asked": asked, **told}
        self.started.append((tier.name, run))
        return run

    @property
    def order(self) -> list[str]:
        """Tiers that ran."""
        return [tier for tier, _ in self.started]


@dataclass
class Cache:
    """Gives a lease, or an answer, and takes note."""

    awaited: bool = True
    lease: str = "lease"
    answer: Written | None = None
    accepted: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stored: list[Written] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)

    async def lookup(
        self, tenant: str, route: str, asked: Asked, accepted: Sequence[Tier], **_: Any
    ) -> CacheHit | CacheMiss:
        self.accepted = [tier.name for tier in accepted]
        self.asked.append(asked.turns[-1].content)
        return CacheMiss(self.lease) if self.answer is None else CacheHit(self.answer, shared=False)

    def store(self, tenant: str, route: str, asked: Any, answer: Written, **_: Any) -> None:
        self.asked.append(asked.turns[-1].content)
        self.stored.append(answer)

    def abandon(self, tenant: str, route: str, lease: str) -> None:
        self.abandoned.append(lease)

    async def abandon_unless_awaited(self, tenant: str, route: str, lease: str) -> bool:
        if not self.awaited:
            self.abandoned.append(lease)
        return self.awaited


@dataclass
class Listener:
    """Writes events; blocks at the one numbered `blocks_at`, as a caller who does not read."""

    blocks_at: int = -1
    events: list[str] = field(default_factory=list)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    raises: type[Exception] | None = None

    async def _write(self, event: str) -> None:
        if len(self.events) == self.blocks_at:
            if self.raises is not None:
                raise self.raises
            self.blocked.set()
            await asyncio.Event().wait()
        self.events.append(event)

    async def started(self, decision: Decision) -> None:
        await self._write("started")

    async def piece(self, text: str, tokens: int) -> None:
        await self._write(text)


@dataclass
class Board:
    """Levers that are halted, and what the watch was told."""

    off: Collection[str] = ()
    told: list[tuple[Mapping[str, float], float]] = field(default_factory=list)

    def halted(self, route: Route) -> Collection[str]:
        return self.off

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        self.told.append((losses, weight))


@dataclass
class Same:
    """A judge to whom the last answer is right, and another right if it is the same."""

    silent: bool = False
    asked: list[Sequence[str]] = field(default_factory=list)

    async def judge(
        self, route: Route, asked: Asked, answers: Sequence[str]
    ) -> Sequence[float] | None:
        self.asked.append(answers)
        return None if self.silent else [float(one == answers[-1]) for one in answers]


@dataclass
class Shelf:
    """Values kept, for ever; ledger records too."""

    values: dict[str, bytes] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)

    async def keep_once(self, key: str, value: bytes, seconds: float) -> bytes | None:
        if key in self.values:
            return self.values[key]
        self.values[key] = value
        return None

    async def kept(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def settle(self, route: Route, request_id: str) -> None:
        self.settled.append((route.name, request_id))

    def add(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class Way:
    """A path with a replica for each tier of a route, and a request on it."""

    def __init__(
        self,
        told: Route,
        engine: Engine,
        *,
        cache: Cache | None = None,
        board: Board | None = None,
        judge: Same | None = None,
        chance: Callable[[], float] = lambda: 1.0,
        streaming: bool = True,
        request: pb.GenerateRequest | None = None,
    ) -> None:
        texts = {tier.tokenizer: Letters() for tier in told.ladder}
        version = compiled(told, texts=texts)
        self.metrics = Metrics(CollectorRegistry())
        self.fleet = Fleet(version.policies, self.metrics)
        self.replicas = [
            Replica(one.name, one.name, one.model, one.precision, "a:1", State.READY, 8)
            for one in told.ladder
        ]
        self.fleet.update(self.replicas)
        self.engine, self.board, self.shelf = engine, board or Board(), Shelf()
        self.cache, self.judge = cache or Cache(), judge or Same()
        self.spawned: list[asyncio.Task[None]] = []
        self.load = LoadWindow()
        self.pairs = Pairs(
            texts=texts,
            judge=self.judge,
            levers=self.board,
            keeper=self.shelf,
            ledger=self.shelf,
            digest=lambda text: f"<{text}>",
            settle=self.shelf.settle,
            metrics=self.metrics,
            spawn=self.spawn,
        )
        self.path = RequestPath(
            fleet=self.fleet,
            engine=engine,
            texts=texts,
            cache=self.cache,
            levers=self.board,
            pairs=self.pairs,
            drift=DriftWatch(self.metrics),
            load=self.load,
            metrics=self.metrics,
            spawn=self.spawn,
            chance=chance,
        )
        if request is None:
            request = pb.GenerateRequest()
            request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
        request.route = told.name
        now = time.monotonic()
        self.journey = Journey(
            request_id="1",
            handle="1",
            tenant="acme",
            checked=check(request, "acme", version, longest=1000),
            arrived=now,
            until=now + 30,
            streaming=streaming,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.create_task(work))

    async def go(self, listener: Listener | None = None) -> list[str]:
        """Goes the whole way, and waits for what goes on behind it; returns what was told."""
        listener = listener or Listener()
        try:
            await self.path.answer(self.journey, listener)
        finally:
            while pending := [task for task in self.spawned if not task.done()]:
                await asyncio.wait(pending)
        return listener.events

    @property
    def decision(self) -> Decision:
        assert self.journey.decision is not None
        return self.journey.decision

    def in_flight(self) -> int:
        return sum(replica.in_flight + len(replica.runs) for replica in self.replicas)

    async def hang_up(self, listener: Listener) -> None:
        """Goes the way until the listener blocks, then hangs up and lets the rest end."""
        task = asyncio.create_task(self.path.answer(self.journey, listener))
        if listener.raises is None:
            await asyncio.wait_for(listener.blocked.wait(), 10)
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() or task.exception() is not None
        await asyncio.gather(*self.spawned)
