"""The log of a service: one kind of line, on standard error, whoever says it.

Lines are JSON, one canonical line for each request; on a terminal they are coloured text. What
libraries say through `logging`, and what is written to standard error beneath Python, as gRPC's
core does, becomes such lines too. Prompt and answer text never reaches a log, nor do bytes of a
request whose caller is not known: what fails while a call is served is told by
`services.common.faults`.

Logging never waits and never fails: see `services.common.log_lines`.
"""

import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import orjson
import structlog

from services.common.faults import fault
from services.common.log_lines import LOST, LogLines, Lost

STANDARD_ERROR = 2
FLUSH_SECONDS = 2.0
"""How long a service that ends waits for its last lines to be written."""

PIPE_BYTES = 1024 * 1024
MAX_RAW_BYTES = 16 * 1024
"""Longer lines that are written to standard error are cut."""

RAW_LINES_PER_SECOND = 100
"""More of them are lost: strangers may cause them."""

BYTES_OF_REQUESTS = "Invalid encoding on "
"""How grpc's record begins that holds metadata which is not UTF-8: anybody's, a key perhaps."""


Renderer = Callable[[object, str, MutableMapping[str, Any]], bytes]


@contextmanager
def logging_to_standard_error(service: str, level: str) -> Iterator[None]:
    """Sets up the log of the process for the length of the block, which is all that it does."""
    if sys.stderr is None:  # it was closed before the start
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    terminal = sys.stderr.isatty()
    real = os.dup(sys.stderr.fileno())
    faulthandler.enable(real)  # so it is never closed
    lines = LogLines(real)
    configure_logging(service, level, lines, coloured=terminal)
    try:
        if terminal or sys.stderr.fileno() != STANDARD_ERROR:
            yield
        else:
            with _standard_error_logged(real):
                yield
    finally:
        lines.close(FLUSH_SECONDS)


def configure_logging(
    service: str, level: str, lines: LogLines | BinaryIO, *, coloured: bool = False
) -> None:
    """Sends structlog's and the libraries' records to `lines` as one kind of line."""

    def named(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            named,
            _coloured() if coloured else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", lines)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Foreign()], force=True)


def _json(logger: object, name: str, event: MutableMapping[str, Any]) -> bytes:
    """The line; one that cannot be made says so, for a log never fails who logs."""
    try:
        whole = structlog.processors.format_exc_info(logger, name, event)
        try:
            return orjson.dumps(whole, default=repr)
        except TypeError:  # a number of more than 64 bits, text that is no Unicode
            return json.dumps(whole, default=repr).encode()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return orjson.dumps({"event": "a line that cannot be shown", "error": type(error).__name__})


def _coloured() -> Renderer:
    # The default formatter shows local variables: requests and keys among them.
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)

    def render(logger: object, name: str, event: MutableMapping[str, Any]) -> bytes:
        return renderer(logger, name, event).encode(errors="backslashreplace")

    return render


class _Foreign(logging.Handler):
    """Says with structlog what libraries say with `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if isinstance(record.msg, str) and record.msg.startswith(BYTES_OF_REQUESTS):
            return
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - what it holds does not fit its words
            text = str(record.msg)
        more: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        if record.name == "asyncio":  # a task or a callback failed: what it shows holds arguments
            text = re.split(r"[(\n]", text, maxsplit=1)[0]
            error = record.exc_info[1] if record.exc_info else None
            more = {} if error is None else {"fault": fault(error)}
        structlog.get_logger().log(record.levelno, text, logger=record.name, **more)


@contextmanager
def _standard_error_logged(real: int) -> Iterator[None]:
    """Turns what is written to standard error into lines of the log.

    A full pipe refuses what is written, and never holds up who writes: they may hold a lock that
    the reader's thread needs.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # more than this user may have
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(write, False)
    os.dup2(write, STANDARD_ERROR)
    os.close(write)
    reader = threading.Thread(target=_log_what_is_read, args=(read,), name="stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os.dup2(real, STANDARD_ERROR)  # the pipe ends, unless a child still has it
        reader.join(FLUSH_SECONDS)


def _log_what_is_read(
    descriptor: int, lost: Lost = LOST, clock: Callable[[], float] = time.monotonic
) -> None:
    """Logs what comes, some lines a second: gRPC's core has one for each malformed request."""
    log = structlog.get_logger()
    second = count = 0
    with os.fdopen(descriptor, "rb") as written:
        while line := written.readline(MAX_RAW_BYTES):
            if not (text := line.decode(errors="backslashreplace").strip()):
                continue
            now = int(clock())
            second, count = now, count + 1 if now == second else 1
            if count > RAW_LINES_PER_SECOND:
                lost.raw += 1
            else:
                log.warning(text, logger="stderr")
