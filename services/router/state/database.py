"""The file that a router's own state is in: made, opened, looked at, and changed as a whole.

It is one of SQLite's. One that is damaged, empty or not ours is refused as it is.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

import structlog

from services.common.config import ConfigError
from services.common.files import whole_file

log = structlog.get_logger()

APPLICATION_ID = 0x50574B52
"""Tells our file from others that SQLite wrote."""

FORMAT = 2
"""The first one did not say whose the values are that are kept."""

SCHEMA = f"""
CREATE TABLE levers (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX kept_expires ON kept (expires);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""
"""Of the first format: a new file becomes one of ours in the same way as one of before."""

SECOND_FORMAT = """
BEGIN IMMEDIATE;
ALTER TABLE kept ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
CREATE INDEX kept_of ON kept (tenant, expires);
PRAGMA user_version = 2;
COMMIT;
"""


class Change:
    """A transaction, begun with the first write: all is on the disk when it ends, or none."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._afterwards: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def read(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Looks, at what is changed already too."""
        return self._database.execute(statement, values)

    def write(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Changes something."""
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        return self._database.execute(statement, values)

    def afterwards(self, do: Callable[[], None]) -> None:
        """Does what follows from the change, once it is on the disk."""
        self._afterwards.append(do)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self._database.in_transaction:
                self._database.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        if kind is None:
            for do in self._afterwards:
                do()


def at_path(path: Path) -> tuple[int, int] | None:
    """Tells the file at a path from others; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def open_database(path: Path) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
    """The database, and which file it is."""
    try:
        if not path.exists():
            _make(path)
            log.warning("no levers were set or watched here before: all are on", file=str(path))
        if path.stat().st_size == 0:  # SQLite would take it for a new one
            raise ConfigError(str(path), ["is damaged: it is empty"])
        database, at = _connected(path), at_path(path)
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
    if found[:1] + found[2:] != [APPLICATION_ID, "ok"] or not 1 <= found[1] <= FORMAT:
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


def read_records(
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


def brought_up(database: sqlite3.Connection, path: Path) -> Counter[str]:
    """Makes a file of before, whose records are sound, one of ours; how much each tenant keeps.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found < FORMAT:
            database.executescript(SECOND_FORMAT)
        return counted(database)
    except sqlite3.Error as error:
        database.close()
        raise ConfigError(str(path), [f"cannot be used: {error}"]) from error


def counted(database: sqlite3.Connection) -> Counter[str]:
    """How many values are kept of each tenant."""
    return Counter(dict(database.execute("SELECT tenant, count(*) FROM kept GROUP BY tenant")))
