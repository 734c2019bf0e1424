"""Files that are whole or not there, and folders that belong to one process.

What is written here is on the disk when the call returns, and no reader ever sees half of it, not
even after the machine has stopped in between.
"""

import fcntl
import os
import secrets
from pathlib import Path

from services.common.config import ConfigError

LOCK = "lock"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file in the place of the one that was there; its folder is made where missing.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(path)
    try:
        write_new(unfinished, data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_new(path: Path, data: bytes) -> None:
    """Writes a file that is not there yet. A name in its folder is safe after `sync_folder`.

    Raises:
        OSError: it could not be written, or is there.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def unfinished_beside(path: Path) -> Path:
    """A name for what will be renamed to `path`: hidden, and nobody else's in any container."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def sync_folder(folder: Path) -> None:
    """Has the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderTaken(ConfigError):
    """A folder belongs to another process."""


class FolderLock:
    """A folder that is this process's alone until it lets go, or dies."""

    def __init__(self, folder: Path, owner: str) -> None:
        """Takes the folder, which is made where it is missing.

        Args:
            folder: to take.
            owner: what its processes are, for who comes second: ``router``.

        Raises:
            FolderTaken: another process has it.
            ConfigError: it cannot be used.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError("environment", [f"state folder {folder}: {error}"]) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise ConfigError("environment", [f"state folder {folder}: {error}"]) from error
            why = f"state folder {folder}: another {owner} uses it"
            raise FolderTaken("environment", [why]) from error

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._descriptor)
