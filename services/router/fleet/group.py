"""The replicas that serve one model of one tier: which one is chosen, and who waits for one.

State for each endpoint. Decides without ``await``: between reading the state and recording the
choice nothing else runs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from services.common.errors import DeadlineExceeded, Overloaded, Unavailable
from services.router.fleet.replica import Replica, State
from services.router.metrics import Metrics
from services.router.policy.line import Priority, Ticket, WaitingLine
from services.router.policy.replicas import choose_replica
from services.router.policy.routes import Tier
from services.router.policy.shares import most_of
from services.router.ports import Coming, ComingAnswer

TRUE_SECONDS = 3.0
"""How long it counts that a replica is on its way, or none, unless another answer comes."""

SOON_SECONDS = 1.0
"""When to ask again where a replica takes requests, or is about to."""

UNKNOWN_SECONDS = 5.0
"""When to ask again where nobody knows when one will."""


@dataclass(eq=False)
class _Wait:
    """Somebody in the line.

    Attributes:
        avoid: replicas where the request failed before.
        elsewhere: says whether another tier can answer now; None where none may.
    """

    room: "asyncio.Future[Replica]"
    avoid: Collection[str]
    elsewhere: Callable[[], bool] | None


class TierReplicas:
    """The replicas of a tier as one version of the policies describes it, and their line."""

    def __init__(
        self,
        tier: Tier,
        metrics: Metrics,
        clock: Callable[[], float],
        missed: Callable[[str], None] = lambda _tier: None,
    ) -> None:
        """Starts without replicas.

        Args:
            tier: as it is described now.
            metrics: what it counts.
            clock: seconds that only grow.
            missed: hears the tier's name when somebody waits and no replica is ready.
        """
        self.tier = tier
        self._clock = clock
        self._missed_by = missed
        self._coming_until = 0.0
        self._ready_at = 0.0
        self._none_until = 0.0
        self.replicas: dict[str, Replica] = {}
        self._metrics = metrics
        self._line: WaitingLine[_Wait] = WaitingLine(0)
        self._held: Counter[str] = Counter()
        self.adopt(tier)

    def adopt(self, tier: Tier) -> None:
        """Takes the limits of the tier as it is described now; who waits goes on waiting."""
        self.tier = tier
        self._line.size = tier.queue_size
        self._line.most = most_of(tier.queue_size, tier.tenant_share)

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Places taken."""
        return sum([replica.in_flight for replica in list(self.replicas.values())])

    def count(self, state: State) -> int:
        """Number of replicas in that state."""
        return sum(1 for replica in self.replicas.values() if replica.state is state)

    async def acquire(
        self,
        priority: Priority,
        *,
        tenant: str,
        avoid: Collection[str],
        until: float,
        elsewhere: Callable[[], bool] | None = None,
    ) -> Replica:
        """See `Fleet.place`; `give_back` follows once."""
        if self._absent(elsewhere):
            raise self._unavailable()
        if not self.count(State.READY) and self._clock() < self._none_until:
            raise self._none_coming()
        most = self._most()
        # Nobody is turned away, nor waits, while there is room that those in line may not have.
        if self._fill(most) is None and (most is None or self._held[tenant] < most):
            replica = self.choose(avoid)
            if replica is not None:
                self._take(replica, tenant)
                return replica
        return await self._wait(priority, tenant, avoid, until, elsewhere)

    def give_back(self, replica: Replica, tenant: str) -> None:
        """Gives a place back that the tenant had."""
        replica.give_back()
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]

    def choose(self, avoid: Collection[str] = ()) -> Replica | None:
        """The replica that would be taken now; None when none has room."""
        ready, now = (
            [one for one in self.replicas.values() if one.state is State.READY],
            self._clock(),
        )
        chosen = choose_replica(ready, now=now, avoid=avoid)
        if chosen is None or not chosen.is_silent or chosen.breaker.allows(now):
            return chosen
        # One that fails at once is worth a try where nothing else has room. One that is silent is
        # not: the room of the others is waited for.
        others = [one for one in ready if one.breaker.allows(now)]
        return choose_replica(others, now=now, avoid=avoid) if others else chosen

    def can_answer(self, avoid: Collection[str] = ()) -> bool:
        """Whether a replica takes new requests and is known to fail nobody; it may be full."""
        now = self._clock()
        return any(
            replica.state is State.READY and replica.breaker.allows(now)
            for replica in self.replicas.values()
            if replica.id not in avoid
        )

    def again_seconds(self) -> float:
        """In about how many seconds it is worth to ask again, by what is known of the replicas."""
        now = self._clock()
        if not self.can_answer() and now < self._coming_until and now < self._ready_at:
            return max(SOON_SECONDS, self._ready_at - now)
        rests = [
            0.0 if replica.breaker.allows(now) else replica.breaker.open_until - now
            for replica in self.replicas.values()
            if replica.state is State.READY
        ]
        return max(SOON_SECONDS, min(rests, default=UNKNOWN_SECONDS))

    def serve(self) -> None:
        """Gives free places to those who wait; who may go elsewhere waits for no absent replica."""
        if not len(self._line):
            return
        if self.count(State.READY):
            self._fill(self._most())
        else:
            self._send_elsewhere()
            if len(self._line):
                self._missed_by(self.tier.name)

    def expect(self, coming: Coming) -> None:
        """Takes whether a replica comes: who waits goes on for it, or for none at all."""
        now = self._clock()
        if coming.answer is ComingAnswer.COMING:
            self._coming_until = now + TRUE_SECONDS
            self._ready_at = now + coming.seconds
            self._none_until = 0.0
        elif coming.answer is ComingAnswer.NONE:
            self._coming_until = 0.0
            if self.count(State.READY):
                return
            self._none_until = now + TRUE_SECONDS
            for ticket in self._line.tickets():
                wait = ticket.holder
                if not wait.room.done():
                    self._line.leave(ticket)
                    wait.room.set_exception(self._none_coming())

    def _fill(self, most: int | None) -> Ticket[_Wait] | None:
        """Gives free places to those who wait.

        Returns:
            whose turn it is and who cannot have what is free; None where nobody who may have a
            place waits any more.
        """
        while (ticket := self._line.first(self._held, most)) is not None:
            wait = ticket.holder
            replica = self.choose(wait.avoid)
            if replica is None:
                return ticket
            self._line.serve(ticket)
            if not wait.room.done():
                self._take(replica, ticket.tenant)
                wait.room.set_result(replica)
        return None

    def _take(self, replica: Replica, tenant: str) -> None:
        replica.take()
        self._held[tenant] += 1

    def _most(self) -> int | None:
        """Most places that one tenant may have; None for no bound but that of turns."""
        if self.tier.tenant_share == 1.0:
            return None
        ready = [replica for replica in self.replicas.values() if replica.state is State.READY]
        places = sum([replica.max_in_flight for replica in ready])
        return most_of(places, self.tier.tenant_share)

    def _send_elsewhere(self) -> None:
        """Ends the wait of those whom another tier can answer."""
        for ticket in self._line.tickets():
            wait = ticket.holder
            if wait.elsewhere is not None and not wait.room.done() and wait.elsewhere():
                self._line.leave(ticket)
                wait.room.set_exception(self._unavailable())

    def _absent(self, elsewhere: Callable[[], bool] | None) -> bool:
        """Whether there is no replica here and another tier can answer."""
        return elsewhere is not None and not self.count(State.READY) and elsewhere()

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"{self.tier.name} has no replica left", reason="NO_REPLICA")

    async def _wait(
        self,
        priority: Priority,
        tenant: str,
        avoid: Collection[str],
        until: float,
        elsewhere: Callable[[], bool] | None,
    ) -> Replica:
        tier = self.tier
        loop = asyncio.get_running_loop()
        wait = _Wait(loop.create_future(), avoid, elsewhere)
        ticket, evicted = self._line.join(wait, priority, tenant)
        if evicted is not None and not evicted.holder.room.done():  # else it has just hung up
            evicted.holder.room.set_exception(self._overloaded(tier))
        if ticket is None:
            raise self._overloaded(tier)
        self._fill(self._most())  # there may be room where those before it have failed
        if not self.count(State.READY):
            self._missed_by(tier.name)
        replica: Replica | None = None
        try:
            replica = await self._room(wait, until)
            return replica
        finally:
            self._line.leave(ticket)
            room = wait.room
            if not room.done():
                room.cancel()
            elif replica is None and not room.cancelled() and room.exception() is None:
                self.give_back(room.result(), tenant)  # it came at the very moment we gave up
                self.serve()

    async def _room(self, wait: _Wait, until: float) -> Replica:
        """The replica, in the time that the tier allows, or longer while one is on its way.

        Raises:
            DeadlineExceeded: `until` passed.
            Unavailable: nobody came in time.
        """
        at = self._clock()
        allowed = at + self.tier.queue_seconds
        while not wait.room.done():
            ends = min(until, max(allowed, self._coming_until))
            if ends > at:
                await asyncio.wait([wait.room], timeout=ends - at)
                at = max(self._clock(), ends)
            elif ends >= until:
                raise DeadlineExceeded(
                    f"the deadline passed while waiting for a replica of {self.tier.name}",
                    reason="QUEUED_TOO_LONG",
                )
            else:
                raise Unavailable(
                    self._missed(),
                    reason="NO_REPLICA",
                    retry_after_seconds=self.again_seconds(),
                )
        return wait.room.result()

    def _none_coming(self) -> Unavailable:
        return Unavailable(
            f"{self.tier.name} has no replica, and none is on its way",
            reason="NO_REPLICA",
            retry_after_seconds=TRUE_SECONDS,
        )

    def _missed(self) -> str:
        """What those waited for in vain who waited as long as the tier allows."""
        name, within = self.tier.name, f"within {self.tier.queue_seconds:g} s"
        if self.count(State.READY):
            return f"no replica of {name} had room {within}"
        if self.count(State.STARTING):
            return f"no replica of {name} was ready {within}"
        return f"{name} has no replica, and none came {within}"

    def _overloaded(self, tier: Tier) -> Overloaded:
        self._metrics.shed.labels(tier.name).inc()
        return Overloaded(
            f"the line for {tier.name} has no room for more of this tenant "
            f"({len(self._line)} of at most {tier.queue_size} wait)",
            reason="QUEUE_FULL",
            retry_after_seconds=1.0,
        )
