"""A request's way without sockets: doubles say their lines and note what happens."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from pennyweight.ledger.schema import LedgerRecord
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import InternalError
from services.router.admission.long_work import LongWork
from services.router.admission.tokenising import Tokenising
from services.router.engines.pieces import Pieces
from services.router.evidence.outcomes import turns_at_the_state
from services.router.evidence.pairs import Pairs
from services.router.fleet.load import LoadWindow
from services.router.fleet.replica import Replica, State
from services.router.metrics import Metrics
from services.router.policy.decision import Decision
from services.router.policy.long_prompts import Room
from services.router.policy.pace import Paces
from services.router.policy.poison import PoisonMarks
from services.router.policy.prompts import Message
from services.router.policy.routes import Route, Tier
from services.router.ports import (
    Asked,
    CacheHit,
    CacheMiss,
    Capabilities,
    EngineFigures,
    EngineRequest,
    Finish,
    MakeRecord,
    Piece,
    ReplicaFailed,
    TooLong,
    Written,
)
from services.router.request.attempt import Attempt
from services.router.request.context import RequestState
from services.router.request.entry import Entry
from services.router.request.hold import Checks
from services.router.request.path import RequestPath
from services.router.request.planner import Planner
from services.router.request.runner import Runner
from services.router.request.stored import StoredAnswers
from services.router.request.trouble import Trouble
from services.router.wire.requests import check
from tests.making.policies import compiled
from tests.making.watched_fleet import WatchedFleet


class Letters:
    """Stands for a tokenizer: one token a letter."""

    end_id, pad_id = 2, 0

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return [ord(letter) for message in messages for letter in message.content]

    def encode_below(self, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
        tokens = self.encode(messages)
        return tokens if len(tokens) < limit else TooLong(len(tokens))

    def least_tokens(self, messages: Sequence[Message]) -> int:
        return len(self.encode(messages))

    def encode_plain(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def detokenizer(self) -> "Letters":
        return self

    def feed(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def rest(self) -> str:
        return ""


class Run:
    """A call that says its chunks one after another; an exception among them is raised.

    One token a letter. `sure` is the log-probability of every token; None says none. What is left
    of the chunks when the call is stopped was never made.
    """

    def __init__(self, chunks: list[str | Exception], sure: float | None = None) -> None:
        self.chunks = chunks
        self.sure = sure
        self.cancelled = self.finished = self.final = False
        self.output_tokens = 0
        self.heard_at: float | None = None  # as it is read
        self.figures = EngineFigures()
        self.asked: EngineRequest | None = None
        self._pieces = Pieces(Letters(), (), 0)

    def start(self, request: EngineRequest) -> None:
        self.asked = request
        self._pieces = Pieces(Letters(), request.asked.stop, request.max_output_tokens)

    @property
    def finish_reason(self) -> Finish:
        return self._pieces.finish_reason

    async def read(self, timeout_seconds: float) -> Piece:
        await asyncio.sleep(0)
        text = self.chunks.pop(0)
        if isinstance(text, Exception):
            raise text
        self.output_tokens += len(text)
        self.final = not self.chunks
        return self._pieces.take([ord(letter) for letter in text], final=self.final)

    def log_probs(self, most: int) -> list[float] | None:
        return None if self.sure is None or most > self.output_tokens else [self.sure] * most

    def finish(self) -> None:
        self.finished = True

    async def stop(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        self.cancelled = True

    def give_up(self, failure: ReplicaFailed) -> None:
        raise AssertionError(failure)


class Idle:
    """What an engine does of itself: nothing. Replicas come and go without connections to them."""

    def learn_log_probs(self, tier: Tier, *, has: bool) -> None:
        raise AssertionError("nobody probes it")

    def forget(self, address: str) -> None:
        pass

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


@dataclass
class Engine(Idle):
    """Starts the runs of each tier in turn; without one it cannot start."""

    runs: dict[str, list[Run]]
    started: list[tuple[str, Run]] = field(default_factory=list)
    has_log_probs: bool | None = None

    def capabilities(self, tier: Tier) -> Capabilities:
        return Capabilities(
            self.has_log_probs, can_resume=False, counts_tokens=True, has_priority=False
        )

    def start(self, address: str, request: EngineRequest) -> Run:
        tier = request.tier.name
        if not self.runs.get(tier):
            raise InternalError("cannot start")
        run = self.runs[tier].pop(0)
        run.start(request)
        self.started.append((tier, run))
        return run

    @property
    def asked(self) -> list[EngineRequest]:
        """What they were asked."""
        return [run.asked for _, run in self.started if run.asked is not None]

    @property
    def order(self) -> list[str]:
        """Tiers that ran."""
        return [tier for tier, _ in self.started]


@dataclass
class Cache:
    """Gives a lease, or an answer, and takes note; says nothing while it is `away`."""

    awaited: bool = True
    lease: str = "lease"
    away: bool = False
    answer: Written | None = None
    accepted: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    stored: list[Written] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)

    async def lookup(
        self,
        tenant: str,
        route: str,
        asked: Asked,
        accepted: Sequence[Tier],
        *,
        lease: bool,
        max_wait_seconds: float,
    ) -> CacheHit | CacheMiss:
        self.waits.append(max_wait_seconds)
        self.accepted = [tier.name for tier in accepted]
        self.asked.append(asked.messages[-1].content)
        if self.answer is None:
            return CacheMiss("" if self.away or not lease else self.lease, available=not self.away)
        return CacheHit(self.answer, shared=False)

    def store(self, tenant: str, route: str, asked: Any, answer: Written, **_: Any) -> None:
        self.asked.append(asked.messages[-1].content)
        self.stored.append(answer)

    def abandon(self, tenant: str, route: str, lease: str) -> None:
        self.abandoned.append(lease)

    async def abandon_unless_awaited(self, tenant: str, route: str, lease: str) -> bool:
        if not self.awaited:
            self.abandoned.append(lease)
        return self.awaited


@dataclass
class Listener:
    """Writes events; blocks at the one numbered `blocks_at`, as a caller who does not read.

    It goes on once it is let go.
    """

    blocks_at: int = -1
    events: list[str] = field(default_factory=list)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    raises: type[Exception] | None = None

    async def _write(self, event: str) -> None:
        if len(self.events) == self.blocks_at:
            if self.raises is not None:
                raise self.raises
            self.blocked.set()
            await self.let_go.wait()
        self.events.append(event)

    async def started(self, decision: Decision) -> None:
        await self._write("started")

    async def piece(self, text: str, tokens: int) -> None:
        await self._write(text)


@dataclass
class Board:
    """Levers that are halted, and the samples that the watch got."""

    off: Collection[str] = ()
    samples: list[tuple[Mapping[str, float], float]] = field(default_factory=list)

    def halted(self, route: Route) -> Collection[str]:
        return self.off

    async def judged(self, route: Route, losses: Mapping[str, float], weight: float) -> None:
        self.samples.append((losses, weight))


@dataclass
class Same:
    """A judge to whom the last answer is right, and another right if it is the same."""

    silent: bool = False
    asked: list[Sequence[str]] = field(default_factory=list)

    async def judge(
        self, route: Route, asked: Asked, answers: Sequence[str]
    ) -> Sequence[float] | None:
        self.asked.append(answers)
        return None if self.silent else [float(answer == answers[-1]) for answer in answers]


@dataclass
class Shelf:
    """Values kept, for ever; ledger records too, as they come back out of JSON."""

    values: dict[str, bytes] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    settled: list[tuple[str, str]] = field(default_factory=list)

    async def keep_once(
        self, key: str, value: bytes, seconds: float, *, tenant: str
    ) -> bytes | None:
        if key in self.values:
            return self.values[key]
        self.values[key] = value
        return None

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        return self.values.get(key)

    async def settle(self, route: Route, request_id: str, tenant: str) -> None:
        self.settled.append((route.name, request_id))

    def add(self, record: LedgerRecord | MakeRecord) -> None:
        record = record() if callable(record) else record
        self.records.append(orjson.loads(orjson.dumps(record)))


class Way:
    """A path with a replica for each tier of a route, and a request on it."""

    def __init__(
        self,
        route: Route,
        engine: Engine,
        *,
        cache: Cache | None = None,
        board: Board | None = None,
        judge: Same | None = None,
        chance: Callable[[], float] = lambda: 1.0,
        streaming: bool = True,
        request: pb.GenerateRequest | None = None,
    ) -> None:
        texts = {tier.tokenizer: Letters() for tier in route.ladder}
        version = compiled(route, texts=texts)
        self.now = 1000.0  # stands still until a test moves it
        self.metrics = Metrics(CollectorRegistry())
        self.fleet = WatchedFleet(
            version.policies, self.metrics, spawn=self.spawn, clock=self.clock
        )
        self.replicas = [
            Replica(tier.name, tier.name, tier.model, tier.precision, "a:1", State.READY, 8)
            for tier in route.ladder
        ]
        self.fleet.update(self.replicas)
        self.engine, self.board, self.shelf = engine, board or Board(), Shelf()
        self.cache, self.judge = cache or Cache(), judge or Same()
        self.spawned: list[asyncio.Task[None]] = []
        self.settled: list[RequestState] = []
        self.ended: list[Attempt] = []
        self.pauses: list[float] = []
        self.load = LoadWindow()
        self.planner = Planner(self.load, Tokenising(self.clock), self.clock)
        self.checks = Checks(LongWork("checking", self.clock, Room()))
        self.runner = Runner(
            fleet=self.fleet,
            engine=engine,
            load=self.load,
            metrics=self.metrics,
            paces=Paces(),
            trouble=Trouble(self.fleet, self.load, self.metrics, PoisonMarks(), self.clock),
            checks=self.checks,
            attempt_over=lambda _, attempt: self.ended.append(attempt),
            spawn=self.spawn,
            clock=self.clock,
            pause=self.pause,
            chance=lambda: 1.0,
        )
        self.pairs = Pairs(
            planner=self.planner,
            runner=self.runner,
            checks=self.checks,
            judge=self.judge,
            levers=self.board,
            keeper=self.shelf,
            digest=lambda text: f"<{text}>",
            question=lambda text: f"<{text}>",
            settle=self.shelf.settle,
            turns=turns_at_the_state(self.clock),
            long_work=LongWork("questions", self.clock, Room()),
            metrics=self.metrics,
            spawn=self.spawn,
            wall=time.time,
        )
        self.path = RequestPath(
            stored=StoredAnswers(
                cache=self.cache, checks=self.checks, metrics=self.metrics, clock=self.clock
            ),
            planner=self.planner,
            runner=self.runner,
            fleet=self.fleet,
            metrics=self.metrics,
            answered=self.answered,
            clock=self.clock,
        )
        self.entry = Entry(
            levers=self.board,
            sign=lambda *_: "1",
            settled=self.note_settled,
            chance=chance,
            clock=self.clock,
            wall=time.time,
        )
        if request is None:
            request = pb.GenerateRequest()
            request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
        request.route = route.name
        self.request, self.compiled, self.streaming = request, version, streaming
        self.state = self.begin()

    def begin(
        self, request: pb.GenerateRequest | None = None, *, streaming: bool | None = None
    ) -> RequestState:
        """A request that is to travel; the path's own unless another is given."""
        checked = check(request or self.request, "acme", self.compiled, longest=100_000)
        state = self.entry.enter(
            checked,
            "acme",
            arrived=self.clock(),
            left=30.0,
            streaming=self.streaming if streaming is None else streaming,
        )
        state.context = replace(state.context, request_id="1")
        return state

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def clock(self) -> float:
        return self.now

    def note_settled(self, state: RequestState) -> None:
        self.settled.append(state)
        for make in state.further_records:
            self.shelf.add(make())

    def answered(self, state: RequestState) -> None:
        if state.context.drawn:
            self.pairs.gather(state)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.create_task(work))

    async def go(self, listener: Listener | None = None) -> list[str]:
        """Goes the whole way, and waits for what goes on behind it; returns what the caller got."""
        listener = listener or Listener()
        try:
            await self.answer(listener)
        finally:
            await self.rest()
        return listener.events

    async def answer(self, listener: Listener, state: RequestState | None = None) -> None:
        """Goes the way and ends, as the servicer does."""
        state, status = state or self.state, "INTERNAL"
        try:
            await self.path.answer(state, listener)
            status = "OK"
        finally:
            state.end(status, self.clock())
            state.leave()

    async def rest(self) -> None:
        """Waits for what goes on behind requests."""
        while pending := [task for task in self.spawned if not task.done()]:
            await asyncio.wait(pending)

    @property
    def decision(self) -> Decision:
        """What was decided last."""
        assert self.state.decision is not None
        return self.state.decision

    def in_flight(self) -> int:
        return sum(replica.in_flight + len(replica.calls) for replica in self.replicas)

    async def hang_up(self, listener: Listener) -> None:
        """Goes the way until the listener blocks, then hangs up and lets the rest end."""
        task = asyncio.create_task(self.answer(listener))
        if listener.raises is None:
            await asyncio.wait_for(listener.blocked.wait(), 10)
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() or task.exception() is not None
        await self.rest()
