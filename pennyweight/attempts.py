"""How often and until when a call is tried, and what its failures are called.

A call is tried again while its deadline lasts, as long as nothing of an answer has come, after
waits that are drawn anew from a doubling range (full jitter; Marc Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015): callers who failed together do not come back together. What a
service asks for in `RetryInfo` comes on top.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from pennyweight.errors import PennyweightError, Unavailable, error_of, error_of_call

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 2.0
MAX_DOUBLINGS = 64

STOPPING = "STOPPING"
"""A router's reason for taking no more calls: it did nothing for this one."""

# What gRPC says of a connection that fails for good: waiting mends no certificate.
_HOPELESS = ("Tls handshake failed", "Ssl handshake failed", "Custom verification check failed")


def wait_seconds(failures: int, chance: float, asked_seconds: float = 0.0) -> float:
    """Seconds to wait before the next try.

    Args:
        failures: tries that failed, at least one.
        chance: drawn from [0, 1).
        asked_seconds: what the service asks for; never less than that is waited.
    """
    doubled = FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, MAX_DOUBLINGS)
    return asked_seconds + chance * min(MAX_BACKOFF_SECONDS, doubled)


def may_be_tried_again(error: PennyweightError) -> bool:
    """Whether another try may help, and cannot be charged on top of this one.

    A request that the router had taken, so that its error has a handle, may have been charged for
    tiers that ran: it is tried again only where the router itself says when to come back.
    """
    if not isinstance(error, Unavailable):
        return False
    if error.handle and error.retry_after_seconds is None:
        return False
    return not any(words in error.message for words in _HOPELESS)


@dataclass
class RetryBudget:
    """How many refusals a client answers with another try, so that its calls add little load.

    Each call earns a part of a try, each try after a refusal spends a whole one. A connection that
    fails costs nothing: gRPC connects once for all calls, and no router has work with it.

    Attributes:
        most: tries that can be saved up; a client begins with as many.
        earned: part of a try that each call earns.
        left: tries that are left.
    """

    most: float = 20.0
    earned: float = 0.2
    left: float = 20.0

    def earn(self) -> None:
        """A call begins."""
        self.left = min(self.most, self.left + self.earned)

    def spend(self, error: PennyweightError) -> bool:
        """Takes what another try costs after this error. Returns whether there was enough."""
        refused = bool(error.reason or error.handle) and error.reason != STOPPING
        if not refused:
            return True
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Attempts:
    """The tries of one call. State: when it must be over, how many failed."""

    def __init__(
        self,
        deadline: float,
        max_tries: int | None,
        budget: RetryBudget,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`deadline` is in seconds of `clock`; `max_tries` None: as many as fit before it."""
        self._deadline = deadline
        self._max_tries = max_tries
        self._budget = budget
        self._clock = clock
        self._chance = chance
        self._failed = 0
        budget.earn()

    def seconds_left(self) -> float:
        """Time left for the call, at least 0."""
        return max(0.0, self._deadline - self._clock())

    def next_delay(self, error: PennyweightError) -> float:
        """Seconds to wait before the next try; raises the error where there must be none."""
        self._failed += 1
        if self._failed == self._max_tries or not may_be_tried_again(error):
            raise error
        delay = wait_seconds(self._failed, self._chance(), error.retry_after_seconds or 0.0)
        if delay >= self.seconds_left() or not self._budget.spend(error):
            raise error
        return delay


@asynccontextmanager
async def errors_of(call: Any) -> AsyncIterator[None]:
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
        raise error_of_call(
            grpc.aio.AioRpcError(
                grpc.StatusCode.CANCELLED,
                grpc.aio.Metadata(),
                await call.trailing_metadata(),
                details=await call.details() or "the call was cancelled",
            )
        ) from None


def away_of(error: PennyweightError) -> PennyweightError:
    """The error of a call of which nothing came, and which its caller did not cancel.

    A router that is ended has gRPC cancel the calls that it has not begun to answer: that says no
    more than that it is away.
    """
    if error.code is not grpc.StatusCode.CANCELLED or error.reason or error.handle:
        return error
    message = f"the service ended the call before it said anything ({error.message})"
    return error_of(grpc.StatusCode.UNAVAILABLE, message)
