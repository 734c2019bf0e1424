"""What ends the engine process over a step that takes far too long.

A step that has begun cannot be ended, and holds the interpreter's lock: so the kernel does it, by a
timer of processor time, which runs neither while the machine has other work nor while it stands
still. Which guides are to blame is noted beforehand in memory that the stub reads afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection

from engines.cpu.messages import pack_step


class StepAlarm:
    """Gives a step so many seconds beyond what it usually takes, for each of `threads`.

    `note` is the descriptor of the stub's memory.
    """

    def __init__(self, note: int, seconds: float, threads: int) -> None:
        self._note = note
        self._seconds = seconds
        self._threads = threads
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def set(self, keys: Collection[int], usual_ns: int, *, alone: bool) -> None:
        """A step begins: note these, and start the timer."""
        os.pwrite(self._note, pack_step(keys, alone=alone), 0)
        signal.setitimer(signal.ITIMER_PROF, self._seconds + self._threads * usual_ns / 1e9)

    def clear(self) -> None:
        """It has ended: nobody is to blame."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.pwrite(self._note, pack_step((), alone=False), 0)
