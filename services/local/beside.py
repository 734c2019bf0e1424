"""Output that holds nothing up: what nobody reads, or nobody can read any more, ends no stack."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TextIO, cast

from rich.console import Console

from pennyweight.command.show import console
from services.common.log_lines import LogLines, Lost

MAX_BYTES = 256 * 1024
"""What may wait for its reader; what comes beyond it is dropped."""

LAST_SECONDS = 2.0
"""How long the last words may take to be read."""


class _Beside(io.TextIOBase):
    """Stands for a stream; a thread writes."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lines = LogLines(stream.fileno(), Lost(), MAX_BYTES)

    def write(self, text: str) -> int:
        self.lines.write(text.encode(errors="replace"))
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def console_beside(stream: TextIO) -> Iterator[Console]:
    """A console on a stream that blocks nobody and never fails; at the end the rest is written."""
    stream.flush()
    beside = _Beside(stream)
    try:
        yield console(file=cast("IO[str]", beside))
    finally:
        beside.lines.close(LAST_SECONDS)
