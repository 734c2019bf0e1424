"""How often and until when a call is tried, and what its failures are called."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from pennyweight.errors import PennyweightError, Unavailable, error_of, error_of_call

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0


def backoff_seconds(failures: int, drawn: float) -> float:
    """Seconds to wait after so many failures, at least one: doubling, half certain and half drawn.

    So callers who failed together do not come back together. `drawn` is uniform in [0, 1].
    """
    longest = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 64))
    return longest * (1.0 + drawn) / 2.0


class Attempts:
    """The tries of one call. State: when it must be over, how many were made."""

    def __init__(self, deadline: float, max_tries: int) -> None:
        """`deadline` is in seconds of `time.monotonic`."""
        self._deadline = deadline
        self._max_tries = max_tries
        self._made = 0

    def seconds_left(self) -> float:
        """Time left for the call, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def next_delay(self, error: PennyweightError) -> float:
        """Seconds to wait before the next try; raises the error where there must be none.

        Never less than what the service asks for.
        """
        self._made += 1
        backoff = backoff_seconds(self._made, random.random())  # noqa: S311
        delay = max(backoff, error.retry_after_seconds or 0.0)
        final = self._made >= self._max_tries or delay >= self.seconds_left()
        if final or not isinstance(error, Unavailable):
            raise error
        return delay


@contextmanager
def errors_of(call: Any) -> Iterator[None]:
    """Turns what grpc raises for a call into our errors; the task's own cancellation passes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not call.done() or (task is not None and task.cancelling()):
            raise
        # grpc raises this also when the call alone was cancelled: by the service, or by `close`.
        raise error_of(grpc.StatusCode.CANCELLED, "the call was cancelled") from None
