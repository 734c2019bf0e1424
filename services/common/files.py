"""Files that are whole or not there, and folders that belong to one process.

What is written here is on the disk when the call returns, and no reader ever sees half of it, not
even after the machine has stopped in between.
"""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from services.common.config import ConfigError

T = TypeVar("T")

LOCK = "lock"

_LIBC = ctypes.CDLL(None, use_errno=True)
_HERE, _EXCHANGE = -100, 2
"""Of renameat2: names are from the working folder; both stay."""

APPEND_BYTES = 1024 * 1024
"""About as much is added to a file at a time: a disk that refuses it costs no more than that."""


def folder_of(path: Path) -> Path:
    """The folder that a file is in, as it is named, absolute and without ``..``.

    Links are not followed: a file of a Kubernetes ConfigMap, whose end lies elsewhere, belongs to
    the folder that it is mounted in.
    """
    return Path(os.path.abspath(path)).parent  # noqa: PTH100 - Path keeps its `..`


def above(path: Path) -> Path:
    """The folder above `folder_of` a file: where relative paths in policy files start."""
    return folder_of(path).parent


def resolved(path: Path) -> Path:
    """Where a path leads, absolute; one whose links lead to themselves leads nowhere and stays."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises RuntimeError there


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name: it was not moved, removed or replaced.

    Raises:
        OSError: nobody knows.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file in the place of the one that was there; its folder is made where missing.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    with whole_file(path) as unfinished:
        unfinished.write_bytes(data)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its place when the block ends well, and else is dropped.

    Its folder is made where missing.

    Raises:
        OSError: it could not be put there; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_beside(path)
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def exchanged_file(path: Path, data: bytes) -> Iterator[Path | None]:
    """Puts a file in the place of one, in one step, and says where that is until the block ends.

    So nothing that is written there meanwhile goes unseen. Where the block fails, what was there is
    put back; else it is dropped. The mode stays.

    Yields:
        Where the file of before is now; None: there was none.

    Raises:
        FileExistsError: there was none, and there is one now.
        OSError: it could not be put there; what was there before still is.
    """
    unfinished = _unfinished_beside(path)
    try:
        unfinished.write_bytes(data)
        there = path.exists()
        if there:
            shutil.copymode(path, unfinished)
        _sync(unfinished)
        own = unfinished.stat()
        if not there:
            os.link(unfinished, path)  # which takes nobody's place
            yield None
        else:
            exchange(unfinished, path)
            try:
                yield unfinished
            except BaseException:
                exchange(unfinished, path)
                if not os.path.samestat(unfinished.stat(), own):  # somebody was quicker once more
                    exchange(unfinished, path)
                raise
    finally:
        unfinished.unlink(missing_ok=True)
    _sync(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Has two files take each other's place, in one step where the file system can.

    Raises:
        OSError: they are where they were.
    """
    names = os.fsencode(one), os.fsencode(other)
    if not _LIBC.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE):
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(other))
    spare = _unfinished_beside(one)
    try:
        os.link(other, spare)
        one.replace(other)
        spare.replace(one)
    finally:
        spare.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its place when the block ends well, and else is dropped.

    Where another process put one there meanwhile, that one stays: folders of one name hold the
    same.

    Raises:
        OSError: it could not be put there.
    """
    unfinished = _unfinished_beside(path)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for folder, _, names in os.walk(unfinished):
            for name in (*names, "."):
                _sync(Path(folder, name))
        try:
            unfinished.rename(path)
        except OSError:
            if not path.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _sync(path.parent)


def first_part(lines: Iterable[T], size: Callable[[T], int]) -> list[T]:
    """The first of some lines: `APPEND_BYTES` of them, or one that is longer."""
    part: list[T] = []
    total = 0
    for line in lines:
        total += size(line)
        if part and total > APPEND_BYTES:
            break
        part.append(line)
    return part


def append_whole(descriptor: int, data: bytes) -> None:
    """Adds data to a file that is open for adding: all of it, on the disk, or none.

    Raises:
        OSError: it could not be added; the file is as it was.
    """
    size, rest = os.fstat(descriptor).st_size, memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, size)
        raise


def _unfinished_beside(path: Path) -> Path:
    """A name for what will be renamed to `path`: hidden, and nobody else's in any container."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
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
            self._path = folder / LOCK
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
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

    @property
    def in_place(self) -> bool:
        """Whether others who come for the folder meet this lock: it was not moved or removed.

        Raises:
            OSError: nobody knows.
        """
        return is_at(self._path, self._descriptor)

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._descriptor)
