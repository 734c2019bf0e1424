"""What runs and what it does at this moment, read from the services and the ledger."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from pennyweight.answers import PolicyProblem
from pennyweight.cache.v1 import cache_pb2, cache_pb2_grpc
from pennyweight.scaler.v1 import scaler_pb2
from pennyweight.wire import name_of
from services.common.folders import free_bytes
from services.common.rules import MEANT
from services.local.asking import CALL_SECONDS
from services.local.ledger_tail import LedgerTail, Totals
from services.local.stack import Stack

RATE_SECONDS = 5.0
LOW_BYTES = 50_000_000


@dataclass(frozen=True)
class PoolStatus:
    """A pool: how many replicas are in which state, its load, and why it has its size."""

    name: str
    desired: int
    states: tuple[tuple[str, int], ...]
    waiting: int
    running: int
    trouble: str
    why: str = ""


@dataclass(frozen=True)
class Status:
    """The stack at one moment; rates are over the last seconds.

    Attributes:
        cached_answers: that the cache keeps; None where it does not say.
        notes: on what of the ledger is in no sum, on the disk, on services that do not answer,
            on policies that are refused and on tiers that no replica serves, a sentence each.
    """

    pools: tuple[PoolStatus, ...]
    totals: Totals
    requests_per_second: float
    tokens_per_second: float
    cached_answers: int | None
    notes: tuple[str, ...] = ()


class Observer:
    """Looks at a stack. State: the ledger read so far and the sums of the last seconds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ledger = LedgerTail(stack.plan.ledger)
        self._past: deque[tuple[float, Totals]] = deque([(time.monotonic(), Totals())])

    async def look(self) -> Status:
        """The status now. What cannot be asked is left out."""
        totals, now = self._ledger.read(), time.monotonic()
        self._past.append((now, totals))
        while len(self._past) > 2 and now - self._past[1][0] > RATE_SECONDS:  # noqa: PLR2004
            self._past.popleft()
        then, before = self._past[0]
        pools, cached_answers, silent, refusals, troubles = await asyncio.gather(
            self._stack.services.pools(),
            self._cached_answers(),
            self._stack.silent(),
            self._refusals(),
            self._stack.services.troubles(),
        )
        seconds = max(now - then, 1e-3)
        return Status(
            pools=tuple(_pool(pool) for pool in pools),
            totals=totals,
            requests_per_second=(totals.requests - before.requests) / seconds,
            tokens_per_second=(totals.output_tokens - before.output_tokens) / seconds,
            cached_answers=cached_answers,
            notes=(
                *self._ledger.unreadable.notes(),
                *_disk_notes(self._stack.plan.state),
                *silent,
                *refusals,
                *troubles,
            ),
        )

    async def _refusals(self) -> tuple[str, ...]:
        """Which policy files are refused, a sentence each; none that cannot be asked."""
        found = await self._stack.services.refusals()
        return tuple(
            f"{refusal.file} is refused, what was in force stays: {_most_telling(refusal.problems)}"
            for refusal in found
            if refusal.problems
        )

    async def _cached_answers(self) -> int | None:
        stub = cache_pb2_grpc.CacheServiceStub(self._stack.services.channels["cache"])
        request = cache_pb2.GetStatsRequest()
        try:
            stats = await stub.GetStats(
                request, timeout=CALL_SECONDS, metadata=self._stack.services.metadata
            )
        except grpc.aio.AioRpcError:
            return None
        return stats.entries if stats.HasField("entries") else None


def _most_telling(problems: Sequence[PolicyProblem]) -> PolicyProblem:
    """The first that says what was meant, else the first: a key with a slip leaves one missing."""
    return next((one for one in problems if MEANT in one.rule), problems[0])


def _disk_notes(state: Path) -> tuple[str, ...]:
    left = free_bytes(state)
    if left is None or left >= LOW_BYTES:
        return ()
    how = "full" if left == 0 else "nearly full"
    return (f"the disk of {state} is {how}: logs, ledger and levers may be lost",)


def _pool(pool: scaler_pb2.Pool) -> PoolStatus:
    kind = scaler_pb2.ReplicaState.DESCRIPTOR
    states = Counter(name_of(kind, "REPLICA_STATE", replica.state) for replica in pool.replicas)
    return PoolStatus(
        name=pool.name,
        desired=pool.desired_replicas,
        states=tuple(sorted(states.items())),
        waiting=pool.waiting,
        running=pool.running,
        trouble=pool.trouble,
        why=pool.why,
    )
