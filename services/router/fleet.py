"""The replicas this router knows, what runs on each, and who waits for one.

Decides without ``await``: between reading the state and recording the choice nothing else runs.
State for each endpoint; `scaler` feeds it, the request path takes places from it.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from services.common.errors import DeadlineExceeded, Overloaded, Unavailable
from services.router.metrics import Metrics
from services.router.policy.admission import Priority, WaitingLine
from services.router.policy.replicas import Candidate, backoff_seconds, choose_replica
from services.router.policy.routes import Policies, Tier
from services.router.ports import EngineRun

log = structlog.get_logger()


class State(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(eq=False)
class Replica:
    """A replica as the scaler told it, and what this router runs there.

    Attributes:
        runs: requests running on it, to be given up when it goes.
        in_flight: places taken, the ones about to start included.
        failures: failures in a row.
        failing_until: monotonic seconds until which it is avoided.
    """

    id: str
    tier: str
    model: str
    precision: str
    address: str
    state: State
    max_in_flight: int
    runs: set[EngineRun] = field(default_factory=set)
    in_flight: int = 0
    failures: int = 0
    failing_until: float = 0.0


@dataclass(eq=False)
class _Wait:
    """Somebody in the line: `avoid` names replicas where the request failed before."""

    place: "asyncio.Future[Replica]"
    avoid: Collection[str]


@dataclass
class _TierState:
    tier: Tier
    line: WaitingLine[_Wait]
    replicas: dict[str, Replica] = field(default_factory=dict)
    output_tokens: int = 0


class Fleet:
    """All tiers' replicas and lines."""

    def __init__(
        self,
        policies: Policies,
        metrics: Metrics,
        *,
        forget: Callable[[str], None] = lambda _address: None,
    ) -> None:
        """Starts without replicas. `forget` is told the address of each replica that goes."""
        self._metrics = metrics
        self._forget = forget
        self._tiers = {
            name: _TierState(tier, WaitingLine(tier.queue_size))
            for name, tier in policies.tiers.items()
        }
        self.set_stale(stale=True)

    def set_stale(self, *, stale: bool) -> None:
        """Marks the fleet as last known (the scaler is away) or current."""
        self.stale = stale
        self._metrics.fleet_stale.set(1 if stale else 0)

    def replace(self, replicas: Iterable[Replica]) -> None:
        """Takes the whole fleet: replicas not in it are gone."""
        known = {replica.id: replica for replica in replicas}
        for tier in self._tiers.values():
            for replica in [one for one in tier.replicas.values() if one.id not in known]:
                self._remove(tier, replica)
        self.update(known.values())

    def update(self, replicas: Iterable[Replica]) -> None:
        """Takes changed replicas."""
        for told in replicas:
            tier = self._tiers.get(told.tier)
            if tier is None:
                continue
            known = tier.replicas.get(told.id)
            if told.state is State.GONE:
                if known is not None:
                    self._remove(tier, known)
            elif (told.model, told.precision) != (tier.tier.model, tier.tier.precision):
                log.warning("replica does not serve its tier's model", replica=told.id)
            elif known is None:
                tier.replicas[told.id] = told
            else:
                known.state, known.address = told.state, told.address
                known.max_in_flight = told.max_in_flight
        for tier in self._tiers.values():
            self._serve(tier)
            self._count(tier)

    def ready(self, tier: str) -> int:
        """Number of replicas of the tier that take requests."""
        replicas = self._tiers[tier].replicas.values()
        return sum(1 for one in replicas if one.state is State.READY)

    def preview(self, tier: str) -> str:
        """The replica that would be chosen now; empty when none has room."""
        chosen = self._choose(self._tiers[tier], ())
        return chosen.id if chosen else ""

    async def acquire(
        self, tier: Tier, priority: Priority, *, avoid: Collection[str], until: float
    ) -> Replica:
        """Takes a place on a replica; whoever holds it must `release` it.

        Args:
            tier: whose replica.
            priority: standing in the line.
            avoid: replicas where this request failed before.
            until: monotonic seconds at which the caller's deadline passes.

        Raises:
            Overloaded: the line is full, or a more important request took the place in it.
            Unavailable: no replica was ready in the time the tier allows.
            DeadlineExceeded: the deadline passed in the line.
        """
        state = self._tiers[tier.name]
        replica = self._choose(state, avoid) if not len(state.line) else None
        if replica is None:
            replica = await self._wait(state, priority, avoid, until)
        else:
            replica.in_flight += 1
        return replica

    def release(self, replica: Replica) -> None:
        """Gives a place back; the first in the line gets it."""
        replica.in_flight -= 1
        self._serve(self._tiers[replica.tier])

    def succeeded(self, replica: Replica) -> None:
        """Notes that the replica answers."""
        replica.failures, replica.failing_until = 0, 0.0

    def failed(self, replica: Replica) -> None:
        """Notes a failure: the replica is avoided for a while."""
        replica.failures += 1
        replica.failing_until = time.monotonic() + backoff_seconds(replica.failures)

    def snapshot(self) -> list[tuple[str, int, int, list[tuple[str, int]]]]:
        """For each tier its name, waiting and running requests, and in flight by replica."""
        return [
            (
                name,
                len(state.line),
                sum(one.in_flight for one in state.replicas.values()),
                [(one.id, one.in_flight) for one in state.replicas.values()],
            )
            for name, state in self._tiers.items()
        ]

    def _choose(self, state: _TierState, avoid: Collection[str]) -> Replica | None:
        replicas = state.replicas
        if len(replicas) == 1:  # nothing to compare on the commonest fleet of a laptop
            (only,) = replicas.values()
            free = only.state is State.READY and only.in_flight < only.max_in_flight
            return only if free else None
        chosen = choose_replica(
            (
                Candidate(one.id, one.in_flight, one.max_in_flight, one.failing_until)
                for one in replicas.values()
                if one.state is State.READY
            ),
            now=time.monotonic(),
            avoid=avoid,
        )
        return replicas[chosen.id] if chosen else None

    async def _wait(
        self, state: _TierState, priority: Priority, avoid: Collection[str], until: float
    ) -> Replica:
        tier = state.tier
        loop = asyncio.get_running_loop()
        wait = _Wait(loop.create_future(), avoid)
        ticket, evicted = state.line.join(wait, priority)
        if evicted is not None and not evicted.holder.place.done():  # else it has just hung up
            evicted.holder.place.set_exception(self._overloaded(tier))
        if ticket is None:
            raise self._overloaded(tier)
        left = until - time.monotonic()
        self._serve(state)
        replica: Replica | None = None
        try:
            async with asyncio.timeout(min(left, tier.queue_seconds)):
                replica = await wait.place
        except TimeoutError:
            if left <= tier.queue_seconds:
                raise DeadlineExceeded(
                    f"the deadline passed while waiting for a replica of {tier.name}",
                    reason="QUEUED_TOO_LONG",
                ) from None
            raise Unavailable(
                f"no replica of {tier.name} had room within {tier.queue_seconds:g} s",
                reason="NO_REPLICA",
                retry_after_seconds=1.0,
            ) from None
        else:
            return replica
        finally:
            state.line.leave(ticket)
            place = wait.place
            if not place.done():
                place.cancel()
            elif replica is None and not place.cancelled() and place.exception() is None:
                place.result().in_flight -= 1  # it came at the very moment we gave up
                self._serve(state)

    def _serve(self, state: _TierState) -> None:
        """Gives free places to those who wait."""
        while (ticket := state.line.first()) is not None:
            replica = self._choose(state, ticket.holder.avoid)
            if replica is None:
                return
            state.line.leave(ticket)
            if not ticket.holder.place.done():
                replica.in_flight += 1
                ticket.holder.place.set_result(replica)

    def _remove(self, state: _TierState, replica: Replica) -> None:
        del state.replicas[replica.id]
        replica.state = State.GONE
        for run in list(replica.runs):
            run.give_up("the replica is gone")
        self._forget(replica.address)

    def _overloaded(self, tier: Tier) -> Overloaded:
        self._metrics.shed.labels(tier.name).inc()
        return Overloaded(
            f"the line for {tier.name} is full ({tier.queue_size} waiting)",
            reason="QUEUE_FULL",
            retry_after_seconds=1.0,
        )

    def _count(self, state: _TierState) -> None:
        for value in (State.STARTING, State.READY, State.DRAINING):
            number = sum(1 for one in state.replicas.values() if one.state is value)
            self._metrics.replicas.labels(state.tier.name, value).set(number)
