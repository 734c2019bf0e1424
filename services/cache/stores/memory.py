"""The embedded store: entries and leases in this process, bounded, lost with it."""

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field

from services.cache.policy import Key, Lease, Record, new_lease, serves
from services.cache.ports import (
    Abandon,
    Clock,
    Found,
    Granted,
    NoEntry,
    Outcome,
    Put,
    Soon,
    StoreCounts,
    Timer,
)
from services.cache.stores.waiting import WaitingRoom

ENTRY_OVERHEAD_BYTES = 700
"""About what an entry takes beside its answer: key, record, order, expiry."""


@dataclass(slots=True)
class _Entry:
    record: Record
    expires_at: float

    @property
    def size(self) -> int:
        return len(self.record.answer) + ENTRY_OVERHEAD_BYTES


@dataclass(slots=True)
class _Part:
    """What one partition keeps, the least recently used first."""

    keys: OrderedDict[Key, None] = field(default_factory=OrderedDict)
    size: int = 0


@dataclass(slots=True)
class _Held:
    lease: Lease
    expires_at: float
    alarm: Timer | None = None


class MemoryStore:
    """Entries and leases of this process.

    Where there is no room, expired entries go first, then of the partition that has most the least
    recently used: nobody's questions push out the answers of all others.

    Every lease lasts equally long, so the order in which they are granted is the order in which
    they expire.
    """

    kind = "memory"

    def __init__(
        self,
        clock: Clock,
        *,
        max_bytes: int,
        max_entries: int,
        lease_seconds: float,
        max_waiters: int,
    ) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._lease_seconds = lease_seconds
        self._entries: dict[Key, _Entry] = {}
        self._parts: dict[bytes, _Part] = {}
        self._expiries: list[tuple[float, Key]] = []  # a heap; may name entries long gone
        self._bytes = 0
        self._leases: dict[Key, _Held] = {}
        self._waiting = WaitingRoom(clock, max_waiters)
        self._leases_expired = 0
        self._evicted = 0

    def look(self, key: Key, wanted: frozenset[bytes]) -> Outcome:
        """See `ports.Store.look`."""
        entry = self._entries.get(key)
        if entry is None:
            return NoEntry.ABSENT
        if entry.expires_at <= self._clock.time():
            self._drop(key)
            return NoEntry.ABSENT
        if not serves(entry.record, wanted):
            return NoEntry.ABSENT
        self._parts[key.partition].keys.move_to_end(key)
        return Found(entry.record)

    def claim(self, key: Key, wanted: frozenset[bytes], wait_seconds: float) -> Soon[Outcome]:
        """See `ports.Store.claim`."""
        found = self.look(key, wanted)
        if found is not NoEntry.ABSENT:
            return found
        self._expire_leases()
        held = self._leases.get(key)
        if held is None:
            return self._grant(key)
        if wait_seconds <= 0 or self._waiting.is_full(key):
            return NoEntry.ABSENT
        self._watch(held)
        return self._waiting.join(key, wanted, wait_seconds)

    def put(self, key: Key, record: Record, ttl_seconds: float) -> Put:
        """See `ports.Store.put`."""
        now = self._clock.time()
        self._drop(key)
        entry = _Entry(record, now + ttl_seconds)
        self._entries[key] = entry
        self._bytes += entry.size
        part = self._parts.setdefault(key.partition, _Part())
        part.keys[key] = None
        part.size += entry.size
        self._expire_at(entry.expires_at, key)
        self._make_room(now)
        self._waiting.serve(key, record)
        return Put.STORED

    def put_under(self, lease: Lease, record: Record, ttl_seconds: float) -> Put:
        """See `ports.Store.put_under`."""
        if not self._release(lease):
            return Put.NOT_HELD
        self.put(lease.key, record, ttl_seconds)
        self._pass_on(lease.key)  # to those whom this writer does not serve
        return Put.STORED

    def abandon(self, lease: Lease, *, unless_awaited: bool = False) -> Abandon:
        """See `ports.Store.abandon`."""
        awaited = unless_awaited and self._waiting.first(lease.key) is not None
        if awaited and self._holds(lease):
            return Abandon.AWAITED
        if self._release(lease):
            self._pass_on(lease.key)
        return Abandon.ENDED

    def dismiss_waiters(self) -> None:
        """See `ports.Store.dismiss_waiters`."""
        self._waiting.dismiss_all()

    def counts(self) -> StoreCounts:
        """See `ports.Store.counts`."""
        self._expire_leases()
        self._expire_entries(self._clock.time())
        return StoreCounts(
            entries=len(self._entries),
            bytes=self._bytes,
            waiters=len(self._waiting),
            leases_expired=self._leases_expired,
            evicted=self._evicted,
            damaged=0,
            up=True,
        )

    # Leases

    def _grant(self, key: Key) -> Granted:
        lease = new_lease(key)
        self._leases[key] = _Held(lease, self._clock.time() + self._lease_seconds)
        return Granted(lease, self._lease_seconds)

    def _holds(self, lease: Lease) -> bool:
        self._expire_leases()
        held = self._leases.get(lease.key)
        return held is not None and held.lease == lease

    def _release(self, lease: Lease) -> bool:
        """Ends the lease; False if it was not held."""
        if not self._holds(lease):
            return False
        self._end(self._leases[lease.key])
        return True

    def _end(self, held: _Held) -> None:
        del self._leases[held.lease.key]
        if held.alarm is not None:
            held.alarm.cancel()

    def _pass_on(self, key: Key) -> None:
        """Grants the free lease to who waits for it, and watches it for the others."""
        if self._waiting.first(key) is None:
            return
        self._waiting.grant(self._grant(key))
        if self._waiting.first(key) is not None:
            self._watch(self._leases[key])

    def _watch(self, held: _Held) -> None:
        """Sees to it that somebody notices when the lease ends by itself."""
        if held.alarm is None:
            left = held.expires_at - self._clock.time()
            held.alarm = self._clock.call_later(max(left, 0.001), self._alarmed, held)

    def _alarmed(self, held: _Held) -> None:
        self._expire_leases()
        if self._leases.get(held.lease.key) is held:  # timers may be early by their resolution
            held.alarm = None
            self._watch(held)

    def _expire_leases(self) -> None:
        now = self._clock.time()
        while self._leases:
            held = next(iter(self._leases.values()))
            if held.expires_at > now:
                return
            self._end(held)
            self._leases_expired += 1
            self._pass_on(held.lease.key)

    # Entries

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._bytes -= entry.size
        part = self._parts[key.partition]
        del part.keys[key]
        part.size -= entry.size
        if not part.keys:
            del self._parts[key.partition]

    def _make_room(self, now: float) -> None:
        if not self._crowded:
            return
        self._expire_entries(now)
        while self._crowded:
            large = self._bytes > self._max_bytes
            most = max(
                self._parts.values(), key=lambda part: part.size if large else len(part.keys)
            )
            self._drop(next(iter(most.keys)))
            self._evicted += 1

    @property
    def _crowded(self) -> bool:
        return self._bytes > self._max_bytes or len(self._entries) > self._max_entries

    def _expire_at(self, expires_at: float, key: Key) -> None:
        if len(self._expiries) > 2 * len(self._entries) + 64:
            self._expiries = [(entry.expires_at, key) for key, entry in self._entries.items()]
            heapq.heapify(self._expiries)
        else:
            heapq.heappush(self._expiries, (expires_at, key))

    def _expire_entries(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            entry = self._entries.get(key)
            if entry is not None and entry.expires_at <= now:
                self._drop(key)
