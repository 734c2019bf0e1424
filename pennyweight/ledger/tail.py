"""Follows a ledger that grows; needs nothing but the standard library.

Has no use for compressed files, which do not grow.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from pennyweight.ledger.lines import FILES, Unreadable, record_of


class Tail:
    """Follows a folder. State: how far each file is read, and what in it was no record."""

    def __init__(self, folder: Path) -> None:
        """Leaves out what is there already."""
        self._folder = folder
        self._read = {path: path.stat().st_size for path in self._files()}
        self._lines = Counter[str]()
        self._refused: dict[str, str] = {}

    @property
    def unreadable(self) -> Unreadable:
        """Lines that were left out so far, and files that cannot be read now."""
        return Unreadable(dict(self._lines), dict(self._refused))

    def read(self) -> list[dict[str, Any]]:
        """The records that have come; a line still being written waits for the next time."""
        found = []
        self._refused.clear()
        for path in self._files():
            try:
                lines = self._new_lines(path)
            except OSError as error:
                self._refused[path.name] = error.strerror or str(error)
                continue
            for line in lines:
                record = record_of(line)
                if record is not None:
                    found.append(record)
                elif line.strip():
                    self._lines[path.name] += 1
        return found

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._folder.glob(FILES)) if path.is_file()]

    def _new_lines(self, path: Path) -> list[bytes]:
        start = self._read.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read[path] = start + len(whole) + len(newline)
        return whole.split(b"\n")
