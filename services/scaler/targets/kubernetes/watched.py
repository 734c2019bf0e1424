"""Keeps what there is of one kind of object in memory: listed, then watched, then listed again.

A change is known the moment the API server tells it. A stream on which nothing comes any more is
noticed by listing anew after a while; a stream that breaks, or that the server cannot go on with
(410), at once. What is known stays while nothing new can be learned, and is said to be old.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

import structlog

from services.common.backoff import Backoff
from services.scaler.targets.kubernetes.client import Kind
from services.scaler.targets.kubernetes.faults import ClusterFault, Fault

log = structlog.get_logger()

WATCH_SECONDS = 30.0
"""How long one stream is believed; then all is listed anew."""
OLD_SECONDS = 45.0
"""What nobody has told or confirmed for so long is old."""
AGAIN = Backoff(first_seconds=0.5, cap_seconds=15.0)


class Named(Protocol):
    """What is watched has a name that is its own in its namespace."""

    @property
    def name(self) -> str:
        """The name."""


T = TypeVar("T", bound=Named)


class Source(Protocol):
    """Where objects come from; see `KubernetesClient`."""

    async def list(self, kind: Kind[Any]) -> tuple[list[Any], str]:
        """All objects, and the version to watch from."""

    def watch(
        self, kind: Kind[Any], version: str, seconds: float
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """Changes from then on, for so many seconds."""


class Watched(Generic[T]):
    """Objects of one kind.

    Attributes:
        found: by name.
        fault: why nothing new can be learned; empty: it can.
        listings: how often all was listed.
    """

    def __init__(
        self,
        source: Source,
        kind: Kind[T],
        on_change: Callable[[], None],
        on_fault: Callable[[Fault], None],
        *,
        clock: Callable[[], float],
        seconds: float = WATCH_SECONDS,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_change` hears of each change, `on_fault` of each failure."""
        self._found: dict[str, T] = {}
        self.fault = ""
        self.listings = 0
        self._source = source
        self._kind = kind
        self._on_change = on_change
        self._on_fault = on_fault
        self._clock = clock
        self._seconds = seconds
        self._pause = pause
        self._confirmed_at: float | None = None

    @property
    def found(self) -> Mapping[str, T]:
        """What there is, by name."""
        return self._found

    @property
    def known(self) -> bool:
        """Whether it was ever listed."""
        return self._confirmed_at is not None

    def is_old(self, now: float) -> bool:
        """Whether nothing was told or confirmed for too long."""
        limit = self._seconds + OLD_SECONDS - WATCH_SECONDS
        return self._confirmed_at is None or now - self._confirmed_at > limit

    async def list(self) -> str:
        """Lists all anew; the version to watch from.

        Raises:
            ClusterFault: that cannot be done.
        """
        items, version = await self._source.list(self._kind)
        self._found = {item.name: item for item in items}
        self.listings += 1
        self._heard()
        return version

    async def run(self) -> None:
        """Keeps it for ever; the caller owns it."""
        failures, anew = 0, False
        while True:
            try:
                version = await self.list()
                failures = 0
                await self._follow(version)
                anew = False
            except ClusterFault as error:
                self._on_fault(error.fault)
                if error.fault is Fault.GONE and not anew:
                    anew = True  # at once; who is told so again, before a stream ends well, waits
                    continue
                failures += 1
                if self.fault != str(error):
                    log.warning("cannot be watched", reason=str(error))
                self.fault = str(error)
                self._on_change()
                wait = AGAIN.seconds(failures, random.random())  # noqa: S311
                await self._pause(max(wait, error.retry_after_seconds))

    async def _follow(self, version: str) -> None:
        async with aclosing(self._source.watch(self._kind, version, self._seconds)) as changes:
            async for event, item in changes:
                if event == "DELETED":
                    self._found.pop(item.name, None)
                elif event in ("ADDED", "MODIFIED"):
                    self._found[item.name] = item
                self._heard()

    def _heard(self) -> None:
        if self.fault:
            log.info("can be watched again", was=self.fault)
        self.fault = ""
        self._confirmed_at = self._clock()
        self._on_change()
