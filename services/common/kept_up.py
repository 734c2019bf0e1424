"""Work beside requests that goes on for ever, whatever becomes of one turn of it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger()

AGAIN_SECONDS = 1.0
"""How long work that failed, and never should, rests before it begins anew."""


async def kept_up(
    name: str,
    work: Callable[[], Coroutine[Any, Any, None]],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Does work that goes on for ever, and begins it anew where it fails.

    What fails beside requests must not end them all. `name` is for the log; `pause` waits for so
    many seconds.
    """
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log.exception("what runs beside requests was cut off; it begins anew", work=name)
        except Exception:
            log.exception("what runs beside requests failed; it begins anew", work=name)
        await pause(AGAIN_SECONDS)
