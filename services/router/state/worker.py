"""One thread for all work on a disk: levers first, then what tenants cause, many at a time."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, TypeVar

from services.router.policy.shares import most_of

MAX_WAITING = 1000
"""Work that waits for the disk at most: that of levers, and that of all tenants."""

SHARE = 0.25
"""Of what tenants cause, for one tenant."""

TOGETHER = 64
"""What waits is done so many at a time, in one change of the disk."""

C = TypeVar("C")
T = TypeVar("T")

Job = tuple[Callable[[C], Any], "Future[Any]"]


class TooMuchWaits(Exception):
    """The disk is not asked for more."""


class Worker(Generic[C]):
    """Does it; state of the process. Asked from one event loop."""

    def __init__(self, change: Callable[[], AbstractContextManager[C]]) -> None:
        """`change` makes a block, in the thread, whose work is on the disk when it ends."""
        self._change = change
        self._first: deque[Job[C]] = deque()
        self._others: deque[Job[C]] = deque()
        self._waiting_first = 0
        self._waiting: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router-state")

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nor is being done."""
        return not self._waiting_first and not self._waiting

    def first(self, work: Callable[[C], T]) -> "asyncio.Future[T]":
        """Does work before all that tenants cause.

        Raises:
            TooMuchWaits: there is no end of it.
        """
        if self._waiting_first >= MAX_WAITING:
            raise TooMuchWaits
        self._waiting_first += 1
        return self._asked(self._first, work, self._first_done)

    def of(self, tenant: str, work: Callable[[C], T]) -> "asyncio.Future[T]":
        """Does what a tenant causes, together with what else waits: all of that, or none.

        Raises:
            TooMuchWaits: of this tenant's, or of all.
        """
        waiting = self._waiting
        if waiting.total() >= MAX_WAITING or waiting[tenant] >= most_of(MAX_WAITING, SHARE):
            raise TooMuchWaits
        waiting[tenant] += 1
        return self._asked(self._others, work, partial(self._done, tenant))

    async def close(self, last: Callable[[], None]) -> None:
        """Finishes what waits and does this last; the thread ends."""
        ended = asyncio.get_running_loop().run_in_executor(self._thread, last)
        self._thread.shutdown(wait=False)
        await asyncio.shield(ended)

    def _asked(
        self, line: deque[Job[C]], work: Callable[[C], T], done: Callable[[Any], None]
    ) -> "asyncio.Future[T]":
        result: Future[T] = Future()
        line.append((work, result))
        # One for each: whatever the others took before it, nothing is left behind.
        self._thread.submit(self._serve)
        future = asyncio.wrap_future(result)
        future.add_done_callback(done)
        return future

    def _serve(self) -> None:
        """In the thread: does what is first, or else all that waits, within bounds."""
        if self._first:
            jobs = [self._first.popleft()]
        else:
            jobs = [self._others.popleft() for _ in range(min(TOGETHER, len(self._others)))]
        jobs = [job for job in jobs if job[1].set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            with self._change() as change:
                results = [work(change) for work, _ in jobs]
        except BaseException as error:  # noqa: BLE001 -- who asked is told
            for _, result in jobs:
                result.set_exception(error)
        else:
            for (_, result), found in zip(jobs, results, strict=True):
                result.set_result(found)

    def _first_done(self, _: "asyncio.Future[Any]") -> None:
        self._waiting_first -= 1

    def _done(self, tenant: str, _: "asyncio.Future[Any]") -> None:
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
