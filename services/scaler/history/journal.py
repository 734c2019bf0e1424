"""A record in lines of JSON that are only added to, in files of a bounded size and number.

Lines gather in memory and are written together, with an fsync, in a thread: a slow or full disk
holds nobody up. What the disk refuses waits and is tried again; beyond `MAX_UNWRITTEN` the oldest
are given up, counted, and once the disk takes lines again a line says how many are missing there.
A line that a crash tore is closed by the next process, and left out by readers, who count it.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import structlog

from services.common.durations import wall_clock
from services.common.files import append_whole, first_part
from services.common.json_lines import json_line
from services.common.writing import any_set, set_within, writing

log = structlog.get_logger()

COMMIT_SECONDS = 0.1
"""How long lines gather before they are written together."""

RETRY_SECONDS = 1.0
"""When a disk that has refused lines is tried again."""

MAX_UNWRITTEN = 10_000
"""Lines kept in memory while the disk refuses them; beyond it the oldest are given up."""

SUFFIX, DIGITS = ".jsonl", 12
GAP = "missing"
"""Key of a line that stands for others that could not be kept; its value is how many."""


class Count(Protocol):
    """What a journal counts."""

    def unwritten(self, lines: int) -> None:
        """So many lines wait, as the disk refuses them."""

    def lost(self, lines: int) -> None:
        """So many more lines could not be kept."""


@dataclass(frozen=True)
class Limits:
    """How much is kept.

    Attributes:
        file_bytes: about the largest size of a file.
        files: most files; with one more the oldest goes.
        seconds: a file goes when nothing was written to it for so long; None: it does not.
    """

    file_bytes: int
    files: int
    seconds: float | None = None


class Journal:
    """Lines of one kind in a folder of their own; one process at a time writes it."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        count: Count,
        *,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        """Touches nothing; the folder is made with the first line. `wall`: seconds since 1970."""
        self.folder = folder
        self._limits = limits
        self._count = count
        self._wall = wall
        self._lines: deque[bytes] = deque()
        self._missing = 0
        self._missing_since = 0.0
        self._refusing = False
        self._gathered = asyncio.Event()
        self._writes = asyncio.Lock()

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a line; comes back at once. Numbers that are none become null."""
        if len(self._lines) >= MAX_UNWRITTEN:
            self._lines.popleft()
            self._missing_since = self._missing_since or self._wall()
            self._missing += 1
            self._count.lost(1)
        self._lines.append(json_line(record))
        self._gathered.set()

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Writes what gathers; at the end of the block what is left."""
        return writing(self._run)

    async def flush(self) -> None:
        """Writes what has gathered, a part at a time; what fails stays for the next time."""
        async with self._writes:
            left = len(self._lines)
            while written := await self._write_part():
                left -= written
                if left <= 0:
                    break

    async def _write_part(self) -> int:
        """Writes the oldest lines. Returns how many; 0 where none wait, or the disk refuses."""
        part, missing = first_part(self._lines, len), self._missing
        if not part and not missing:
            return 0
        gap = [self._gap(missing)] if missing else []
        try:
            await asyncio.to_thread(self._write, b"".join([*gap, *part]))
        except OSError as error:
            self._refused(error)
            return 0
        for line in part:
            if self._lines and self._lines[0] is line:  # else it was given up meanwhile
                self._lines.popleft()
        self._missing -= missing
        self._missing_since = self._wall() if self._missing else 0.0
        if self._refusing:
            self._refusing = False
            log.warning("the history can be written again", folder=str(self.folder))
        self._count.unwritten(0)
        return len(part)

    def unwritten(self) -> list[Mapping[str, Any]]:
        """The lines that are not on the disk yet, newest first."""
        return [orjson.loads(line) for line in reversed(self._lines)]

    async def _run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await any_set(stop, self._gathered)
            await set_within(stop, RETRY_SECONDS if self._refusing else COMMIT_SECONDS)
            self._gathered.clear()
            await self.flush()
            if self._refusing:
                self._gathered.set()
        await self.flush()
        if lost := len(self._lines) + self._missing:
            self._count.lost(len(self._lines))
            log.error("the history ends with lines unwritten", folder=str(self.folder), lost=lost)

    def _refused(self, error: OSError) -> None:
        if not self._refusing:
            self._refusing = True
            log.error(
                "the history cannot be written; decisions go on",
                folder=str(self.folder),
                error=str(error),
            )
        self._count.unwritten(len(self._lines))

    def _gap(self, missing: int) -> bytes:
        gap = {GAP: missing, "since": self._missing_since, "at": self._wall()}
        return json_line(gap)

    def _write(self, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._current(), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # after a line that a crash tore
            append_whole(descriptor, data)
        finally:
            os.close(descriptor)

    def _current(self) -> Path:
        """The file to write to; with a new one, old ones go."""
        files = _files(self.folder)
        if files and files[-1].stat().st_size < self._limits.file_bytes:
            return files[-1]
        number = int(files[-1].stem) + 1 if files else 1
        self._drop(files)
        return self.folder / f"{number:0{DIGITS}d}{SUFFIX}"

    def _drop(self, files: list[Path]) -> None:
        over = max(0, len(files) + 1 - self._limits.files)
        for index, path in enumerate(files):
            with contextlib.suppress(FileNotFoundError):
                if index < over or self._is_old(path):
                    path.unlink()

    def _is_old(self, path: Path) -> bool:
        seconds = self._limits.seconds
        return seconds is not None and path.stat().st_mtime < self._wall() - seconds


def read(folder: Path) -> Iterator[Mapping[str, Any] | None]:
    """The lines of a journal on the disk, newest first; None for one that cannot be read.

    Reads files, one at a time: to be called in a thread. May run while lines are written.

    Raises:
        OSError: a file cannot be read.
    """
    for path in reversed(_files(folder)):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # rotated away meanwhile
            continue
        for line in reversed(data.splitlines()):
            if line:
                yield _parsed(line)


def _files(folder: Path) -> list[Path]:
    """In the order in which they were written."""
    return sorted(folder.glob(f"{'[0-9]' * DIGITS}{SUFFIX}"))


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
