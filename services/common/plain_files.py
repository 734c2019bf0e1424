"""Reads what operators name: a file, and nothing that keeps whoever reads it waiting."""

import errno
import os
import stat
from pathlib import Path

MAX_SECRET_BYTES = 2**20
"""Of a key, a password or certificates."""


def read_plain(path: Path, max_bytes: int) -> bytes:
    """Reads a file, and waits for nobody: what is no plain file may never end, or never begin.

    Raises:
        OSError: it cannot be read, is no plain file or is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no plain file", str(path))
        if found.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"is larger than {max_bytes} bytes", str(path))
        return file.read(max_bytes)
