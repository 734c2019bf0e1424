"""How far a process has come with its ledger, kept beside it, so that a kill leaves no silent gap.

Each process holds a mark of its own in the ledger's folder, and takes it away once all it has
answered is written. A mark that is found without its process is a gap: the next router that starts
makes a record of it, which stays in the ledger. Until then it holds the mark as its own, so that
of several routers one takes it up, and another may once that one has ended without writing it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from pennyweight.ledger.schema import GapRecord, time_text
from services.common.files import is_at

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
        unlocked = self._path.with_suffix(".new")  # nobody may take it for abandoned meanwhile
        self._descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(self._path)
        except OSError:
            os.close(self._descriptor)
            raise

    def put(self, *, answered: int, written: int, wall: float) -> None:
        """Says how many requests were answered so far, and how many of them are written.

        Raises:
            OSError: the disk refuses; the mark before it stands.
        """
        text = json.dumps({"answered": answered, "written": written, "time": wall})
        os.pwrite(self._descriptor, text.ljust(SIZE).encode(), 0)

    @property
    def in_place(self) -> bool:
        """Whether it still is where the next router looks for it, and was not moved or removed.

        Raises:
            OSError: nobody knows.
        """
        return is_at(self._path, self._descriptor)

    def close(self, *, complete: bool) -> None:
        """Lets go of it; where the ledger is complete nothing stays behind.

        Where it was moved away meanwhile, what it is to whoever finds it there is no gap.
        """
        if complete:
            with contextlib.suppress(OSError):
                self.put(answered=0, written=0, wall=0.0)
                if self.in_place:
                    self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A mark whose process is gone; it is held until it is removed or let go.

    Attributes:
        record: of the gap.
        is_gap: anything is missing, or may be.
    """

    record: GapRecord
    is_gap: bool
    _path: Path
    _descriptor: int

    def remove(self) -> None:
        """Takes the mark away: the gap is on record, or there is none."""
        with contextlib.suppress(OSError):  # else the next router to start does it
            self._path.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        """Leaves it to the next router to start."""
        os.close(self._descriptor)


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
            if not os.fstat(descriptor).st_nlink:
                raise BlockingIOError  # it was put on record since it was opened
            said = _read(os.pread(descriptor, SIZE, 0))
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):  # its process lives, or another has taken it up
                continue
            raise
        answered, written, time = said or (0, 0, 0.0)
        yield Abandoned(
            GapRecord(
                time=time_text(wall),
                process=path.name.removeprefix(PREFIX).removesuffix(SUFFIX),
                last_seen=time_text(time) if time else "",
                requests=answered,
                missing=max(0, answered - written),
            ),
            said is None or answered > 0,
            path,
            descriptor,
        )


def _read(data: bytes) -> tuple[int, int, float] | None:
    """What a mark says; None for one that is damaged, or that a full disk has kept empty.

    There is none before there was something to write, so its process had answered some requests.
    """
    try:
        said = json.loads(data)
        return int(said["answered"]), int(said["written"]), float(said["time"])
    except (ValueError, KeyError, TypeError):
        return None
