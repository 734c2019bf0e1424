"""Which guides may run: each new one is tried, then compiled, in a thread beside the serving loop.

New ones are tried in turns, one of each source: who brings many waits longer, and nobody else.

The loop asks for a verdict and goes on; when one has come, the descriptor `changed` is readable. It
never compiles: a guide that it runs is known to be cheap, and is in the compiler's memory already.
The compiler never forgets one, so `kept_bytes` says when the whole process is to be replaced.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from engines.cpu.process.parts import Parts
from engines.cpu.request import Cost, Guide, InvalidRequestError, guide_hash

GOOD = ""
"""The verdict on a guide that may run; any other says why it may not."""

_REMEMBERED = 4096  # verdicts, by hash; who brings many pushes out none of others
_TROUBLES = 64
_LEAST_BYTES = 16 << 10  # of a compiled guide
_NICENESS = 5
_STACK_BYTES = 64 << 20  # compilers of grammars recurse; touched as far as they do
_IDLE_SECONDS = 60.0  # after which the process that tries guides ends


class Trial(Protocol):
    """Finds out what a guide costs."""

    def __call__(self, guide: Guide) -> Cost:
        """What it costs. Raises `InvalidRequestError` if it may not run."""

    def close(self) -> object:
        """Let go of what is held; the next call takes it again."""


class Guides:
    """Verdicts on guides. `known` to `drop` are for the loop's thread.

    Attributes:
        changed: a descriptor that is readable when a verdict has come; `os.eventfd_read` clears it.
        kept_bytes: what all compiled guides keep in memory, about.
        compiling: whether one is compiled right now, which the process's time tells as well.
    """

    def __init__(self, trial: Trial, compile_guide: Callable[[Guide], None]) -> None:
        self._trial = trial
        self._compile = compile_guide
        self._lock = threading.Condition()
        self._turns: OrderedDict[str, OrderedDict[Guide, None]] = OrderedDict()  # by source
        self._waiting: dict[Guide, str] = {}
        self._tried: Guide | None = None
        self._verdicts = Parts[tuple[str, int]](_REMEMBERED)
        self._trouble: OrderedDict[Guide, str] = OrderedDict()
        self._filled: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.kept_bytes = 0
        self.compiling = False

    def known(self, guide: Guide) -> bool:
        """Whether `verdict` says one; if not, nothing is begun to find it out."""
        with self._lock:
            return guide_hash(guide) in self._verdicts or guide in self._trouble

    def verdict(self, guide: Guide, source: str) -> str | None:
        """`GOOD`, or why not; None: not yet known, it will be found out."""
        with self._lock:
            found = self._verdicts.use(guide_hash(guide), source)
            if found is not None:
                return found[0]
            if guide in self._trouble:  # told once: the next one who asks has it tried again
                return self._trouble.pop(guide)
            if guide not in self._waiting and guide != self._tried:
                self._waiting[guide] = source
                self._turns.setdefault(source, OrderedDict())[guide] = None
                self._lock.notify()
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="pennyweight-guides", daemon=True
                    )
                    usual = threading.stack_size(_STACK_BYTES)
                    self._thread.start()
                    threading.stack_size(usual)
            return None

    def token_ns(self, guide: Guide) -> int:
        """Processor time that a token of its answers takes, nanoseconds; 0 where not known."""
        with self._lock:
            _, token_ns = self._verdicts.get(guide_hash(guide)) or ("", 0)
            return token_ns

    def filled(self) -> dict[str, int]:
        """What those that were compiled since this was asked last keep, by who asked first."""
        with self._lock:
            filled, self._filled = self._filled, {}
            return filled

    def drop(self, guide: Guide) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._take_out(guide)
            self._trouble.pop(guide, None)

    def refuse(self, guide: bytes, why: str) -> None:
        """From now on that is the verdict on the guide of that hash, whatever its trial said."""
        with self._lock:
            self._verdicts.put(guide, "", (why, 0))

    def _take_out(self, guide: Guide) -> None:
        source = self._waiting.pop(guide, None)
        if source is None:
            return
        theirs = self._turns[source]
        del theirs[guide]
        if not theirs:
            del self._turns[source]

    def _run(self) -> None:
        # Of this thread and those that compile for it: the serving loop goes first.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._lock:
                if not self._lock.wait_for(lambda: self._waiting, _IDLE_SECONDS):
                    self._trial.close()
                    continue
                source, theirs = next(iter(self._turns.items()))
                self._turns.move_to_end(source)
                self._tried = guide = next(iter(theirs))
                self._take_out(guide)
            verdict, token_ns, lasting = self._judged(guide, source)
            with self._lock:
                self._tried = None
                if lasting:
                    self._verdicts.put(guide_hash(guide), source, (verdict, token_ns))
                else:
                    self._trouble[guide] = verdict
                    if len(self._trouble) > _TROUBLES:
                        self._trouble.popitem(last=False)
            os.eventfd_write(self.changed, 1)

    def _judged(self, guide: Guide, source: str) -> tuple[str, int, bool]:
        """The verdict, `token_ns`, and whether both would be the same next time."""
        try:
            cost = self._trial(guide)
            self.compiling = True
            self._compile(guide)
        except InvalidRequestError as error:
            return str(error), 0, True
        except Exception as error:  # noqa: BLE001 - the thread must live
            return f"guides cannot be tried now: {error}", 0, False
        finally:
            self.compiling = False
        kept = max(cost.bytes, _LEAST_BYTES)
        with self._lock:
            self.kept_bytes += kept
            self._filled[source] = self._filled.get(source, 0) + kept
        return GOOD, int(cost.token_seconds * 1e9), True
