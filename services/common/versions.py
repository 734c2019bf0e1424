"""Keeps each version of the policies that came in force, so that what decided can be looked up.

``versions/<version>/`` holds the files whole, as they were: copying them back beside each other
puts them in force again. ``history.jsonl`` has a line for each time a version came in force: when,
and from where. A folder on one machine; several processes may share it. What is in the files is for
those who keep them to know.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from services.common.files import whole_folder, write_whole

MAX_VERSIONS = 50
MAX_LINES = 10_000
"""Lines of the history, about; beyond it the older half is dropped."""

LEFT_OVER_SECONDS = 3600.0
"""Nobody writes at a version for so long."""


class PolicyStore:
    """The version store on a local disk; its folder is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = folder / "versions"
        self._history = folder / "history.jsonl"

    def keep(
        self,
        version: str,
        contents: Mapping[str, bytes],
        *,
        source: str,
        now: dt.datetime,
    ) -> None:
        """Keeps a version that comes in force, and drops the one that was in force longest ago.

        Nothing is written where the history's last line already names the version.

        Args:
            version: of the policies.
            contents: its files by their path in the version's folder.
            source: where it came from: `start` or `files`.
            now: when it came.

        Raises:
            OSError: it could not be kept; trying again is harmless.
        """
        place = self._versions / version
        if not place.is_dir():
            with whole_folder(place) as unfinished:
                for name, data in contents.items():
                    path = unfinished / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
        stamp = now.timestamp()
        os.utime(place, (stamp, stamp))
        if self._last_version() != version:
            self._add_line({"time": now.isoformat(), "version": version, "source": source})
        self._prune(version)

    def _last_version(self) -> str:
        """The version that came in force last; empty where nobody knows."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            lines = self._history.read_bytes().splitlines()
            return str(json.loads(lines[-1]).get("version", "")) if lines else ""
        return ""

    def _add_line(self, line: Mapping[str, str]) -> None:
        """Adds a line to the history, on one of its own even where a crash tore the last one."""
        old = self._history.read_bytes() if self._history.exists() else b""
        lines = old.splitlines(keepends=True)
        if len(lines) >= MAX_LINES:
            write_whole(self._history, b"".join(lines[MAX_LINES // 2 :]))
        torn = bool(old) and not old.endswith(b"\n")
        with self._history.open("ab") as file:
            file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _prune(self, current: str) -> None:
        """Drops versions beyond the most, and what processes that crashed left unfinished."""
        whole: list[tuple[float, Path]] = []
        newest = (self._versions / current).stat().st_mtime
        dropped: list[Path] = []
        for folder in self._versions.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                changed_at = folder.stat().st_mtime
                if not folder.name.startswith("."):
                    whole.append((changed_at, folder))
                elif changed_at < newest - LEFT_OVER_SECONDS:
                    dropped.append(folder)
        others = sorted(kept for kept in whole if kept[1].name != current)
        dropped += [folder for _, folder in others[: max(0, len(others) + 1 - MAX_VERSIONS)]]
        for folder in dropped:
            shutil.rmtree(folder, ignore_errors=True)
