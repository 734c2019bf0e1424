"""What a guide costs, found in a process of its own before the engine sees the guide.

What compiles guides may take minutes or gigabytes of a few bytes, or crash; and a guide that
compiles at once may still make every token slow. So each new one is tried here first: compiled, and
answered at random for some tokens, within limits of processor time and memory that the kernel
holds. The engine runs none that did not pass.

Run as `python -m engines.cpu.process.trial <descriptor>`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from engines.cpu.process.guided import tokenizer_of
from engines.cpu.process.probe import Probe
from engines.cpu.request import INVALID_PREFIX, Cost, Guide, InvalidRequestError

_ROOT = Path(__file__).resolve().parents[3]

_TOKENS = 128
_SEEDS = (1, 2)
# Of the time that the compilation may take: what any token may, and what all may on average.
_STEP_SHARE = 0.2
TOKEN_SHARE = 0.03
_WALL_FACTOR = 30.0  # processor seconds may be that much longer on a machine with other work
_START_SECONDS = 60.0
_ADDRESSES = 512 << 20  # of memory asked for, much of which is never touched
_NICENESS = 5  # what serves goes first
_MEMORY = "it needs too much memory"
_USED_UP = 128  # guides after which the process, which keeps each of them, is replaced


@dataclass(frozen=True)
class Limits:
    """`seconds` of processor time to compile a guide, `bytes` that the compiled one may keep."""

    seconds: float
    bytes: int


class TrialError(Exception):
    """Guides cannot be tried now: nothing is known of this one."""


class Trial:
    """The process that tries guides; started when one is to be tried, for one thread.

    `no_guides`: why none can be followed; then none is tried. `start` starts it, with the
    descriptor of its end of a pipe.
    """

    def __init__(
        self,
        weights: Path,
        vocabulary: int,
        limits: Limits,
        no_guides: str = "",
        start: Callable[[int], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        # What is sent are plain values: the process knows this module by another name.
        self._setup = weights, vocabulary, limits.seconds, limits.bytes
        self._limits = limits
        self._no_guides = no_guides
        self._start = start or _start
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._tried = 0

    def __call__(self, guide: Guide) -> Cost:
        """Try a guide; return what it costs.

        Raises `InvalidRequestError`: it does not compile, or costs too much. `TrialError`: that
        cannot be found out.
        """
        if self._no_guides:
            raise InvalidRequestError(self._no_guides)
        pipe = self._open()
        limits = self._limits
        self._tried += 1
        try:
            pipe.send(guide)
            if not pipe.poll(limits.seconds * _WALL_FACTOR + _START_SECONDS):
                raise too_costly("it takes too long")
            kept, token_seconds, refused = pipe.recv()
        except (EOFError, OSError):
            status = self.close()
            raise _ended(status, limits) from None
        except InvalidRequestError:
            self.close()
            raise
        if self._tried >= _USED_UP:
            self.close()
        if refused:
            raise InvalidRequestError(refused.removeprefix(INVALID_PREFIX))
        return Cost(kept, token_seconds)

    def close(self) -> int:
        """End the process, if there is one; return its exit status."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.2)
        process.kill()
        return process.wait()

    def _open(self) -> Connection:
        if self._pipe is None:
            ours, theirs = Pipe()
            try:
                with theirs:
                    self._process = self._start(theirs.fileno())
                ours.send(self._setup)
                ready = ours.poll(_START_SECONDS) and ours.recv()
            except (EOFError, OSError) as error:
                ready, why = False, repr(error)
            else:
                why = "it does not start"
            if not ready:
                ours.close()
                status = self.close()
                raise TrialError(f"guides cannot be tried: {why} (exit status {status})")
            self._pipe = ours
            self._tried = 0
        return self._pipe


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "engines.cpu.process.trial", str(descriptor)],
        cwd=_ROOT,
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        # Else each thread of the compiler reserves much more than it needs.
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )


def too_costly(why: str) -> InvalidRequestError:
    """A guide that would take too much from others."""
    return InvalidRequestError(f"guided_decoding_guide is too costly: {why}")


def _ended(status: int, limits: Limits) -> InvalidRequestError:
    if -status in (signal.SIGPROF, signal.SIGXCPU):
        return too_costly(f"it takes more than {limits.seconds:g} s of processor time to compile")
    if -status in (signal.SIGABRT, signal.SIGKILL):
        return too_costly(_MEMORY)
    return too_costly("it ends its compiler")


def main(arguments: list[str]) -> int:
    """Try guides until the pipe closes. Return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(int(arguments[0]))
    try:
        weights, vocabulary, seconds, most_kept = pipe.recv()
        limits = Limits(seconds, most_kept)
        probe = Probe(tokenizer_of(weights), vocabulary)
        for warming in (("regex", "[a-z]*"), ("json", "")):
            probe.steps(warming, _TOKENS, 1.0, 1)
        os.nice(_NICENESS)
        most = _statm(0) + _ADDRESSES + limits.bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pipe.send(True)  # noqa: FBT003
        while True:
            pipe.send(_tried(probe, pipe.recv(), limits))
    except (EOFError, OSError):
        return 0  # the engine is gone, or does not need us any more


def _tried(probe: Probe, guide: Guide, limits: Limits) -> tuple[int, float, str]:
    """What a guide keeps in memory and takes for a token, and why it is refused, if it is."""
    before = _statm(1)
    each = limits.seconds * _STEP_SHARE
    answer = limits.seconds * TOKEN_SHARE * _TOKENS
    mean = 0.0
    for seed in _SEEDS:
        # Whatever goes on, in whichever thread: the signal ends this process.
        signal.setitimer(signal.ITIMER_PROF, limits.seconds + answer + each)
        try:
            took = probe.steps(guide, _TOKENS, answer, seed)
        except InvalidRequestError as error:
            out_of_memory = "std::bad_alloc" in str(error)
            return 0, 0.0, str(too_costly(_MEMORY) if out_of_memory else error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if took[0] > limits.seconds:
            return 0, 0.0, str(_ended(-signal.SIGPROF, limits))
        if why := slow_answer(took[1:], limits.seconds):
            return 0, 0.0, str(too_costly(why))
        mean = max(mean, sum(took[1:]) / max(1, len(took[1:])))
    kept = max(0, _statm(1) - before)
    if kept > limits.bytes:
        return 0, 0.0, str(too_costly(f"it keeps {kept >> 20} MiB of memory"))
    return kept, mean, ""


def slow_answer(took: Sequence[float], seconds: float) -> str:
    """Why an answer whose tokens took so long is too slow, if it is.

    `seconds` are those that the compilation may take. An answer that was broken off, as it took
    all the time that so many tokens may, is too slow however few tokens it has.
    """
    if (slowest := max(took, default=0.0)) > seconds * _STEP_SHARE:
        return f"a token of its answer takes {slowest * 1e3:.0f} ms of processor time"
    if sum(took) > seconds * TOKEN_SHARE * _TOKENS:
        mean = sum(took) / len(took) * 1e3
        most = seconds * TOKEN_SHARE * 1e3
        return f"its tokens take {mean:.0f} ms of processor time each, of at most {most:g}"
    return ""


def _statm(field: int) -> int:
    """Bytes of this process's addresses (0) or of its memory in use (1)."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[field]
    return int(pages) * resource.getpagesize()


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(ended)
