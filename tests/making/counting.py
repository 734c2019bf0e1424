"""An engine that counts what it makes, and a cache that shares answers, to hold money against."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from services.router.engines.pieces import Pieces
from services.router.policy.routes import Tier
from services.router.ports import (
    Asked,
    CacheHit,
    CacheMiss,
    Capabilities,
    EngineFigures,
    EngineRequest,
    Finish,
    Piece,
    ReplicaFailed,
    Written,
)
from tests.making.walking import Idle, Letters


class CountingRun:
    """Makes a letter each turn of the loop; whoever reads it drives it.

    Attributes:
        made: tokens so far, as the engine alone knows.
        output_tokens: what the router knows of them.
    """

    def __init__(
        self,
        request: EngineRequest,
        text: str,
        *,
        sure: float | None,
        dies_at: int | None,
        says: bool,
        fails: Exception | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """`says` how far it came when it is stopped; `meanwhile` runs before it fails or stops."""
        self.request = request
        self.text = text[: request.max_output_tokens]
        self.made = self.output_tokens = 0
        self.final = self.over = False
        self.heard_at: float | None = None  # as it is read
        self.figures = EngineFigures()
        self._sure, self._dies_at, self._says = sure, dies_at, says
        self._fails, self._meanwhile = fails, meanwhile
        self._pieces = Pieces(Letters(), request.asked.stop, request.max_output_tokens)

    @property
    def finish_reason(self) -> Finish:
        return self._pieces.finish_reason

    async def read(self, timeout_seconds: float) -> Piece:
        start = self.output_tokens
        if self._fails is not None:
            self._meanwhile()
            raise self._fails
        while True:
            await asyncio.sleep(0)
            if self._dies_at is not None and self.made >= self._dies_at:
                self.output_tokens, self.over = self.made, True
                raise ReplicaFailed("it died", lost=True)
            self.made += self.made < len(self.text)
            done = self.made == len(self.text)
            if done or self.request.streaming:
                break
        self.output_tokens, self.final = self.made, done
        new = [ord(letter) for letter in self.text[start : self.made]]
        return self._pieces.take(new, final=done)

    def log_probs(self, most: int) -> Sequence[float] | None:
        return None if self._sure is None or most > self.output_tokens else [self._sure] * most

    def finish(self) -> None:
        assert self.final
        self.over = True

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self._meanwhile()
        self.over = True
        if self._says:
            self.output_tokens, self.final = self.made, True

    def cancel(self) -> None:
        self.over = True

    def give_up(self, failure: ReplicaFailed) -> None:
        raise AssertionError(failure)


class CountingEngine(Idle):
    """Asks the test for each run what it does."""

    def __init__(self, script: Callable[[EngineRequest], dict[str, Any]]) -> None:
        self.script = script
        self.runs: list[CountingRun] = []

    def capabilities(self, tier: Tier) -> Capabilities:
        return Capabilities(
            has_log_probs=True, can_resume=False, counts_tokens=True, has_priority=False
        )

    def start(self, address: str, request: EngineRequest) -> CountingRun:
        run = CountingRun(request, **self.script(request))
        self.runs.append(run)
        return run


class SharingCache:
    """Answers by question; who asks while one is written waits for it."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], Written] = {}
        self.leases: dict[str, tuple[str, int]] = {}
        self.waiting: dict[tuple[str, int], deque[asyncio.Future[CacheHit | CacheMiss]]] = (
            defaultdict(deque)
        )
        self._number = 0

    async def lookup(
        self, tenant: str, route: str, asked: Asked, accepted: Sequence[Tier], **_: Any
    ) -> CacheHit | CacheMiss:
        key = (asked.messages[-1].content, asked.max_output_tokens)
        if key in self.answers:
            return CacheHit(self.answers[key], shared=False)
        if key not in self.leases.values():
            return CacheMiss(self._lease(key))
        waiter: asyncio.Future[CacheHit | CacheMiss] = asyncio.get_running_loop().create_future()
        self.waiting[key].append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                found = waiter.result()
                if isinstance(found, CacheMiss) and found.lease:
                    self.abandon(tenant, route, found.lease)
            raise

    def store(
        self, tenant: str, route: str, asked: Asked, answer: Written, *, lease: str, **_: Any
    ) -> None:
        key = self.leases.pop(lease)
        self.answers[key] = answer
        for waiter in self.waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(CacheHit(answer, shared=True))

    def abandon(self, tenant: str, route: str, lease: str) -> None:
        key = self.leases.pop(lease)
        while self.waiting[key]:
            waiter = self.waiting[key].popleft()
            if not waiter.done():
                waiter.set_result(CacheMiss(self._lease(key)))
                return

    async def abandon_unless_awaited(self, tenant: str, route: str, lease: str) -> bool:
        await asyncio.sleep(0)
        if any(not waiter.done() for waiter in self.waiting[self.leases[lease]]):
            return True
        self.abandon(tenant, route, lease)
        return False

    def _lease(self, key: tuple[str, int]) -> str:
        self._number += 1
        self.leases[str(self._number)] = key
        return str(self._number)
