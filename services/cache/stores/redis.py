"""Entries and leases in Redis, shared by all caches that use it.

Four keys a request, in one hash slot, spread over the slots by the request's digest:

    pw:<partition>:{<digest>}:entry    the sealed record; ends with its time to live
    pw:<partition>:{<digest>}:lease    the holder's token; ends with the lease
    pw:<partition>:{<digest>}:holder   the same, for longer: still there, the lease ended by itself
    pw:<partition>:{<digest>}:awaited  somebody waits; renewed while that is so

Each operation is one script, so nothing comes between a look and what follows from it. Who waits is
woken through one channel for all; whoever misses the message asks again within a second. In one
process one follower asks for all who wait for the same key.
"""

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog

from services.cache.policy import (
    DIGEST_BYTES,
    PARTITION_BYTES,
    Key,
    Lease,
    Record,
    new_lease,
    sealed,
    serves,
    unsealed,
)
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
)
from services.cache.stores.owed import OwedLeases
from services.cache.stores.redis_scripts import ABANDON, CLAIM, CLEAR, DROP, PUT, WRONG_TYPE
from services.cache.stores.waiting import WaitingRoom
from services.common.faults import fault
from services.common.kept_up import kept_up
from services.common.redis_link import RedisFailed, RedisLink, RedisRefused, Script

log = structlog.get_logger()

CHANNEL = "pw:wake"
POLL_SECONDS = 1.0
AWAITED_MS = 2500
"""How long a sign of somebody waiting lasts; those who wait renew it every `POLL_SECONDS`."""

T = TypeVar("T")


class RedisStore:
    """The store for several caches; see `open_redis`."""

    kind = "redis"

    def __init__(
        self,
        link: RedisLink,
        hash_key: bytes,
        clock: Clock,
        *,
        lease_seconds: float,
        max_waiters: int,
    ) -> None:
        """`hash_key` seals the records."""
        self._link = link
        self._hash_key = hash_key
        self._lease_seconds = lease_seconds
        self._lease_ms = max(1, round(lease_seconds * 1000))
        self._waiting = WaitingRoom(clock, max_waiters)
        self._followed: dict[Key, asyncio.Event] = {}
        self._leases_expired = 0
        self._damaged = 0
        self._running: set[Future[Any]] = set()
        self._closed = False
        self._owed = OwedLeases(
            lambda lease: self._ask_to_abandon(lease, unless_awaited=False), lambda: link.up
        )
        self._claim_script = link.script(CLAIM)
        self._put_script = link.script(PUT)
        self._abandon_script = link.script(ABANDON)
        self._drop_script = link.script(DROP)
        self._clear_script = link.script(CLEAR)

    def look(self, key: Key, wanted: frozenset[bytes]) -> Soon[Outcome]:
        """See `ports.Store.look`."""
        return self._soon(NoEntry.FAILED, self._look, key, wanted)

    def claim(self, key: Key, wanted: frozenset[bytes], wait_seconds: float) -> Soon[Outcome]:
        """See `ports.Store.claim`."""
        return self._soon(NoEntry.FAILED, self._claim, key, wanted, wait_seconds)

    def put(self, key: Key, record: Record, ttl_seconds: float) -> Soon[Put]:
        """See `ports.Store.put`."""
        return self._soon(Put.FAILED, self._put, Lease(key, b""), record, ttl_seconds)

    def put_under(self, lease: Lease, record: Record, ttl_seconds: float) -> Soon[Put]:
        """See `ports.Store.put_under`."""
        if not self._link.up:
            self._owed.add(lease)
        return self._soon(Put.FAILED, self._put, lease, record, ttl_seconds)

    def abandon(self, lease: Lease, *, unless_awaited: bool = False) -> Soon[Abandon]:
        """See `ports.Store.abandon`; where Redis cannot be asked now, it is asked again later."""
        if not self._link.up:
            self._owed.add(lease)
        return self._soon(Abandon.FAILED, self._abandon, lease, unless_awaited)

    def dismiss_waiters(self) -> None:
        """See `ports.Store.dismiss_waiters`."""
        self._waiting.dismiss_all()
        self.resumed()  # so that followers notice

    def counts(self) -> StoreCounts:
        """See `ports.Store.counts`."""
        return StoreCounts(
            entries=None,
            bytes=None,
            waiters=len(self._waiting),
            leases_expired=self._leases_expired,
            evicted=0,
            damaged=self._damaged,
            up=self._link.up,
        )

    def begin(self) -> None:
        """Begins to listen."""
        self._run(kept_up("redis", lambda: self._link.tend(CHANNEL, self._heard, self.resumed)))
        self._run(kept_up("leases to give back", self._owed.give_back))

    async def close(self) -> None:
        """Ends everything that runs; whoever waits goes without an answer."""
        self.dismiss_waiters()
        self._closed = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def resumed(self) -> None:
        """Something may have happened to any key."""
        self._owed.resumed()
        for wake in self._followed.values():
            wake.set()

    def _heard(self, message: bytes) -> None:
        """Something has happened to a key that was waited for."""
        if len(message) == PARTITION_BYTES + DIGEST_BYTES:
            key = Key(message[:PARTITION_BYTES], message[PARTITION_BYTES:])
            if (wake := self._followed.get(key)) is not None:
                wake.set()

    def _soon(self, failed: T, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Soon[T]:
        if self._closed or not self._link.up:
            return failed
        return self._run(self._unless_failed(failed, work(*args)))

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unexpected error", method="redis", fault=fault(error))

    async def _unless_failed(self, failed: T, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except RedisFailed:
            return failed

    async def _look(self, key: Key, wanted: frozenset[bytes]) -> Outcome:
        data = await self._at(key, lambda: self._link.get(_keys(key)[0], whose=key.partition))
        record = None if data is None else await self._opened(key, data)
        return Found(record) if record and serves(record, wanted) else NoEntry.ABSENT

    async def _claim(self, key: Key, wanted: frozenset[bytes], wait_seconds: float) -> Outcome:
        waits = wait_seconds > 0 and not self._waiting.is_full(key)
        answer = await self._ask(key, wanted, waits=waits)
        if not isinstance(answer, float):
            return answer
        if not waits:
            return NoEntry.ABSENT
        pending = self._waiting.join(key, wanted, wait_seconds)
        self._follow(key)
        try:
            return await pending
        except asyncio.CancelledError:
            if not pending.cancelled() and isinstance(granted := pending.result(), Granted):
                self.abandon(granted.lease)  # it came in the moment the caller left
            raise

    async def _put(self, lease: Lease, record: Record, ttl_seconds: float) -> Put:
        data = sealed(self._hash_key, lease.key, record)
        ttl_ms = round(ttl_seconds * 1000)
        args = (lease.token, data, ttl_ms, CHANNEL, b"".join(lease.key))
        try:
            done = await self._script(self._put_script, lease.key, args)
        except RedisFailed:
            if lease.token:
                self._owed.add(lease)
            raise
        if done < 0:
            self._leases_expired += 1
        return Put.STORED if done == 1 else Put.NOT_HELD

    async def _abandon(self, lease: Lease, unless_awaited: bool) -> Abandon:  # noqa: FBT001 -- `_soon` passes it on by place
        try:
            kept = await self._ask_to_abandon(lease, unless_awaited=unless_awaited)
        except RedisFailed:
            self._owed.add(lease)
            raise
        return Abandon.AWAITED if kept else Abandon.ENDED

    async def _ask(
        self, key: Key, wanted: frozenset[bytes], *, waits: bool
    ) -> Found | Granted | float:
        """Looks, else takes the lease, else says for how many seconds another holds it."""
        lease = new_lease(key)
        args = (lease.token, self._lease_ms, AWAITED_MS if waits else 0, *wanted)
        try:
            while True:
                answer = await self._script(self._claim_script, key, args)
                if not isinstance(answer, bytes):
                    break
                if (record := await self._opened(key, answer)) is not None:
                    return Found(record)
        except (RedisFailed, asyncio.CancelledError):
            self._owed.add(lease)  # Redis may grant it without our hearing of it, even later
            raise
        if answer > 0:
            return float(answer) / 1000
        if answer < 0:
            self._leases_expired += 1
        return Granted(lease, self._lease_seconds)

    async def _ask_to_abandon(self, lease: Lease, *, unless_awaited: bool) -> int:
        args = (lease.token, int(unless_awaited), CHANNEL, b"".join(lease.key))
        kept: int = await self._script(self._abandon_script, lease.key, args)
        return kept

    async def _script(self, script: Script, key: Key, args: Sequence[Any]) -> Any:
        return await self._at(key, lambda: self._run_script(script, key, args))

    def _run_script(self, script: Script, key: Key, args: Sequence[Any]) -> Awaitable[Any]:
        return self._link.run(script, _keys(key), args, whose=key.partition)

    async def _at(self, key: Key, use: Callable[[], Awaitable[T]]) -> T:
        """Uses the keys of a request; what no cache has put there is dropped, once."""
        try:
            return await use()
        except RedisRefused as refused:
            if WRONG_TYPE not in str(refused):
                raise
        keys = _keys(key)
        cleared = await self._run_script(self._clear_script, key, ())
        self._damaged += cleared
        log.warning("dropped what no cache has written", keys=cleared, where=f"{keys[0][:-5]}*")
        return await use()

    async def _opened(self, key: Key, data: bytes) -> Record | None:
        """The record in the data; None if it is damaged, and then it is dropped."""
        record = unsealed(self._hash_key, key, data)
        if record is None:
            self._damaged += 1
            log.warning("dropped an entry that is damaged or sealed with another hash key")
            await self._run_script(self._drop_script, key, (data,))
        return record

    def _follow(self, key: Key) -> None:
        """Sees to it that somebody asks for those who wait for the key, beginning now."""
        wake = self._followed.get(key)
        if wake is None:
            wake = self._followed[key] = asyncio.Event()
            self._run(self._ask_for_waiters(key, wake))
        wake.set()

    async def _ask_for_waiters(self, key: Key, wake: asyncio.Event) -> None:
        pause = POLL_SECONDS
        try:
            while self._waiting.first(key) is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await wake.wait()
                wake.clear()
                if (first := self._waiting.first(key)) is None:
                    break
                answer = await self._ask(key, first.wanted, waits=True)
                if isinstance(answer, float):
                    pause = min(answer, POLL_SECONDS)
                    continue
                if isinstance(answer, Found):
                    self._waiting.serve(key, answer.record)
                elif not self._waiting.grant(answer):
                    self.abandon(answer.lease)
                wake.set()  # the others: served by no such writer, or waiting for the new holder
        except Exception as error:
            self._waiting.dismiss(key, NoEntry.FAILED)
            if not isinstance(error, RedisFailed):
                raise
        finally:
            del self._followed[key]


@asynccontextmanager
async def open_redis(
    link: RedisLink, hash_key: bytes, clock: Clock, *, lease_seconds: float, max_waiters: int
) -> AsyncIterator[RedisStore]:
    """The store over a link, which it tends and closes. Redis need not be there yet."""
    store = RedisStore(link, hash_key, clock, lease_seconds=lease_seconds, max_waiters=max_waiters)
    store.begin()
    await link.tried.wait()
    try:
        yield store
    finally:
        await store.close()
        await link.close()


def _keys(key: Key) -> tuple[str, str, str, str]:
    stem = f"pw:{key.partition.hex()}:{{{key.digest.hex()}}}:"
    return (f"{stem}entry", f"{stem}lease", f"{stem}holder", f"{stem}awaited")
