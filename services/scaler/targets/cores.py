"""Which processor cores replicas on this host may be given."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

MOST = 4096
"""Cores that are asked for."""


def available_cores() -> frozenset[int]:
    """Cores that a process of ours may run on: the machine's, less what a container leaves out.

    What this process itself was pinned to does not count, as its replicas need not stay there.
    """
    with ThreadPoolExecutor(1) as own:  # the thread is pinned and goes; nobody else is touched
        return own.submit(_widest).result()


def _widest() -> frozenset[int]:
    with contextlib.suppress(OSError):  # forbidden where system calls are filtered
        os.sched_setaffinity(0, range(MOST))  # the kernel keeps those that are allowed
    return frozenset(os.sched_getaffinity(0))
