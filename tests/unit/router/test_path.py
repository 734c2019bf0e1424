"""A request's way when its caller hangs up at the worst moments; nothing of the answer is lost."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import InternalError
from services.router.fleet import Fleet, Replica, State
from services.router.journey import Journey
from services.router.load import LoadWindow
from services.router.metrics import Metrics
from services.router.path import RequestPath
from services.router.policy.decision import Decision
from services.router.policy.routes import Cancel
from services.router.ports import CacheHit, CacheMiss, EngineChunk, Turn, Written
from services.router.requests import check
from tests.unit.router.making import policies, route, tier


class Letters:
    """Stands for a tokenizer: one token a letter."""

    end_id, pad_id = 2, 0

    async def encode(self, turns: Sequence[Turn]) -> list[int]:
        return [1, 2, 3]

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
    """A run that says its chunks one after another."""

    chunks: list[str]
    cancelled: bool = False
    finished: bool = False

    async def read(self, timeout_seconds: float) -> EngineChunk:
        await asyncio.sleep(0)
        text = self.chunks.pop(0)
        return EngineChunk([ord(one) for one in text], final=not self.chunks)

    async def finish(self) -> None:
        self.finished = True

    def cancel(self) -> None:
        self.cancelled = True

    def give_up(self, why: str) -> None:
        raise AssertionError(why)


@dataclass
class Engine:
    """Starts one run."""

    run: Run | None

    def start(self, *_: Any, **__: Any) -> Run:
        if self.run is None:
            raise InternalError("cannot start")
        return self.run


@dataclass
class Cache:
    """Gives a lease and takes note."""

    awaited: bool = True
    lease: str = "lease"
    stored: list[Written] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)

    async def lookup(self, *_: Any, **__: Any) -> CacheHit | CacheMiss:
        return CacheMiss(self.lease)

    def store(self, tenant: str, route: str, asked: Any, answer: Written, **_: Any) -> None:
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


class Way:
    """A path with one replica, and a request on it."""

    def __init__(self, run: Run | None, cache: Cache, *, cancel: Cancel = Cancel.ABORT) -> None:
        small = tier("small", cancel=cancel)
        told = policies(route("chat", small))
        metrics = Metrics(CollectorRegistry())
        self.fleet = Fleet(told, metrics)
        self.replica = Replica("a", "small", "small", "int8", "a:1", State.READY, 8)
        self.fleet.update([self.replica])
        self.spawned: list[asyncio.Task[None]] = []
        self.path = RequestPath(
            policies=told,
            fleet=self.fleet,
            engine=Engine(run),  # type: ignore[arg-type]
            texts={"small": Letters()},
            cache=cache,
            load=LoadWindow(),
            metrics=metrics,
            spawn=self.spawn,
        )
        request = pb.GenerateRequest(route="chat")
        request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
        now = time.monotonic()
        self.journey = Journey(
            request_id="1",
            handle="1",
            tenant="acme",
            checked=check(request, "acme", told, longest=100),
            arrived=now,
            until=now + 30,
            streaming=True,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.create_task(work))

    async def hang_up(self, listener: Listener) -> None:
        """Goes the way until the listener blocks, then hangs up and lets the rest end."""
        task = asyncio.create_task(self.path.answer(self.journey, listener))
        if listener.raises is None:
            await asyncio.wait_for(listener.blocked.wait(), 10)
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled() or task.exception() is not None
        await asyncio.gather(*self.spawned)


CHUNKS = ["one ", "two ", "three"]


@pytest.mark.parametrize("cancel", list(Cancel))
@pytest.mark.parametrize("moment", range(4))
async def test_a_caller_who_goes_while_being_told_leaves_a_whole_answer(
    moment: int, cancel: Cancel
) -> None:
    run, cache = Run([*CHUNKS]), Cache()
    way = Way(run, cache, cancel=cancel)
    await way.hang_up(Listener(moment))
    (stored,) = cache.stored
    assert "".join(text for text, _ in stored.pieces) == "one two three"
    assert stored.output_tokens == sum(tokens for _, tokens in stored.pieces) == 13
    assert (run.finished, run.cancelled) == (True, False)
    assert way.replica.in_flight == 0
    assert not way.replica.runs
    assert cache.abandoned == []


@pytest.mark.parametrize("moment", range(4))
async def test_an_error_while_telling_is_a_caller_who_has_gone(moment: int) -> None:
    run, cache = Run([*CHUNKS]), Cache()
    way = Way(run, cache, cancel=Cancel.DRAIN)
    await way.hang_up(Listener(moment, raises=ConnectionError))
    assert [one.output_tokens for one in cache.stored] == [13]
    assert (run.finished, run.cancelled) == (True, False)
    assert way.replica.in_flight == 0


async def test_a_run_nobody_waits_for_is_cancelled_and_its_lease_given_back() -> None:
    run, cache = Run([*CHUNKS]), Cache(awaited=False)
    way = Way(run, cache)
    await way.hang_up(Listener(1))
    assert (run.cancelled, cache.stored, cache.abandoned) == (True, [], ["lease"])
    assert way.replica.in_flight == 0


async def test_an_answer_complete_when_its_caller_goes_is_stored_and_not_cancelled() -> None:
    run, cache = Run([*CHUNKS]), Cache(awaited=False)
    way = Way(run, cache)
    await way.hang_up(Listener(3))  # told all but the last piece
    assert [one.output_tokens for one in cache.stored] == [13]
    assert (run.finished, run.cancelled) == (True, False)


async def test_a_run_without_a_lease_is_cancelled_where_it_may() -> None:
    run, cache = Run([*CHUNKS]), Cache(lease="")
    way = Way(run, cache)
    await way.hang_up(Listener(1))
    assert (run.cancelled, run.finished, cache.stored) == (True, False, [])
    assert way.replica.in_flight == 0


async def test_a_run_that_cannot_start_gives_its_place_back() -> None:
    cache = Cache()
    way = Way(None, cache)
    with pytest.raises(InternalError):
        await way.path.answer(way.journey, Listener())
    assert way.replica.in_flight == 0
    assert cache.abandoned == ["lease"]


async def test_a_good_answer_is_stored_and_its_lease_with_it() -> None:
    run, cache, listener = Run([*CHUNKS]), Cache(), Listener()
    way = Way(run, cache)
    await way.path.answer(way.journey, listener)
    assert listener.events == ["started", *CHUNKS]
    assert [one.output_tokens for one in cache.stored] == [13]
    assert cache.abandoned == []
    assert way.replica.in_flight == 0
