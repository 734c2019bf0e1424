"""What goes on after the call that began it: drained attempts, evidence, answers for others."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from services.common.faults import fault

log = structlog.get_logger()


class Background:
    """Owns such tasks; state of the process.

    The failure of one is logged and ends nothing else. One may begin another, such as the ending
    of a call whose engine must not see it cancelled.
    """

    def __init__(self) -> None:
        """Starts with nothing to do."""
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a task."""
        task = asyncio.get_running_loop().create_task(_contained(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self, within_seconds: float) -> None:
        """Waits until nothing runs, no longer than that."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_seconds
        while self._tasks and (left := until - loop.time()) > 0.0:
            await asyncio.wait(self._tasks, timeout=left)

    async def cut_off(self, within_seconds: float) -> None:
        """Cancels what runs; each task, and what it begins as it ends, has so long for that."""
        await asyncio.sleep(0.0)  # a task cancelled before it has begun could not clean up
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=within_seconds)
            begun = self._tasks - running
            _, running = await asyncio.wait(begun, timeout=within_seconds) if begun else ((), set())


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 -- whatever it is, the others go on
        log.error("a task of a request failed", fault=fault(error))  # noqa: TRY400 -- see `fault`
