"""gRPC calls that a task of ours makes: whose cancellation it is."""

import asyncio


def is_cancelled() -> bool:
    """Whether the running task itself is being cancelled. For an ``except CancelledError``.

    A call that ends cancelled, by the other side or because we closed or cancelled it, raises
    `CancelledError` in the task that awaits it, just like the task's own cancellation. The task's
    own must go on upwards; the call's alone is a failure like any other.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
