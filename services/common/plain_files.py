"""Reads what operators name: a file, and nothing that keeps whoever reads it waiting.

And says whether somebody is still writing it.
"""

import errno
import fcntl
import os
import signal
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


def is_being_written(path: Path) -> bool:
    """Whether any process of this machine has the file open to write it.

    False also where nobody can say: the file is of another user, or its file system knows no
    leases.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A lease to read is given where nobody writes. Who comes to write this very moment waits
        # until it is given back, and we are told by a signal that does nothing: not by SIGIO.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
