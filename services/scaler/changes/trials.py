"""Checks and tries scaling files in a process of their own, one at a time, callers in turns.

Either computes for seconds: in this process it would hold up routers and decisions. What is asked
goes in as one line of JSON, and the process answers in lines of JSON: how far it is, then what came
of it. It is ended where nobody waits for it any more, or its time is over.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from services.common.config import ConfigError, Problem
from services.common.errors import DeadlineExceeded, InternalError, NotNow, Overloaded

log = structlog.get_logger()

DEADLINE_SECONDS = 120.0
MOST_WAITING = 16
"""Callers, one question each."""
MAX_LINE_BYTES = 8 << 20
TRIES = 2
"""Of a question whose process somebody else kills, as the kernel does when memory is short."""
COMMAND = (sys.executable, "-m", "services.scaler.try_out")
"""What it runs."""


class Trials:
    """The place for one question."""

    def __init__(
        self, *, command: Sequence[str] = COMMAND, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        """`command` starts a process that answers as `services.scaler.try_out` does."""
        self._command = command
        self._deadline_seconds = deadline_seconds
        self._turn = asyncio.Lock()  # who waits longest is next
        self._waiting: set[str] = set()

    async def run(
        self,
        question: Mapping[str, Any],
        progress: Callable[[float], None] = lambda _: None,
        *,
        caller: str = "",
    ) -> Mapping[str, Any]:
        """Answers a question in its turn; cancelled, it ends the trial.

        Args:
            question: see `services.scaler.try_out`.
            progress: hears how far it is, 0 to 1.
            caller: whose it is, see `Identity.share`. One question of each waits: they take turns.

        Raises:
            ConfigError: the file would be refused.
            Overloaded: another question of the caller waits, or too many do.
            DeadlineExceeded: it took too long.
            NotNow: what trials need is not installed, or the question cannot be answered.
            InternalError: it failed.
        """
        if caller in self._waiting or len(self._waiting) >= MOST_WAITING:
            raise Overloaded(
                "other scaling files wait to be checked or tried; try again when they are done",
                reason="TRIAL_RUNNING",
                retry_after_seconds=5.0,
            )
        self._waiting.add(caller)
        try:
            await self._turn.acquire()
        finally:
            self._waiting.discard(caller)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                for _ in range(TRIES):
                    answer, status = await self._run(question, progress)
                    if answer is not None:
                        return answer
                    if status >= 0:
                        break
        except TimeoutError:
            most = f"{self._deadline_seconds:g} s"
            message = f"it took longer than {most}; try a smaller file, a shorter trace, fewer days"
            raise DeadlineExceeded(message, reason="TRIAL_TOO_LONG") from None
        finally:
            self._turn.release()
        raise InternalError("the trial failed; the scaler's log says why", reason="TRIAL_FAILED")

    async def _run(
        self, question: Mapping[str, Any], progress: Callable[[float], None]
    ) -> tuple[Mapping[str, Any] | None, int]:
        """What a process answers, None: nothing, and its exit status, negative after a signal."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
        )
        errors = asyncio.create_task(_end_of(process))
        try:
            answer = await _answer(process, question, progress)
            if answer is not None:
                return answer, 0
            status = await process.wait()
            last = (await errors).decode(errors="replace").strip().splitlines()
        finally:
            errors.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        log.error("a trial failed", status=status, error=last[-1] if last else "")
        return None, status


async def _answer(
    process: asyncio.subprocess.Process,
    question: Mapping[str, Any],
    progress: Callable[[float], None],
) -> Mapping[str, Any] | None:
    """What it says; None: it ended without an answer."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(ConnectionError, RuntimeError):  # it says itself why it ended
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
    process.stdin.close()
    async for line in process.stdout:
        found = json.loads(line)
        match found:
            case {"progress": share}:
                progress(float(share))
            case {"refused": refused}:
                raise NotNow(str(refused), reason=str(found.get("reason", "TRIAL_REFUSED")))
            case {"wrong": list() as problems}:
                raise ConfigError("content", [Problem(**one) for one in problems])
            case {"answer": dict() as answer}:
                return answer
    return None


async def _end_of(process: asyncio.subprocess.Process) -> bytes:
    """The last of what it says went wrong; all is read, so that it never waits for us."""
    assert process.stderr is not None  # noqa: S101
    last = b""
    while data := await process.stderr.read(4096):
        last = (last + data)[-4096:]
    return last
