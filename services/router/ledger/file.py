"""The ledger: records of `pennyweight.ledger.schema`, one JSON line each, in append-only files.

Records are gathered in memory, and made into lines and written together, with an fsync at least
once a second, in a thread: neither their making nor a slow or full disk holds up an answer. What
cannot be kept is counted. Each process writes files of its own, a new one each hour, so nothing
follows a line torn by a crash.
"""

import asyncio
import contextlib
import datetime as dt
import os
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
import structlog

from pennyweight.ledger.schema import LedgerRecord
from services.common.config import ConfigError
from services.router.metrics import Metrics
from services.router.ports import MakeRecord

log = structlog.get_logger()

COMMIT_SECONDS = 0.5
MAX_UNWRITTEN = 100_000
"""Records kept in memory while the disk refuses them; beyond it the oldest are given up."""


class FileLedger:
    """The `Ledger` on a local disk."""

    def __init__(self, folder: Path, router: str, metrics: Metrics) -> None:
        """Makes the folder.

        Raises:
            ConfigError: it cannot be made or written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"no permission to write in {folder}")
        except OSError as error:
            raise ConfigError("environment", [f"ledger folder: {error}"]) from error
        self._folder = folder
        self._name = f"{router}-{os.getpid()}-{os.urandom(3).hex()}"
        self._metrics = metrics
        self._records: deque[LedgerRecord | MakeRecord] = deque()
        self._lines: deque[bytes] = deque()  # that the disk has refused so far
        self._closed = asyncio.Event()

    def add(self, record: LedgerRecord | MakeRecord) -> None:
        """See `Ledger.add`."""
        if len(self._records) + len(self._lines) >= MAX_UNWRITTEN:
            (self._lines or self._records).popleft()
            self._metrics.ledger_lost.inc()
        self._records.append(record)

    def close(self) -> None:
        """Lets `run` write what is left and end."""
        self._closed.set()

    async def run(self) -> None:
        """Writes what has gathered, twice a second, until closed. The caller owns it."""
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), COMMIT_SECONDS)
            await self.flush()
        await self.flush()  # what came while the last one was being written
        if lost := len(self._records) + len(self._lines):
            self._metrics.ledger_lost.inc(lost)
            log.error("the ledger ends with records unwritten", lost=lost)

    async def flush(self) -> None:
        """Writes what has gathered; it stays gathered if the disk refuses it."""
        records, self._records = self._records, deque()
        if records:
            self._lines += await asyncio.to_thread(self._render, records)
        batch = list(self._lines)
        if not batch:
            return
        try:
            await asyncio.to_thread(self._write, batch)
        except OSError as error:
            log.warning("the ledger cannot be written", error=str(error), waiting=len(batch))
            return
        for line in batch:
            if self._lines and self._lines[0] is line:
                self._lines.popleft()
        self._metrics.ledger_records.inc(len(batch))

    def _render(self, records: Iterable[LedgerRecord | MakeRecord]) -> list[bytes]:
        """The records as lines; what cannot be one is counted."""
        lines = []
        for record in records:
            try:
                made = record() if callable(record) else record
                lines.append(orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
            except Exception as error:  # noqa: BLE001 -- one record must not cost the others
                self._metrics.ledger_lost.inc()
                # Neither message nor traceback: they may hold what callers sent.
                log.error("a record cannot be written", error=type(error).__name__)  # noqa: TRY400
        return lines

    def _write(self, lines: Sequence[bytes]) -> None:
        hour = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H")
        path = self._folder / f"{hour}-{self._name}.jsonl"
        data = b"".join(lines)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # all of the batch or none of it
                raise
        finally:
            os.close(descriptor)
