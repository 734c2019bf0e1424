"""Writes the scaling file, or says why it cannot be written."""

import errno
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from services.common.config import MAX_BYTES
from services.common.errors import NotNow, Outrun, Unavailable
from services.common.files import exchanged_file
from services.common.plain_files import is_being_written, read_plain
from services.scaler.history.versions import hash_of

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV)
"""A file that is mounted by itself cannot be replaced: EBUSY."""

ELSEWHERE = (
    "change it where it comes from, such as the repository that it is deployed from, and have "
    "`pennyweight scaler check` and `plan` try it there"
)


def read_only(path: Path) -> str:
    """Why the file cannot be changed here, in one sentence; empty: it seems that it can."""
    if path.is_symlink():
        return f"{path} is a link, as a mounted ConfigMap is: {ELSEWHERE}"
    there = path.exists()  # one that was removed can be written again
    if (there and not os.access(path, os.W_OK)) or not os.access(path.parent, os.W_OK):
        return f"{path} is read-only here: {ELSEWHERE}"
    return ""


def write(
    path: Path,
    content: bytes,
    expected: Collection[str] | None,
    keep: Callable[[bytes], None],
) -> bytes:
    """Puts the content in the place of the file, whole or not at all; its mode stays.

    Args:
        path: of the file.
        content: to be there.
        expected: hashes of what it may be put in the place of; None: of whatever is there whole.
        keep: has what is written over on the disk elsewhere before it goes, whatever ends us.

    Returns:
        What was there, read after it was replaced; empty: there was no file.

    Raises:
        NotNow: the file is read-only.
        Outrun: something else is there, or is being written.
        Unavailable: the disk refuses, or what is there cannot be read or kept.
    """

    def check(found: bytes, at: Path) -> None:
        if is_being_written(at) or (expected is not None and hash_of(found) not in expected):
            raise _outrun(path)

    if why := read_only(path):
        raise NotNow(why, reason="POLICY_READ_ONLY")
    seen = None
    try:
        with suppress(FileNotFoundError):
            seen = read_plain(path, MAX_BYTES)
        if seen is not None:
            check(seen, path)
            keep(seen)
        with exchanged_file(path, content) as before:
            if before is None:
                return b""
            found = read_plain(before, MAX_BYTES)
            check(found, before)
            if found != seen:  # somebody was quicker
                keep(found)
            return found
    except FileExistsError as error:
        raise _outrun(path) from error
    except OSError as error:
        if error.errno in _READ_ONLY:
            why = f"{path} is read-only here: {ELSEWHERE}"
            raise NotNow(why, reason="POLICY_READ_ONLY") from error
        message = f"{path} cannot be written: {error.strerror}; what was in force stays"
        raise Unavailable(message, reason="POLICY_UNWRITTEN") from error


def _outrun(path: Path) -> Outrun:
    return Outrun(
        f"somebody else writes {path} this very moment; look at it first, then try again",
        reason="POLICY_CHANGED",
    )
