"""Writes the scaling file, or says why it cannot be written."""

import errno
import os
import shutil
from pathlib import Path

from services.common.errors import NotNow, Unavailable
from services.common.files import whole_file

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


def write(path: Path, content: bytes) -> None:
    """Puts the content in the place of the file, whole or not at all; its mode stays.

    Raises:
        NotNow: the file is read-only.
        Unavailable: the disk refuses.
    """
    if why := read_only(path):
        raise NotNow(why, reason="POLICY_READ_ONLY")
    try:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
            if path.exists():
                shutil.copymode(path, unfinished)
    except OSError as error:
        if error.errno in _READ_ONLY:
            why = f"{path} is read-only here: {ELSEWHERE}"
            raise NotNow(why, reason="POLICY_READ_ONLY") from error
        message = f"{path} cannot be written: {error.strerror}; what was in force stays"
        raise Unavailable(message, reason="POLICY_UNWRITTEN") from error
