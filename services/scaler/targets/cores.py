"""Which processor cores and GPUs replicas on this host may be given."""

import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


_GPU = re.compile(r"nvidia([0-9]+)")


def available_gpus(devices: Path = Path("/dev")) -> frozenset[int]:
    """Indices of NVIDIA's GPUs that this process can reach: those with a device file."""
    found = (_GPU.fullmatch(path.name) for path in devices.glob("nvidia*"))
    return frozenset(int(match[1]) for match in found if match)
