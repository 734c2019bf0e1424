"""Sends watchers each item, in order, without ever waiting for one of them.

Where there is no more room, the caller with most subscriptions loses its oldest to one with fewer.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from services.common.errors import Overloaded, ServiceError, Unavailable

T = TypeVar("T")

MAX_WATCHERS = 256
QUEUE = 256
"""Items a watcher may be behind before it is dropped."""


class Watcher(Generic[T]):
    """One subscription, read by one task."""

    def __init__(self, *first: T) -> None:
        """Begins with `first`, however many, which count for nothing in how far it is behind."""
        self._pending: deque[T] = deque(first)
        self._most = QUEUE + len(first)
        self._news = asyncio.Event()
        self._end: ServiceError | None = None

    async def next(self, within_seconds: float) -> T | None:
        """The next item; None if there is none in time.

        Raises:
            Overloaded: the watcher was too slow and has missed some.
            Unavailable: the scaler is going away.
        """
        if not self._pending and self._end is None:
            self._news.clear()
            try:
                async with asyncio.timeout(within_seconds):
                    await self._news.wait()
            except TimeoutError:
                return None
        if self._pending:
            return self._pending.popleft()
        assert self._end is not None  # noqa: S101
        raise self._end

    def offer(self, item: T) -> bool:
        """Queues the item; False if there was no room, which ends the subscription."""
        if len(self._pending) < self._most:
            self._pending.append(item)
            self._news.set()
            return True
        self._pending.clear()
        self.end(
            Overloaded(
                "this watcher was too slow and has missed changes; watch anew",
                reason="WATCHER_TOO_SLOW",
                retry_after_seconds=0.1,
            )
        )
        return False

    def end(self, error: ServiceError) -> None:
        """Ends the subscription with `error`, after the items that are queued."""
        self._end = error
        self._news.set()


class Watchers(Generic[T]):
    """All subscriptions. `on_drop` is called for each that is dropped for its slowness."""

    def __init__(self, on_drop: Callable[[], None] = lambda: None) -> None:
        self._watchers: dict[Watcher[T], str] = {}  # whose, the oldest first
        self._on_drop = on_drop
        self._closed: ServiceError | None = None

    def __len__(self) -> int:
        return len(self._watchers)

    @contextmanager
    def subscribe(self, *first: T, caller: str = "") -> Iterator[Watcher[T]]:
        """A subscription of this caller that begins with `first`.

        Raises:
            Overloaded: there are too many, and nobody has more than this caller.
            Unavailable: the scaler is going away.
        """
        if self._closed is not None:
            raise self._closed
        if len(self._watchers) >= MAX_WATCHERS:
            self._make_room(caller)
        watcher = Watcher[T](*first)
        self._watchers[watcher] = caller
        try:
            yield watcher
        finally:
            self._watchers.pop(watcher, None)

    def publish(self, item: T) -> None:
        """Sends it to all watchers; those without room are dropped."""
        for watcher in list(self._watchers):
            if not watcher.offer(item):
                del self._watchers[watcher]
                self._on_drop()

    def _make_room(self, caller: str) -> None:
        """Ends the oldest of whoever has most, where that is more than this caller then has."""
        held = Counter(self._watchers.values())
        crowd, most = held.most_common(1)[0]
        if held[caller] + 1 >= most:  # else two would take one from each other for ever
            raise Overloaded(
                f"{MAX_WATCHERS} watchers are enough",
                reason="TOO_MANY_WATCHERS",
                retry_after_seconds=5.0,
            )
        oldest = next(watcher for watcher, whose in self._watchers.items() if whose == crowd)
        del self._watchers[oldest]
        oldest.end(
            Overloaded(
                f"{most} watchers of this caller are too many beside those of others",
                reason="TOO_MANY_WATCHERS",
                retry_after_seconds=5.0,
            )
        )

    def close(self) -> None:
        """Ends every subscription: the scaler is going away."""
        self._closed = Unavailable(
            "the scaler is going away; watch anew", reason="SCALER_STOPPING", retry_after_seconds=1
        )
        for watcher in self._watchers:
            watcher.end(self._closed)
