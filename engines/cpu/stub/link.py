"""The stub's hold on its engine process: start it, reach it, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.cpu.messages import Load, Quit, Step, unpack_step
from engines.cpu.settings import Settings
from engines.cpu.transport import ClosedError, Transport

_ROOT = Path(__file__).resolve().parents[3]
_QUIT_SECONDS = 2.0  # from being asked to quit to being killed
# From its end of the socket closing to its exit status: a moment, and callers wait for it.
_EXIT_SECONDS = 0.005
_OVERDUE_SECONDS = 0.1  # the same where it ended in the middle of its work
_NOTE_BYTES = 1 << 16


class Link:
    """A running engine process. It is loading until it says `Ready`."""

    def __init__(self, settings: Settings, folder: Path, shared_memory: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        self._note = os.memfd_create("pennyweight-step")
        with theirs:
            order = [sys.executable, "-m", "engines.cpu.process.main", str(theirs.fileno())]
            order += [str(self._note), str(os.getpid()), str(os.getppid()), *shared_memory]
            self._process = subprocess.Popen(  # noqa: S603
                order,
                cwd=_ROOT,
                pass_fds=[theirs.fileno(), self._note],
                stdin=subprocess.DEVNULL,
            )
        self.transport = Transport(ours)
        # A process that is gone already shows as a closed transport when it is read.
        with contextlib.suppress(ClosedError):
            self.transport.send(Load(settings, folder))

    def quit(self) -> None:
        """End the process: ask, wait a little, then kill. Safe to call again."""
        with contextlib.suppress(ClosedError, OSError):
            self.transport.send(Quit())
        try:
            self._process.wait(_QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def last_step(self) -> Step:
        """Return the step in which a process that is gone ended: not after `reap` or `quit`."""
        return unpack_step(os.pread(self._note, _NOTE_BYTES, 0))

    def overdue(self) -> bool:
        """Whether a process that is gone was ended over a step that took too long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_OVERDUE_SECONDS) == -signal.SIGPROF
        return False

    def reap(self) -> str:
        """Make sure that the process is gone; return how it ended."""
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._close()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def _close(self) -> None:
        self.transport.close()
        note, self._note = self._note, -1
        if note >= 0:
            os.close(note)
