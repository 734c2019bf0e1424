"""Processes of this host: who they are, that one has died, that none of a family is left.

A process id alone proves nothing, since ids are used again. A process is recognised by its id, the
tick it was started at and its command line; a replica's whole family, also members that left its
process group, by a variable in the environment they inherited. Linux only.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from services.common.descriptors import is_own_want

KILL_SECONDS = 5.0
"""How long `kill_family` goes on killing."""

_PROC = Path("/proc")


def heed(error: OSError) -> None:
    """Takes an error of reading below ``/proc`` as a sign that the process is gone, or not ours.

    Raises:
        OSError: it is no such sign.
    """
    if is_own_want(error):
        raise error


def started_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since the machine did. None: it is not alive.

    Raises:
        OSError: it cannot be found out.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError as error:
        heed(error)
        return None
    # "pid (name) state ppid ...": the name may hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid: int) -> tuple[str, ...]:
    """Its arguments; none if it is gone or a zombie.

    Raises:
        OSError: it cannot be found out.
    """
    try:
        return tuple(os.fsdecode((_PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1])
    except OSError as error:
        heed(error)
        return ()


def family(variable: str, value: str) -> Iterator[int]:
    """The living processes that were started with `variable=value` in their environment.

    Raises:
        OSError: it cannot be found out.
    """
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and _inherited(int(entry.name), variable, value):
            yield int(entry.name)


async def kill_family(variable: str, value: str) -> bool:
    """Kills a family until nobody is left; False if somebody still is after `KILL_SECONDS`.

    Raises:
        OSError: it cannot be found out who is left.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + KILL_SECONDS
    killed: set[int] = set()
    while left := await asyncio.to_thread(lambda: list(family(variable, value))):
        if loop.time() >= until:
            break
        for pid in left:
            _kill(pid, variable, value)
        killed.update(left)
        await asyncio.sleep(0.02)
    for pid in killed:
        reap(pid)
    return not left


def reap(pid: int) -> None:
    """Collects a dead child. Orphans become ours where we are process 1, as in a container."""
    with contextlib.suppress(ChildProcessError):  # somebody else's
        os.waitpid(pid, os.WNOHANG)


class Watch:
    """Tells at once when a process dies. Close it when no longer needed.

    Attributes:
        pid: the process.
        dead: set when it has died.
    """

    def __init__(self, pid: int, descriptor: int, on_death: Callable[[], None]) -> None:
        self.pid = pid
        self.dead = asyncio.Event()
        self._descriptor: int | None = descriptor
        self._on_death: Callable[[], None] | None = on_death
        asyncio.get_running_loop().add_reader(descriptor, self._died)

    @classmethod
    def open(cls, pid: int, ticks: int, on_death: Callable[[], None]) -> Self | None:
        """Watches the process that was started at `ticks`. None: it is not alive.

        Raises:
            OSError: it cannot be watched.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            if started_ticks(pid) == ticks:
                return cls(pid, descriptor, on_death)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def expect(self) -> None:
        """From now on its death is no news."""
        self._on_death = None

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, if it is still there."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Stops watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _died(self) -> None:
        self.close()
        self.dead.set()
        if self._on_death is not None:
            self._on_death()


def _inherited(pid: int, variable: str, value: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError as error:
        heed(error)
        return False  # gone, or not ours to read
    return f"{variable}={value}".encode() in environment.split(b"\0")


def _kill(pid: int, variable: str, value: str) -> None:
    """Kills the process if it is still the one that was found: the descriptor pins it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _inherited(pid, variable, value):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
