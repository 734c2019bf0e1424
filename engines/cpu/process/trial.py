"""What a guide costs, found in a process of its own before the engine sees the guide.

What compiles guides may take minutes or gigabytes of a few bytes, or crash; and a guide that
compiles at once may still make every token slow. So each new one is tried here first: compiled, and
answered at random for some tokens, within limits of processor time and memory that the kernel
holds. The engine runs none that did not pass. What was refused, or took memory, leaves some of it
behind: then the process ends, and a fresh one starts before it is needed.

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
_ANSWERS = ((1, 2 * _TOKENS), (2, _TOKENS // 2))
"""Seed and length of the answers that are tried: most answers are over before the longest is."""
# Of the time that the compilation may take: what any token may, and what each of the last `_TOKENS`
# may on average, so that none is dear behind a cheap beginning.
_STEP_SHARE = 0.2
TOKEN_SHARE = 0.01
_AHEAD = 25  # tokens that an answer may be behind that mean before it is broken off
_WALL_FACTOR = 20.0  # processor seconds may be that much longer on a machine with other work
_START_SECONDS = 60.0
_ADDRESSES = 512 << 20  # of memory asked for, much of which is never touched
_NICENESS = 5  # what serves goes first
_MEMORY = "it needs too much memory"
# When the process, which keeps something of each guide, is replaced: after so many, or once it has
# grown by so much of the memory that the next one may need.
_USED_UP = 32
_GROWN_ADDRESSES = _ADDRESSES // 4
_GROWN_BYTES = 64 << 20
# What a guide makes of the process that tries it; of any other end it has to make it so often, each
# time in a process that has tried nothing else.
_OWN_ENDS = (
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGABRT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
)
_ENDS = 2


@dataclass(frozen=True)
class Limits:
    """`seconds` of processor time to compile a guide, `bytes` that the compiled one may keep."""

    seconds: float
    bytes: int


class TrialError(Exception):
    """Guides cannot be tried now: nothing is known of this one."""


class Trial:
    """The process that tries guides; for one thread.

    It is started when one is to be tried, and again, ahead of the next, whenever it ended.

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
        self._ready = False
        self._used = False

    def __call__(self, guide: Guide) -> Cost:
        """Try a guide; return what it costs.

        Raises `InvalidRequestError`: it does not compile, or costs too much. `TrialError`: that
        cannot be found out.
        """
        if self._no_guides:
            raise InvalidRequestError(self._no_guides)
        ended = 0
        while True:
            fresh = not self._used
            try:
                kept, token_seconds, refused, worn = self._asked(guide)
                break
            except (EOFError, OSError):
                status = self._renew()
            ended += fresh
            # Who else ends processes, as the kernel does when memory is short, ends this one too.
            if -status in _OWN_ENDS or ended == _ENDS:
                raise _ended(status, self._limits)
        if worn:
            self._renew()
        if refused:
            raise InvalidRequestError(refused.removeprefix(INVALID_PREFIX))
        return Cost(kept, token_seconds)

    def _asked(self, guide: Guide) -> tuple[int, float, str, bool]:
        """What the process says of a guide. Raises `EOFError` or `OSError`: it has ended."""
        pipe = self._open()
        self._used = True
        wall_seconds = self._limits.seconds * _WALL_FACTOR
        pipe.send(guide)
        if not pipe.poll(wall_seconds):
            self._renew()
            # Its processor time did not run out: the machine is at fault, as far as we know.
            raise TrialError(f"no verdict within {wall_seconds:g} s")
        said: tuple[int, float, str, bool] = pipe.recv()
        return said

    def close(self) -> int:
        """End the process, if there is one; return its exit status."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        self._ready = self._used = False
        if pipe is not None:
            pipe.close()
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.2)
        process.kill()
        return process.wait()

    def _renew(self) -> int:
        """End the process and start another, without waiting for it; return the exit status."""
        status = self.close()
        with contextlib.suppress(OSError):  # then the next guide starts it, or is told why not
            self._launch()
        return status

    def _launch(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = self._start(theirs.fileno())
        self._pipe.send(self._setup)

    def _open(self) -> Connection:
        """The pipe to a process that is ready."""
        if self._process is None or self._process.poll() is not None:
            self.close()  # it may have ended by itself: that says nothing of the next guide
        why = "it does not start"
        try:
            if self._pipe is None:
                self._launch()
            assert self._pipe is not None  # noqa: S101 - just made
            if not self._ready:
                self._ready = self._pipe.poll(_START_SECONDS) and self._pipe.recv()
            if self._ready:
                return self._pipe
        except (EOFError, OSError) as error:
            why = repr(error)
        status = self.close()
        raise TrialError(f"guides cannot be tried: {why} (exit status {status})")


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
        return too_costly(f"it takes more than {limits.seconds:g} s of processor time")
    if -status in (signal.SIGABRT, signal.SIGKILL):
        return too_costly(_MEMORY)
    return too_costly("it ends its compiler")


def main(arguments: list[str]) -> int:
    """Try guides until the pipe closes or the process is worn. Return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(int(arguments[0]))
    try:
        weights, vocabulary, seconds, most_kept = pipe.recv()
        limits = Limits(seconds, most_kept)
        probe = Probe(tokenizer_of(weights), vocabulary)
        for warming in (("regex", "[a-z]*"), ("json", "")):
            probe.steps(warming, _TOKENS, 1, enough=lambda took: sum(took[1:]) > 1.0)
        os.nice(_NICENESS)
        addresses, used = _statm(0), _statm(1)
        most = addresses + _ADDRESSES + limits.bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pipe.send(True)  # noqa: FBT003
        tried, ended = 0, False
        while not ended:
            kept, token_seconds, refused = _tried(probe, pipe.recv(), limits)
            tried += 1
            ended = worn(tried, refused, _statm(0) - addresses, _statm(1) - used)
            pipe.send((kept, token_seconds, refused, ended))
    except (EOFError, OSError):
        pass  # the engine is gone, or does not need us any more
    return 0


def worn(tried: int, refused: str, addresses: int, used: int) -> bool:
    """Whether a process had better not try another guide.

    It has tried so many, the last of them was `refused`, and it has grown by so many bytes of
    `addresses` and of memory in use.
    """
    return bool(refused) or tried >= _USED_UP or addresses > _GROWN_ADDRESSES or used > _GROWN_BYTES


def _tried(probe: Probe, guide: Guide, limits: Limits) -> tuple[int, float, str]:
    """What a guide keeps in memory and takes for a token, and why it is refused, if it is."""
    before = _statm(1)
    each = limits.seconds * _STEP_SHARE

    def enough(took: Sequence[float]) -> bool:
        # Whatever goes on, in whichever thread: the signal ends this process.
        signal.setitimer(signal.ITIMER_PROF, 2 * each)
        return took[0] > limits.seconds or bool(slow_answer(took[1:], limits.seconds))

    mean = 0.0
    for seed, tokens in _ANSWERS:
        signal.setitimer(signal.ITIMER_PROF, limits.seconds + each)
        try:
            took = probe.steps(guide, tokens, seed, enough=enough)
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
    """Why an answer whose first tokens took so long is too slow, if it is.

    `seconds` are those that the compilation may take. An answer that is far behind the mean, or has
    taken all the time that a whole one may, is too slow however few tokens it has.
    """
    if (slowest := max(took, default=0.0)) > seconds * _STEP_SHARE:
        return f"a token of its answer takes {slowest * 1e3:.0f} ms of processor time"
    last = took[-_TOKENS:]
    if sum(last) > seconds * TOKEN_SHARE * min(_TOKENS, len(last) + _AHEAD):
        mean = sum(last) / len(last) * 1e3
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
