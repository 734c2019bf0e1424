"""The shared state of one router alone, in a folder on its machine; see `store.SharedState`.

It is one SQLite file, so that each change is on the disk whole, or not at all, before anybody hears
of it. All work on it is done in one thread, that of levers first: a slow disk never holds up an
answer. What tenants have kept is bounded together, and who has most makes room. A file
that is damaged, empty or not ours stops the start: halts must not be forgotten in silence. One that
is moved or removed meanwhile is made anew, with every lever as it is known here.
"""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from services.common.config import ConfigError
from services.common.errors import Unavailable
from services.common.files import FolderLock
from services.router.state.database import (
    Change,
    at_path,
    brought_up,
    counted,
    open_database,
    read_records,
)
from services.router.state.worker import TooMuchWaits, Worker

log = structlog.get_logger()

FILE = "state.sqlite3"
MAX_KEPT = 200_000
"""Values kept at most; beyond it who has most gives up what would run out first."""

DISK_SECONDS = 2.0
LOG_EVERY_SECONDS = 10.0

EXPIRED = "DELETE FROM kept WHERE expires <= ? RETURNING tenant"
DROPPED = """
DELETE FROM kept WHERE key = (SELECT key FROM kept WHERE tenant = ? ORDER BY expires LIMIT 1)
"""

T = TypeVar("T")


class FileState:
    """A folder that belongs to one router at a time; made where it is missing."""

    def __init__(
        self,
        folder: Path,
        check: Callable[[bytes], object],
        *,
        clock: Callable[[], float] = time.time,
        max_kept: int = MAX_KEPT,
    ) -> None:
        """Reads what is there.

        Args:
            folder: of the state.
            check: raises `ValueError` for a record that is damaged.
            clock: seconds since 1970.
            max_kept: values kept at most.

        Raises:
            ConfigError: the folder cannot be used, another router uses it, or its file is damaged.
        """
        self._clock = clock
        self._max_kept = max_kept
        self._check = check
        self._path = folder / FILE
        self._lock = FolderLock(folder, "router")
        try:
            self._database, self._opened = open_database(self._path)
            self._records: Mapping[str, bytes] = read_records(self._database, self._path, check)
            self._held = brought_up(self._database, self._path)
        except BaseException:
            self._lock.close()
            raise
        self._changes = 0
        self._said = -math.inf
        self._worker = Worker(self._change)

    async def changes(self) -> str:
        """See `SharedState.changes`; has the file looked after, unless there is work on it."""
        if self._worker.idle:
            self._worker.first(lambda _: None).add_done_callback(self._seen)
        return str(self._changes)

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """See `SharedState.records`."""
        return str(self._changes), self._records

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """See `SharedState.swap`."""
        work = partial(self._swap, name, before, after)
        return await self._do(lambda: self._worker.first(work))

    async def keep_once(
        self, key: str, value: bytes, seconds: float, *, tenant: str
    ) -> bytes | None:
        """See `ports.Keeper.keep_once`."""
        work = partial(self._keep_once, key, value, seconds, tenant)
        return await self._do(lambda: self._worker.of(tenant, work))

    async def kept(self, key: str, *, tenant: str) -> bytes | None:
        """See `ports.Keeper.kept`."""
        work = partial(self._kept, key)
        return await self._do(lambda: self._worker.of(tenant, work))

    async def close(self) -> None:
        """Finishes what is queued and lets go of the folder."""
        with suppress(TimeoutError, sqlite3.Error):
            async with asyncio.timeout(DISK_SECONDS):
                await self._worker.close(self._database.close)
        self._lock.close()

    def _swap(
        self, name: str, before: bytes | None, after: bytes, change: Change
    ) -> tuple[bool, bytes]:
        now = self._records.get(name)
        if now != before:
            return False, now or b""
        change.write("INSERT OR REPLACE INTO levers VALUES (?, ?)", name, after)
        change.afterwards(partial(self._swapped, name, after))
        return True, after

    def _swapped(self, name: str, after: bytes) -> None:
        self._records = {**self._records, name: after}
        self._changes += 1

    def _keep_once(
        self, key: str, value: bytes, seconds: float, tenant: str, change: Change
    ) -> bytes | None:
        before = self._kept(key, change)
        if before is not None:  # the same again costs the disk nothing
            return before
        now = self._clock()
        for (whose,) in change.write(EXPIRED, now).fetchall():
            self._held[whose] -= 1
        insert = "INSERT INTO kept (key, value, expires, tenant) VALUES (?, ?, ?, ?)"
        change.write(insert, key, value, now + seconds, tenant)
        self._held[tenant] += 1
        while self._held.total() > self._max_kept:
            ((most, _),) = self._held.most_common(1)
            change.write(DROPPED, most)
            self._held[most] -= 1
        return None

    def _kept(self, key: str, change: Change) -> bytes | None:
        asked = "SELECT value FROM kept WHERE key = ? AND expires > ?"
        row = change.read(asked, key, self._clock()).fetchone()
        return None if row is None else bytes(row[0])

    async def _do(self, begin: Callable[[], "asyncio.Future[T]"]) -> T:
        """Has the thread do it.

        Raises:
            Unavailable: the disk refuses, is too slow, or has too much to do.
        """
        try:
            future = begin()
            future.add_done_callback(self._seen)
            async with asyncio.timeout(DISK_SECONDS):
                return await asyncio.shield(future)
        except TooMuchWaits as error:
            raise self._unavailable("too much waits for the disk") from error
        except TimeoutError as error:
            raise self._unavailable("the disk is too slow") from error
        except (sqlite3.Error, OSError, ConfigError) as error:
            raise self._unavailable(str(error), reason="STATE_REFUSED") from error

    @contextmanager
    def _change(self) -> Iterator[Change]:
        """A change of the file that has the name now."""
        self._follow()
        try:
            with Change(self._database) as change:
                yield change
        except BaseException:
            with suppress(sqlite3.Error):
                self._held = counted(self._database)
            raise

    def _follow(self) -> None:
        """Opens the file that has the name now, where ours was moved, removed or replaced.

        Raises:
            OSError, ConfigError: it cannot be used; ours stays open.
        """
        if at_path(self._path) == self._opened:
            return
        log.warning("the state's file was moved, removed or replaced", file=str(self._path))
        if not self._lock.in_place:
            before, self._lock = self._lock, FolderLock(self._path.parent, "router")
            before.close()
        made = not self._path.exists()
        database, opened = open_database(self._path)
        if made:
            with Change(database) as change:
                for name, record in self._records.items():
                    change.write("INSERT INTO levers VALUES (?, ?)", name, record)
        records = read_records(database, self._path, self._check)
        held = brought_up(database, self._path)
        self._database.close()
        self._database, self._opened, self._records = database, opened, records
        self._held = held
        self._changes += 1

    def _unavailable(self, why: str, reason: str = "STATE_UNREACHABLE") -> Unavailable:
        """Says so in the log, now and then: what is owed is tried again and again."""
        now = self._clock()
        if not 0.0 <= now - self._said < LOG_EVERY_SECONDS:
            self._said = now
            log.warning("the state cannot be written or read", error=why)
        message = f"the state of this router cannot be used: {why}"
        return Unavailable(message, reason=reason, retry_after_seconds=1.0)

    def _seen(self, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled() and isinstance(future.exception(), OSError | ConfigError):
            self._unavailable(str(future.exception()))  # who asked may have gone, or be nobody
