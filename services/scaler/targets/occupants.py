"""What the local target knows about the replica on a slot, and how the policy judges it."""

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.scaler.policy.replicas import Observed, State
from services.scaler.pools.pool import Pool
from services.scaler.ports import ReplicaStatus
from services.scaler.targets.records import SlotReplica
from services.scaler.targets.slots import Adopted, fingerprint

QUIET_SECONDS = 8.0
"""A ready replica that has not answered for so long is not ready, until it answers again. It is
replaced later (`policy.replicas.Patience`)."""


EXIT_SECONDS = 3.0
"""So long a replica may say that it exits, or have nobody listen, and still be whole: a server
that was told to end from outside may refuse all and never be gone."""


@dataclass
class Occupant:
    """The replica on a slot. Times are those of the target's clock.

    Attributes:
        id: its id.
        pool: name of its pool, which may no longer be configured.
        slot: its slot there.
        state: where it is in its life.
        since: when that state began.
        started: when we started it; None: adopted.
        replica: what its host says of it; None: its process is just being started.
        ready_at: when it became ready; None: not yet.
        answered_at: when it last said that it is ready.
        exits_since: when it was first found to exit, having been ready; None: it does not.
        quiet: it was ready and has not answered for `QUIET_SECONDS`: nothing is sent to it.
        engine_requests: its engine's count since the drain began; None: not known.
        leaving: why it goes, though nobody asked for a smaller pool; empty: it does not.
        notice: why its capacity is taken away soon; empty: it is not.
        noticed_at: when that was first known.
        released: it has nothing left to do.
        fault: why it is broken.
        care: the task that looks after it.
    """

    id: str
    pool: str
    slot: int
    state: State
    since: float
    started: float | None = None
    replica: SlotReplica | None = None
    ready_at: float | None = None
    answered_at: float = 0.0
    exits_since: float | None = None
    quiet: bool = False
    engine_requests: int | None = None
    leaving: str = ""
    notice: str = ""
    noticed_at: float = 0.0
    released: bool = False
    fault: str = ""
    care: asyncio.Task[None] | None = None

    @property
    def present(self) -> bool:
        """Whether it is there for others: a broken or ending one is gone for them."""
        return self.state not in (State.BROKEN, State.ENDING)

    def outdated(self, pool: Pool | None) -> bool:
        """Whether it is to be replaced: its settings are not its pool's, or its capacity goes."""
        if self.notice:
            return True
        if pool is None or self.slot >= len(pool.slots):
            return True
        wanted = fingerprint(pool, pool.slots[self.slot])
        return self.replica is not None and self.replica.fingerprint != wanted

    @property
    def served_seconds(self) -> float:
        """How long it answered since it was ready; 0 if it never was."""
        return 0.0 if self.ready_at is None else max(0.0, self.answered_at - self.ready_at)

    def heed_notice(self, notice: str, now: float) -> bool:
        """Whether notice was just given of it, or taken back."""
        if bool(notice) == bool(self.notice) or self.state not in (State.STARTING, State.READY):
            return False
        self.notice, self.noticed_at = notice, now
        return True

    def heed_silence(self, now: float) -> bool:
        """Whether it has just fallen silent, or answers again."""
        silent = self.ready_at is not None and now - self.answered_at >= QUIET_SECONDS
        changed = silent != self.quiet
        self.quiet = silent
        return changed and self.present

    def heed_exit(self, now: float, *, exits: bool) -> bool:
        """Whether it has been exiting for so long that it is broken."""
        if not exits or self.ready_at is None:
            self.exits_since = None
            return False
        if self.exits_since is None:
            self.exits_since = now
        return now - self.exits_since >= EXIT_SECONDS

    def observe(self, pool: Pool | None) -> Observed:
        """The replica as the policy judges it; `pool` as it is configured now, if it is."""
        return Observed(
            id=self.id,
            slot=self.slot,
            state=self.state,
            since=self.since,
            answered_at=self.answered_at,
            outdated=self.outdated(pool),
            released=self.released,
            fault=self.fault,
        )

    def status(self, pool: Pool | None) -> ReplicaStatus | None:
        """The replica as others may know it; None: it has no address yet, or is gone for them."""
        if self.replica is None or not self.present:
            return None
        return ReplicaStatus(
            self.replica,
            ready=self.state is not State.STARTING and not self.quiet,
            running_requests=self.engine_requests,
            outdated=self.outdated(pool),
            leaving=self.leaving,
            notice=self.notice,
            draining=self.state is State.DRAINING and not self.leaving,
            metrics_address=self.replica.metrics_address,
        )


def silence(occupants: Iterable[Occupant]) -> str:
    """How many that were ready do not answer, in one sentence; empty: all do."""
    quiet = sum(one.quiet and one.state is State.READY for one in occupants)
    if not quiet:
        return ""
    return "1 replica does not answer" if quiet == 1 else f"{quiet} replicas do not answer"


def adopted(found: Adopted, pool: Pool | None, now: float) -> Occupant:
    """A replica that an earlier scaler left, with what its pool says of it today."""
    replica = found.replica
    if pool is not None:
        replica = as_of(replica, pool)
    state = State.READY if found.ready else State.STARTING
    if found.ready and found.draining:
        state = State.DRAINING
    return Occupant(
        id=replica.id,
        pool=replica.pool,
        slot=replica.slot,
        state=State.BROKEN if found.fault else state,
        since=now,
        replica=replica,
        ready_at=now if found.ready else None,
        answered_at=now,
        fault=found.fault,
    )


def as_of(replica: SlotReplica, pool: Pool) -> SlotReplica:
    """A replica with what can be said of it without starting it anew."""
    return replace(
        replica, tier=pool.tier, capacity=pool.capacity, max_in_flight=pool.max_in_flight
    )


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(pool: str, slot: int) -> str:
    """Unique for ever: pool, slot, then the millisecond and ten random bits in base 32."""
    number = (time.time_ns() // 1_000_000) << 10 | secrets.randbits(10)
    digits = []
    while number:
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{pool}-{slot}-{''.join(reversed(digits))}"
