"""File descriptors: how many there may be, how many go to connections, when we lack anything."""

import errno
import resource

_OWN_WANT = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,  # no more processes or threads
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
)


def is_own_want(error: OSError) -> bool:
    """Whether we lack descriptors, memory, processes or disk: it says nothing of what we tried."""
    return error.errno in _OWN_WANT


def raise_limit() -> None:
    """Raises the limit of this process, and of those it starts, to the most that it may set."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections(wanted: int) -> int:
    """How many connections may be taken: those wanted, and at most half of all descriptors.

    The other half is for files, replicas and connections of our own, so that a service to which
    somebody opens as many as it takes goes on with its work.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 2))
