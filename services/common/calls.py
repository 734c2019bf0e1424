"""Calls and tasks of ours: whose cancellation it is, and ends that nobody awaits."""

import asyncio
from typing import Any


def is_cancelled() -> bool:
    """Whether the running task itself is being cancelled. For an ``except CancelledError``.

    A call that ends cancelled, by the other side or because we closed or cancelled it, raises
    `CancelledError` in the task that awaits it, just like the task's own cancellation. The task's
    own must go on upwards; the call's alone is a failure like any other.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def note_end(ended: "asyncio.Future[Any]") -> None:
    """Takes note of how something ended, so that nobody has to. For ``add_done_callback``."""
    if not ended.cancelled():
        ended.exception()
