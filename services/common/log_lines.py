"""Lines on their way to standard error: written by a thread of their own, bounded, counted.

Whoever logs never waits and never fails. What is behind standard error may be read too slowly, be
closed, or be a file on a full disk: then lines are lost, and counted, and all else goes on.
"""

import os
import queue
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

MAX_BYTES = 4 * 1024 * 1024
"""What may wait to be written."""

BATCH_BYTES = 64 * 1024
GATHER_SECONDS = 0.01
"""How long the thread lets lines gather: under load it wakes a hundred times a second at most."""


@dataclass
class Lost:
    """How many lines were not written, by why.

    Attributes:
        unread: too much waited already: whoever reads them does not keep up.
        failed: they could not be written: a full disk, a closed pipe.
        raw: too many came within a second from beneath Python.
    """

    unread: int = 0
    failed: int = 0
    raw: int = 0


LOST = Lost()
"""Those of this process."""


class LogCollector(Collector):
    """What became of the log of this process, for Prometheus."""

    def __init__(self, lost: Lost = LOST) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = CounterMetricFamily(
            "pennyweight_log_lost_lines",
            "Lines of the log that were not written, by why: unread (whoever reads standard error "
            "does not keep up), failed (a full disk, a closed pipe), raw (more than 100 a second "
            "from beneath Python, such as gRPC's on malformed requests). Rising: the log has gaps.",
            labels=("why",),
        )
        family.add_metric(("unread",), self._lost.unread)
        family.add_metric(("failed",), self._lost.failed)
        family.add_metric(("raw",), self._lost.raw)
        yield family


class LogLines:
    """A binary file of lines, as far as loggers need one. Any thread may write."""

    def __init__(self, descriptor: int, lost: Lost = LOST, max_bytes: int = MAX_BYTES) -> None:
        """Starts the thread that writes to the descriptor, of which `max_bytes` may wait."""
        self._descriptor = descriptor
        self._lost = lost
        self._max_bytes = max_bytes
        self._waiting = 0
        self._torn = False  # whether the last line may lack its end
        self._lock = threading.RLock()  # a finaliser may log in the middle of a write
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> int:
        """Takes a line with its line feed; it is lost where too much waits. Returns its length."""
        with self._lock:
            if self._waiting + len(line) > self._max_bytes:
                self._lost.unread += 1
                return len(line)
            self._waiting += len(line)
        self._queue.put(line)
        return len(line)

    def flush(self) -> None:
        """Waits for nothing; `close` does."""

    def close(self, seconds: float) -> bool:
        """Writes what waits, for so long at most. Returns whether all was tried."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            time.sleep(GATHER_SECONDS)
            batch, size, last = [line], len(line), False
            while size < BATCH_BYTES and not last:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    batch.append(more)
                    size += len(more)
            self._write(b"".join(batch))
            with self._lock:
                self._waiting -= size
            if last:
                return

    def _write(self, data: bytes) -> None:
        """Writes lines; those that cannot be written are lost, with the rest of one begun."""
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody else has made it so
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(1000)
            except OSError:
                self._lost.failed += bytes(rest).count(b"\n")
                self._torn = True
                return
        self._torn = False
