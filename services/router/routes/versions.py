"""Keeps each version of the policies that came in force, so that what decided can be looked up.

``versions/<version>/`` holds the files whole, as they were: copying them back beside each other
puts them in force again. ``history.jsonl`` has a line for each time a version came in force. A
folder on one machine; several routers may share it.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        self, version: str, contents: Mapping[str, bytes], *, source: str, now: dt.datetime
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
            self._write(place, contents)
        stamp = now.timestamp()
        os.utime(place, (stamp, stamp))
        if self._last_version() != version:
            self._note({"time": now.isoformat(), "version": version, "source": source})
        self._prune(version)

    def _write(self, place: Path, contents: Mapping[str, bytes]) -> None:
        """Writes a version's folder: whole, or not at all."""
        unfinished = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for name, data in contents.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                unfinished.rename(place)
            except OSError:
                if not place.is_dir():  # else another router was quicker
                    raise
            _sync(self._versions)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _last_version(self) -> str:
        """The version that came in force last; empty where nobody knows."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            lines = self._history.read_bytes().splitlines()
            return str(json.loads(lines[-1]).get("version", "")) if lines else ""
        return ""

    def _note(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the history, on one of its own even where a crash tore the last one."""
        old = self._history.read_bytes() if self._history.exists() else b""
        lines = old.splitlines(keepends=True)
        if len(lines) >= MAX_LINES:
            _replace(self._history, b"".join(lines[MAX_LINES // 2 :]))
        torn = bool(old) and not old.endswith(b"\n")
        with self._history.open("ab") as file:
            file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _prune(self, current: str) -> None:
        """Drops versions beyond the most, and what routers that crashed left unfinished."""
        found: list[tuple[float, Path]] = []
        for one in self._versions.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another router was quicker
                found.append((one.stat().st_mtime, one))
        whole = [one for one in found if not one[1].name.startswith(".")]
        whole = sorted(one for one in whole if one[1].name != current)
        unfinished = [one for one in found if one[1].name.startswith(".")]
        newest = (self._versions / current).stat().st_mtime
        left_over = [one for one in unfinished if one[0] < newest - LEFT_OVER_SECONDS]
        for _, old in (*whole[: max(0, len(whole) + 1 - MAX_VERSIONS)], *left_over):
            shutil.rmtree(old, ignore_errors=True)


def _replace(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
