"""The ledger: records of `pennyweight.ledger.schema`, one JSON line each, in append-only files.

Records are gathered in memory, and made into lines and written together, with an fsync, in a
thread: neither their making nor a slow or full disk holds up an answer. They wait for some
hundredths of a second, and longer where the disk is slow, so that it is at rest most of the time.
What cannot be kept is counted. A folder that is moved or removed meanwhile is made anew. Each
process writes files of its own, a new one each hour, so nothing follows a line torn by a crash;
what a kill cost it, the next one finds by its `mark`.
"""

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

import structlog

from pennyweight.ledger.schema import GapRecord, LedgerRecord, RequestRecord
from services.common.config import ConfigError
from services.common.faults import fault
from services.common.files import append_whole, first_part
from services.common.json_lines import json_line
from services.common.writing import any_set, set_within, writing
from services.router.ledger.mark import Abandoned, Mark, abandoned
from services.router.metrics import Metrics
from services.router.ports import MakeRecord

log = structlog.get_logger()

COMMIT_SECONDS = 0.02
"""How long records gather at least, before they are written together."""

MAX_COMMIT_SECONDS = 0.5
"""How long they gather at most, and when a disk that has refused them is tried again."""

REST = 4
"""The disk rests so many times as long as it has just worked."""

MAX_UNWRITTEN = 100_000
MAX_UNWRITTEN_BYTES = 64 * 1024 * 1024
"""Records, and bytes of their lines, that are kept in memory while the disk refuses them; beyond
either the oldest are given up."""


class _Line(NamedTuple):
    """A record as it is written.

    Attributes:
        is_request: a request is complete with it.
        gap: the gap that is on record with it.
    """

    data: bytes
    is_request: bool
    gap: Abandoned | None


class FileLedger:
    """The `Ledger` on a local disk."""

    def __init__(
        self,
        folder: Path,
        router: str,
        metrics: Metrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Makes the folder, and takes up what killed processes have left in it.

        Raises:
            ConfigError: it cannot be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"no permission to write in {folder}")
            gaps = list(abandoned(folder, wall()))
        except OSError as error:
            raise ConfigError("environment", [f"ledger folder: {error}"]) from error
        self._folder = folder
        self._name = f"{router}-{os.getpid()}-{os.urandom(3).hex()}"
        self._metrics = metrics
        self._wall = wall
        self._records: deque[LedgerRecord | MakeRecord] = deque()
        self._lines: deque[_Line] = deque()  # that the disk has refused so far
        self._line_bytes = 0
        self._unmade = False  # whether records wait that could not be made into lines
        self._answered = self._written = 0
        self._mark: Mark | None = None
        self._gaps: dict[str, Abandoned] = {}  # of others, until they are on record, by process
        self._gathered = asyncio.Event()
        self._ended = False
        for gap in gaps:
            self._take_up(gap)

    def number(self) -> int:
        """See `Ledger.number`."""
        self._answered += 1
        return self._answered

    def add(self, record: LedgerRecord | MakeRecord) -> None:
        """See `Ledger.add`."""
        if self._ended:
            self._lose(1)
            return
        if len(self._records) + len(self._lines) >= MAX_UNWRITTEN:
            if self._lines:
                self._next_line()
            else:
                self._records.popleft()
            self._metrics.ledger_lost.inc()
        self._records.append(record)
        self._gathered.set()

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Writes what gathers; at the end of the block all that is left."""
        return writing(self._run)

    async def flush(self) -> None:
        """Makes lines of what has gathered, and writes them; what fails stays for the next time."""
        await self._make_lines()
        await self._write_lines()

    async def _run(self, stop: asyncio.Event) -> None:
        """Lines are made while a write is under way too: unmade records hold their requests."""
        write: asyncio.Task[float] | None = None
        pause = COMMIT_SECONDS
        while not stop.is_set():
            await self._something_to_do(stop)
            await set_within(stop, pause)
            self._gathered.clear()
            await self._make_lines()
            if write is None or write.done():
                if write is not None:
                    pause = min(max(COMMIT_SECONDS, REST * write.result()), MAX_COMMIT_SECONDS)
                write = asyncio.create_task(self._write_lines())
        if write is not None:
            await write
        await self.flush()
        self._ended = True
        if lost := len(self._records) + len(self._lines):
            self._lose(lost)
        if self._mark is not None:
            self._mark.close(complete=self._written >= self._answered)
        while self._gaps:
            self._gaps.popitem()[1].let_go()

    async def _something_to_do(self, stop: asyncio.Event) -> None:
        """Waits for records; not for long where the disk still has to take some."""
        if self._lines or self._unmade:
            await set_within(stop, MAX_COMMIT_SECONDS)
        else:
            await any_set(stop, self._gathered)

    async def _make_lines(self) -> None:
        records, self._records = self._records, deque()
        self._unmade = False
        if not records:
            return
        try:
            lines = await asyncio.to_thread(self._render, records)
        except Exception as error:  # noqa: BLE001 -- such as no thread; the next pass may have one
            self._records.extendleft(reversed(records))
            self._unmade = True
            self._refused(error)
            return
        self._lines += lines
        self._line_bytes += sum(map(_bytes_of, lines))
        while self._line_bytes > MAX_UNWRITTEN_BYTES:
            self._next_line()
            self._metrics.ledger_lost.inc()

    async def _write_lines(self) -> float:
        """Writes what waits now, a part at a time. Returns how many seconds the disk took."""
        began, left = time.monotonic(), len(self._lines)
        while left > 0 and (batch := first_part(self._lines, _bytes_of)):
            try:
                await asyncio.to_thread(self._write, batch, self._answered)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the ledger goes on
                self._refused(error)
                return time.monotonic() - began
            for line in batch:
                if self._lines and self._lines[0] is line:  # else it was given up meanwhile
                    self._next_line()
            left -= len(batch)
            self._metrics.ledger_records.inc(len(batch))
            self._metrics.ledger_refused.set(0)
        return time.monotonic() - began

    def _next_line(self) -> None:
        """Takes out the oldest line: it is written, or given up."""
        self._line_bytes -= _bytes_of(self._lines.popleft())

    def _refused(self, error: Exception) -> None:
        """What gathered is still to be written, and is tried again."""
        waiting = len(self._records) + len(self._lines)
        why = str(error) if isinstance(error, OSError) else fault(error)
        log.warning("the ledger cannot be written", error=why, waiting=waiting)
        self._metrics.ledger_refused.set(waiting)

    def _lose(self, lost: int) -> None:
        self._metrics.ledger_lost.inc(lost)
        log.error("the ledger ends with records unwritten", lost=lost)

    def _take_up(self, gap: Abandoned) -> None:
        """Has the gap of a killed process put on record."""
        if not gap.is_gap:
            gap.remove()
            return
        self._gaps[gap.record.process] = gap
        self.add(gap.record)
        self._metrics.ledger_gaps.inc(gap.record.missing)
        log.error(
            "a router was killed before its ledger was complete",
            process=gap.record.process,
            missing=gap.record.missing,
            last_seen=gap.record.last_seen,
        )

    def _render(self, records: Iterable[LedgerRecord | MakeRecord]) -> list[_Line]:
        """The records as lines; what cannot be one is counted."""
        lines = []
        for record in records:
            try:
                made = record() if callable(record) else record
                data = json_line(made)
                gap = self._gaps.get(made.process) if isinstance(made, GapRecord) else None
                lines.append(_Line(data, isinstance(made, RequestRecord), gap))
            except Exception as error:  # noqa: BLE001 -- one record must not cost the others
                self._metrics.ledger_lost.inc()
                # Neither message nor traceback: they may hold what callers sent.
                log.error("a record cannot be written", error=type(error).__name__)  # noqa: TRY400
        return lines

    def _write(self, lines: Sequence[_Line], answered: int) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            log.warning("the ledger's folder was gone and is made anew", folder=str(self._folder))
        self._put_mark(answered)
        hour = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H")
        path = self._folder / f"{hour}-{self._name}.jsonl"
        data = b"".join([line.data for line in lines])
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            append_whole(descriptor, data)
        finally:
            os.close(descriptor)
        self._written += sum([line.is_request for line in lines])
        self._put_mark(answered)
        for line in lines:
            if line.gap is not None and self._gaps.pop(line.gap.record.process, None) is not None:
                line.gap.remove()

    def _put_mark(self, answered: int) -> None:
        """Says how far it is; a disk that refuses that refuses records too, which is told of."""
        with contextlib.suppress(OSError):
            if self._mark is None or not self._mark.in_place:
                before, self._mark = self._mark, Mark(self._folder, self._name)
                if before is not None:  # what it told of is in the folder that was moved away
                    before.close(complete=True)
            self._mark.put(answered=answered, written=self._written, wall=self._wall())


def _bytes_of(line: _Line) -> int:
    return len(line.data)
