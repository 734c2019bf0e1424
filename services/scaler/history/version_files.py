"""The folder of the scaling file's versions: what is written there, and how it stays whole.

``versions.jsonl`` has a line for each version, ``<hash>.yaml`` the files, ``applying.json`` what is
announced. Leaves to `versions` what a line says, and when it is written. All of it reads or writes
the disk: to be called in a thread while the scaler serves.
"""

import contextlib
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from services.common.files import write_whole

LINES, ANNOUNCED = "versions.jsonl", "applying.json"


class VersionFiles:
    """The files in a folder of their own; one process at a time writes them.

    Attributes:
        lines, announced: where they are.
    """

    def __init__(self, folder: Path) -> None:
        """Touches nothing."""
        self._folder = folder
        self.lines = folder / LINES
        self.announced = folder / ANNOUNCED
        self._one_changes = threading.Lock()

    def read_lines(self) -> list[bytes]:
        """The line of each version, in the order in which they were written.

        Raises:
            OSError: the folder cannot be read.
        """
        return self.lines.read_bytes().splitlines() if self.lines.exists() else []

    def path_of(self, digest: str) -> Path:
        """Where the file of this hash is."""
        return self._folder / f"{digest}.yaml"

    def announce(self, said: bytes) -> None:
        """Writes what is about to be done.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self.announced, said)

    def withdraw(self) -> None:
        """Removes what was announced; where that is refused, it stays."""
        with contextlib.suppress(OSError):
            self.announced.unlink(missing_ok=True)

    def keep(self, digest: str, content: bytes) -> None:
        """Has the file of this hash on the disk whole.

        Raises:
            OSError: the disk refuses; trying again is harmless.
        """
        path = self.path_of(digest)
        with self._one_changes:
            try:
                there = path.read_bytes() == content
            except FileNotFoundError:
                there = False
            if not there:
                write_whole(path, content)

    def add(
        self, digest: str, content: bytes, line: bytes, *, earlier: Callable[[], bytes], most: int
    ) -> bool:
        """Writes a version: its file, then its line.

        Args:
            digest: hash of the file.
            content: the file.
            line: what is to be kept of the version.
            earlier: the lines before it that are to stay, for where there are none or too many.
            most: lines that are kept.

        Returns:
            whether lines were dropped.

        Raises:
            OSError: the disk refuses; trying again is harmless.
        """
        self.keep(digest, content)
        before = self.lines.read_bytes() if self.lines.exists() else earlier()
        kept = before.splitlines(keepends=True)
        if len(kept) >= most:
            kept = earlier().splitlines(keepends=True)
        if kept and not kept[-1].endswith(b"\n"):
            kept[-1] += b"\n"
        # Whole, not added to: there are few versions, and none may be half there.
        write_whole(self.lines, b"".join([*kept, line]))
        return len(kept) < before.count(b"\n")

    def keep_only(self, digests: Callable[[], Collection[str]]) -> None:
        """Removes files of other hashes than these now, which no version on record has."""
        with self._one_changes:
            for path in self._others(digests()):
                path.unlink(missing_ok=True)

    def others(self, digests: Collection[str], most: int) -> dict[str, bytes]:
        """The newest files of other hashes than these, by what is said to be their hash.

        The oldest of them comes first. One that cannot be read is left out.
        """
        found: list[tuple[float, str, bytes]] = []
        for path in self._others(digests):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path.stem, path.read_bytes()))
                found = sorted(found)[-most:]
        return {digest: content for _, digest, content in found}

    def _others(self, digests: Collection[str]) -> list[Path]:
        return [path for path in self._folder.glob("*.yaml") if path.stem not in digests]

    def mend(self, digest: str, content: bytes, lines: Callable[[], bytes]) -> bool:
        """Writes the file of this hash and the lines where they are gone; whether any was.

        Raises:
            OSError: the disk refuses; trying again is harmless.
        """
        whole = {self.path_of(digest): lambda: content, self.lines: lines}
        gone = [path for path in whole if not path.exists()]
        for path in gone:
            write_whole(path, whole[path]())
        return bool(gone)
