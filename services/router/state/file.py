"""The shared state of one router alone, in a folder on its machine; see `store.SharedState`.

It is one SQLite file, so that each change is on the disk whole, or not at all, before anybody hears
of it. All work on it is done in one thread, in turn: a slow disk never holds up an answer. A file
that is damaged, empty or not ours stops the start: halts must not be forgotten in silence. One that
is moved or removed meanwhile is made anew, with every lever as it is known here.
"""

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog

from services.common.config import ConfigError
from services.common.errors import Unavailable
from services.common.files import FolderLock, whole_file

log = structlog.get_logger()

FILE = "state.sqlite3"
APPLICATION_ID = 0x50574B52
"""Tells our file from others that SQLite wrote."""

FORMAT = 1
MAX_KEPT = 200_000
"""Values kept at most; beyond it those that would run out first are given up."""

MAX_QUEUED = 1000
DISK_SECONDS = 2.0
LOG_EVERY_SECONDS = 10.0

SCHEMA = f"""
CREATE TABLE levers (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX kept_expires ON kept (expires);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

DROP_FIRST = "DELETE FROM kept WHERE key IN (SELECT key FROM kept ORDER BY expires LIMIT ?)"

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
            self._database, self._opened = _opened(self._path)
            self._records: Mapping[str, bytes] = _read(self._database, self._path, check)
        except BaseException:
            self._lock.close()
            raise
        self._changes = 0
        self._queued = 0
        self._said = -math.inf
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router-state")

    async def changes(self) -> str:
        """See `SharedState.changes`; has the file looked after, unless there is work on it."""
        if not self._queued:
            self._begin(lambda: None)
        return str(self._changes)

    async def records(self) -> tuple[str, Mapping[str, bytes]]:
        """See `SharedState.records`."""
        return str(self._changes), self._records

    async def swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        """See `SharedState.swap`."""
        return await self._do(lambda: self._swap(name, before, after))

    async def keep_once(
        self,
        key: str,
        value: bytes,
        seconds: float,
        *,
        tenant: str,  # noqa: ARG002
    ) -> bytes | None:
        """See `ports.Keeper.keep_once`."""
        return await self._do(lambda: self._keep_once(key, value, seconds))

    async def kept(self, key: str, *, tenant: str) -> bytes | None:  # noqa: ARG002
        """See `ports.Keeper.kept`."""
        return await self._do(lambda: self._kept(key))

    async def close(self) -> None:
        """Finishes what is queued and lets go of the folder."""
        with suppress(Unavailable):
            await self._do(self._database.close)
        self._worker.shutdown(wait=False)
        self._lock.close()

    def _swap(self, name: str, before: bytes | None, after: bytes) -> tuple[bool, bytes]:
        now = self._records.get(name)
        if now != before:
            return False, now or b""
        with _Change(self._database) as change:
            change("INSERT OR REPLACE INTO levers VALUES (?, ?)", name, after)
        self._records = {**self._records, name: after}
        self._changes += 1
        return True, after

    def _keep_once(self, key: str, value: bytes, seconds: float) -> bytes | None:
        now = self._clock()
        with _Change(self._database) as change:
            change("DELETE FROM kept WHERE expires <= ?", now)
            row = change("SELECT value FROM kept WHERE key = ?", key).fetchone()
            if row is not None:
                return bytes(row[0])
            change("INSERT INTO kept VALUES (?, ?, ?)", key, value, now + seconds)
            (count,) = change("SELECT count(*) FROM kept").fetchone()
            if count > self._max_kept:
                over = count - self._max_kept
                change(DROP_FIRST, over)
        return None

    def _kept(self, key: str) -> bytes | None:
        asked = "SELECT value FROM kept WHERE key = ? AND expires > ?"
        row = self._database.execute(asked, (key, self._clock())).fetchone()
        return None if row is None else bytes(row[0])

    async def _do(self, work: Callable[[], T]) -> T:
        """Has the thread do it.

        Raises:
            Unavailable: the disk refuses, or is too slow.
        """
        if self._queued >= MAX_QUEUED:
            raise self._unavailable("too much waits for the disk")
        try:
            async with asyncio.timeout(DISK_SECONDS):
                return await asyncio.shield(self._begin(work))
        except TimeoutError as error:
            raise self._unavailable("the disk is too slow") from error
        except (sqlite3.Error, OSError, ConfigError) as error:
            raise self._unavailable(str(error), reason="STATE_REFUSED") from error

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Hands work to the thread."""

        def do() -> T:
            self._follow()
            return work()

        future = asyncio.get_running_loop().run_in_executor(self._worker, do)
        self._queued += 1
        future.add_done_callback(self._done)
        return future

    def _follow(self) -> None:
        """Opens the file that has the name now, where ours was moved, removed or replaced.

        Raises:
            OSError, ConfigError: it cannot be used; ours stays open.
        """
        if _at(self._path) == self._opened:
            return
        log.warning("the state's file was moved, removed or replaced", file=str(self._path))
        if not self._lock.in_place:
            before, self._lock = self._lock, FolderLock(self._path.parent, "router")
            before.close()
        made = not self._path.exists()
        database, opened = _opened(self._path)
        if made:
            with _Change(database) as change:
                for name, record in self._records.items():
                    change("INSERT INTO levers VALUES (?, ?)", name, record)
        records = _read(database, self._path, self._check)
        self._database.close()
        self._database, self._opened, self._records = database, opened, records
        self._changes += 1

    def _unavailable(self, why: str, reason: str = "STATE_UNREACHABLE") -> Unavailable:
        """Says so in the log, now and then: what is owed is tried again and again."""
        now = self._clock()
        if not 0.0 <= now - self._said < LOG_EVERY_SECONDS:
            self._said = now
            log.warning("the state cannot be written or read", error=why)
        return Unavailable(f"the state of this router cannot be used: {why}", reason=reason)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._queued -= 1
        if not future.cancelled() and isinstance(future.exception(), OSError | ConfigError):
            self._unavailable(str(future.exception()))  # who asked may have gone, or be nobody


class _Change:
    """A transaction: all of it is on the disk when it ends, or none."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> Self:
        self._database.execute("BEGIN IMMEDIATE")
        return self

    def __call__(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._database.execute(statement, values)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise


def _at(path: Path) -> tuple[int, int] | None:
    """Tells the file at a path from others; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _opened(path: Path) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
    """The database, and which file it is."""
    try:
        if not path.exists():
            _make(path)
            log.warning("no levers were set or watched here before: all are on", file=str(path))
        if path.stat().st_size == 0:  # SQLite would take it for a new one
            raise ConfigError(str(path), ["is damaged: it is empty"])
        database, at = _connected(path), _at(path)
        try:
            found = [
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "quick_check(1)")
            ]
        except sqlite3.Error:
            database.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(str(path), [f"is damaged or cannot be used: {error}"]) from error
    if found != [APPLICATION_ID, FORMAT, "ok"]:
        database.close()
        raise ConfigError(str(path), [f"is damaged or no state of a router: {found}"])
    return database, at


def _make(path: Path) -> None:
    """Makes an empty file: whole, or not at all."""
    with whole_file(path) as unfinished, closing(_connected(unfinished)) as database:
        database.executescript(SCHEMA)


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = EXTRA")
    return database


def _read(
    database: sqlite3.Connection, path: Path, check: Callable[[bytes], object]
) -> dict[str, bytes]:
    """Every record, each of which must be one."""
    records: dict[str, bytes] = {}
    try:
        for name, record in database.execute("SELECT name, record FROM levers"):
            check(record)
            records[name] = record
    except (ValueError, sqlite3.Error) as error:
        database.close()
        raise ConfigError(str(path), [f"is damaged: {error}"]) from error
    return records
