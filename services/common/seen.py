"""Files as they were when they were read, and whether any of them has changed since."""

import contextlib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.common.descriptors import is_own_want
from services.common.plain_files import is_being_written, read_plain

YOUNG_SECONDS = 2.0
"""A file that was so young when it was read may have been written again within one tick of its
file system's clock, unseen by its times: it is compared by its contents until it is older."""

MAX_DIGESTED = 64 * 2**20
"""Bytes of a file that is compared by its contents; larger ones are by their times alone."""

MAX_ENTRIES = 100
"""Entries of a folder that are looked at."""

Stamp = tuple[int, ...]
_NEVER: Stamp = (0,)
"""Of no file: one that could be read if we lacked nothing is tried again at each look."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One file, without a stamp if there was none; when it was read, by the wall clock."""

    stamp: Stamp | None
    digest: bytes = b""
    at: float = math.inf

    @property
    def young(self) -> bool:
        return self.stamp is not None and self.stamp[0] / 1e9 > self.at - YOUNG_SECONDS


class SeenFiles:
    """What was read; state of one reading."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since 1970."""
        self._wall = wall
        self._seen: dict[Path, _Seen] = {}

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Reads a file and notes how it was.

        Raises:
            OSError: it cannot be read, is no plain file or is too large, which is noted too.
        """
        # The stamp comes first: what is written from here on looks like a change.
        stamp, now = _stamp(path), self._wall()
        self._seen[path] = _Seen(stamp)
        try:
            data = read_plain(path, max_bytes)
        except OSError as error:
            if is_own_want(error):
                self._seen[path] = _Seen(_NEVER)
            raise
        self._seen[path] = _Seen(stamp, hashlib.sha256(data).digest(), now)
        return data

    @property
    def hindered(self) -> bool:
        """Whether one could not be read because we lacked something ourselves."""
        return any(was.stamp == _NEVER for was in self._seen.values())

    @property
    def being_written(self) -> bool:
        """Whether somebody has one of them open to write it, as far as can be told."""
        return any(is_being_written(path) for path in self._seen)

    def note(self, path: Path) -> None:
        """Notes how a file is, or a folder and what is in it, without reading."""
        found = [path]
        with contextlib.suppress(OSError):  # it is no folder, or nobody may look into it
            found += sorted(path.iterdir())[:MAX_ENTRIES]
        for entry in found:
            if entry not in self._seen:
                self._seen[entry] = _Seen(_stamp(entry))

    def changed(self) -> bool:
        """Whether any of them is not as it was, is there now, or has gone."""
        now = self._wall()
        for path, was in self._seen.items():
            if _stamp(path) != was.stamp:
                return True
            if was.young:
                try:
                    digest = hashlib.sha256(read_plain(path, MAX_DIGESTED)).digest()
                except OSError:  # that it may not be read any more, its stamp tells
                    continue
                if digest != was.digest:
                    return True
                self._seen[path] = _Seen(was.stamp, was.digest, now)
        return False


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
