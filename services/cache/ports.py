"""What the cache needs from the outside: a store of entries and leases, and time.

Every operation is answered at once where the answer is known, and by a future where something has
to be waited for, so that what lies in memory costs neither a task nor a turn of the loop. A store
that cannot be used answers with a `FAILED`; it never raises, and never blocks for long.
"""

from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol, TypeAlias, TypeVar

from services.cache.policy import Key, Lease, Record

T = TypeVar("T")

Soon: TypeAlias = T | Future[T]
"""A result, or a future of one."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that serves; `shared` if it was written while the caller waited."""

    record: Record
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """Nothing stored, and the caller holds the lease for this long."""

    lease: Lease
    seconds: float


class NoEntry(Enum):
    """Nothing stored that serves, and no lease."""

    ABSENT = auto()
    FAILED = auto()
    """The store cannot be used: whether something is stored is not known."""


Outcome: TypeAlias = Found | Granted | NoEntry


class Put(Enum):
    """What became of an answer."""

    STORED = auto()
    NOT_HELD = auto()
    """The lease had ended; what is stored is left as it is."""
    TOO_LARGE = auto()
    """The cache takes no answers of this size."""
    FAILED = auto()
    """The store cannot be used."""


class Abandon(Enum):
    """What became of a lease that its holder would give back."""

    ENDED = auto()
    AWAITED = auto()
    """Kept, because somebody waits for the answer."""
    FAILED = auto()
    """The store cannot be used."""


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """How a store is doing.

    Attributes:
        entries: held now; None if the store does not know.
        bytes: that they take; None if the store does not know.
        waiters: lookups of this process that wait for another's answer.
        leases_expired: leases seen to have ended by themselves since the start.
        evicted: entries dropped for room since the start.
        damaged: entries that could not be read and were dropped since the start.
        up: whether the store can be used.
    """

    entries: int | None
    bytes: int | None
    waiters: int
    leases_expired: int
    evicted: int
    damaged: int
    up: bool


class Store(Protocol):
    """Entries and leases.

    At most one lease per key is held at any time. When it ends without an answer, by being given
    back or by itself, exactly one of those who wait gets the next. Who stops waiting cancels the
    future; a lease that has come in the meantime is then in the future and is theirs to abandon.
    """

    kind: str
    """"memory" or "redis"."""

    def look(self, key: Key, wanted: frozenset[bytes]) -> Soon[Outcome]:
        """Looks for an entry by one of the wanted writers; no lease, no waiting."""

    def claim(self, key: Key, wanted: frozenset[bytes], wait_seconds: float) -> Soon[Outcome]:
        """Looks, else takes the lease, else waits for who holds it."""

    def put(self, key: Key, record: Record, ttl_seconds: float) -> Soon[Put]:
        """Stores without a lease; whoever holds it keeps it, whoever waits is served."""

    def put_under(self, lease: Lease, record: Record, ttl_seconds: float) -> Soon[Put]:
        """Stores and ends the lease, if it is still held."""

    def abandon(self, lease: Lease, *, unless_awaited: bool = False) -> Soon[Abandon]:
        """Ends the lease, if it is still held, without an answer.

        With `unless_awaited` it is kept if somebody waits for the answer.
        """

    def dismiss_waiters(self) -> None:
        """Lets everybody who waits go without an answer."""

    def counts(self) -> StoreCounts:
        """How the store is doing."""


class Timer(Protocol):
    """A call that is due."""

    def cancel(self) -> None:
        """Calls it off."""


class Clock(Protocol):
    """Time that passes, in seconds from any start. An asyncio loop is one."""

    def time(self) -> float:
        """Now."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Calls back after `delay` seconds."""
