"""How far a process has come with its ledger, kept beside it, so that a kill leaves no silent gap.

Each process holds a mark of its own in the ledger's folder, and takes it away once all it has
answered is written. A mark that is found without its process is a gap: the next router that starts
makes a record of it, which stays in the ledger.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from pennyweight.ledger.schema import GapRecord, time_text

log = structlog.get_logger()

PREFIX, SUFFIX = ".", ".mark"
SIZE = 128
"""Bytes of a mark: written in the place of the one before, so it needs no more of a full disk."""


class Mark:
    """The mark of this process; its lock says that the process lives."""

    def __init__(self, folder: Path, name: str) -> None:
        """Puts it there.

        Raises:
            OSError: it cannot be written.
        """
        self._path = folder / f"{PREFIX}{name}{SUFFIX}"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def put(self, *, answered: int, written: int, wall: float) -> None:
        """Says how many requests were answered so far, and how many of them are written.

        Raises:
            OSError: the disk refuses; the mark before it stands.
        """
        text = json.dumps({"answered": answered, "written": written, "time": wall})
        os.pwrite(self._descriptor, text.ljust(SIZE).encode(), 0)

    def close(self, *, complete: bool) -> None:
        """Lets go of it; where the ledger is complete nothing stays behind."""
        if complete:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A mark whose process is gone.

    Attributes:
        path: of the mark, to be removed once the gap is on record.
        record: of the gap.
    """

    path: Path
    record: GapRecord


def abandoned(folder: Path, wall: float) -> Iterator[Abandoned]:
    """The gaps that killed processes have left in a folder; `wall` is the time of the finding.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:  # another router has just put it on record
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = _read(os.pread(descriptor, SIZE, 0))
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(descriptor)
        answered, written, time = last
        yield Abandoned(
            path,
            GapRecord(
                time=time_text(wall),
                process=path.name.removeprefix(PREFIX).removesuffix(SUFFIX),
                last_seen=time_text(time) if time else "",
                requests=answered,
                missing=max(0, answered - written),
            ),
        )


def _read(data: bytes) -> tuple[int, int, float]:
    """What a mark says; zeros for one that says nothing yet, or is damaged."""
    try:
        said = json.loads(data)
        return int(said["answered"]), int(said["written"]), float(said["time"])
    except (ValueError, KeyError, TypeError):
        return 0, 0, 0.0
