"""Several targets as one: each keeps the pools that are in its place.

What one of them cannot do is the trouble of its pools alone: where it raises, or cannot see, what
was last known of its pools stays and nothing is decided of them, while the others go on.
"""

import asyncio
import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from enum import StrEnum

import structlog

from services.common.config import ConfigError
from services.common.kept_up import kept_up
from services.scaler.config import Scaling
from services.scaler.pools.pool import Pool
from services.scaler.ports import OnChange, PoolStatus, Target

log = structlog.get_logger()

MOVED = "its pool is in another place now"
OPEN_SECONDS = 60.0
"""How long the start waits for a target."""


class Where(StrEnum):
    """The places that pools may be in, by their keys in `scaling.yaml`."""

    SLOTS = "slots"
    KUBERNETES = "kubernetes"
    EXTERNAL = "external"


def where(pool: Pool) -> Where:
    """The place that a pool is in."""
    if pool.kubernetes is not None:
        return Where.KUBERNETES
    return Where.EXTERNAL if pool.external is not None else Where.SLOTS


def part(scaling: Scaling, place: Where) -> Scaling:
    """The settings with the pools of one place alone, of which there may be none."""
    own = copy.copy(scaling)
    pools = {name: pool for name, pool in scaling.pools.items() if where(pool) is place}
    object.__setattr__(own, "pools", pools)
    return own


Make = Callable[[Scaling], Target]
"""Makes the target of a place; it may raise, which is then the trouble of the pools there."""


class SeveralTargets:
    """See `services.scaler.ports.Target`.

    `makes` makes a target once there is a pool in its place. That of slots is always there, as
    replicas of an earlier scaler may be; where it fails, so does the whole.
    """

    def __init__(
        self, scaling: Scaling, makes: Mapping[Where, Make], *, open_seconds: float = OPEN_SECONDS
    ) -> None:
        self._scaling = scaling
        self._makes = makes
        self._open_seconds = open_seconds
        self._targets: dict[Where, Target] = {}
        self._open: set[Where] = set()
        self._troubles: dict[Where, str] = {}
        self._told: dict[Where, str] = {}
        self._last: dict[Where, Mapping[str, PoolStatus]] = {}
        self._on_change: OnChange = lambda: None
        self._tasks: asyncio.TaskGroup | None = None

    async def open(self, on_change: OnChange) -> None:
        """Opens the targets that are needed, side by side.

        Raises:
            ConfigError: one cannot be used.
        """
        self._on_change = on_change
        self._make()
        await asyncio.gather(*(self._opened(place) for place in self._targets))

    async def run(self) -> None:
        """Runs all targets until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for place in list(self._targets):
                self._start(place)

    def configure(self, scaling: Scaling, *, again: bool = False) -> None:
        """Takes changed settings; a pool that is in another place now is made anew there."""
        self._scaling = scaling
        before = set(self._targets)
        self._make()
        for place, target in self._targets.items():
            if place in before:
                self._guarded(place, lambda: target.configure(part(scaling, place), again=again))  # noqa: B023
            else:
                self._start(place)
        self._on_change()

    def observe(self) -> Mapping[str, PoolStatus]:
        """Every pool, also those whose target cannot see them now."""
        seen: dict[str, PoolStatus] = {}
        for place in Where:
            for name, status in self._of(place).items():
                owner = self._owner(name)
                told = status if owner in (None, place) else _moved(status)
                if name not in seen:
                    seen[name] = told
                elif owner is place:
                    seen[name] = _joined(told, seen[name])
                else:
                    seen[name] = _joined(seen[name], told)
        return seen

    def resize(
        self, pool: str, size: int, *, draining: Collection[str], drained: Collection[str]
    ) -> None:
        """Says what the pool should be, each target of its own replicas."""
        owner = self._owner(pool)
        for place, target in self._targets.items():
            status = self._last.get(place, {}).get(pool)
            if status is None and place is not owner:
                continue
            own = {each.replica.id for each in status.replicas} if status is not None else set()
            wanted = size if owner in (None, place) else 0
            self._guarded(
                place,
                lambda: target.resize(  # noqa: B023 - called at once
                    pool,
                    wanted,  # noqa: B023
                    draining=own.intersection(draining),  # noqa: B023
                    drained=own.intersection(drained),  # noqa: B023
                ),
            )

    async def close(self) -> None:
        """Lets go of everything."""
        for target in self._targets.values():
            try:
                await target.close()
            except Exception:
                log.exception("a target could not be closed")

    def _make(self) -> None:
        needed = {Where.SLOTS, *map(where, self._scaling.pools.values())}
        for place in Where:
            if place not in needed or place in self._targets or place not in self._makes:
                continue
            try:
                self._targets[place] = self._makes[place](part(self._scaling, place))
                self._troubles.pop(place, None)
            except Exception as error:
                if place is Where.SLOTS:
                    raise
                self._failed(place, error)

    async def _opened(self, place: Where) -> None:
        try:
            async with asyncio.timeout(None if place is Where.SLOTS else self._open_seconds):
                await self._targets[place].open(self._on_change)
            self._open.add(place)
        except ConfigError:
            raise
        except Exception as error:
            if place is Where.SLOTS:
                raise
            self._failed(place, error)

    def _start(self, place: Where) -> None:
        if self._tasks is None:
            return
        target = self._targets[place]

        async def run() -> None:
            if place not in self._open:
                await self._opened(place)
                self._on_change()
            await target.run()

        # A scaler that cannot keep its own processes is better begun anew, as a whole.
        kept = run() if place is Where.SLOTS else kept_up(f"target {place}", run)
        self._tasks.create_task(kept)

    def _owner(self, pool: str) -> Where | None:
        configured = self._scaling.pools.get(pool)
        return None if configured is None else where(configured)

    def _of(self, place: Where) -> Mapping[str, PoolStatus]:
        """What a target sees; where it does not, what was last seen, and that it is held."""
        found: Mapping[str, PoolStatus] | None = None
        if place in self._targets:
            try:
                found = self._targets[place].observe()
                if found is not None and place in self._open:
                    self._troubles.pop(place, None)
            except Exception as error:  # noqa: BLE001 - it is told, and the others go on
                self._failed(place, error)
        if found is not None:
            self._last[place] = found
            return found
        held = self._troubles.get(place, "the replicas cannot be observed")
        unseen = {
            name: PoolStatus(held=held, trouble=held, known=False)
            for name, pool in self._scaling.pools.items()
            if where(pool) is place and place in self._makes
        }
        last = self._last.get(place, {})
        return unseen | {
            name: replace(status, held=held, trouble=held) for name, status in last.items()
        }

    def _guarded(self, place: Where, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it is told, and the others go on
            self._failed(place, error)

    def _failed(self, place: Where, error: Exception) -> None:
        why = f"the target of {place} failed: {type(error).__name__}: {error}"
        self._troubles[place] = why
        if self._told.get(place) != why:
            log.error("a target failed; its pools stay", target=str(place), exc_info=error)
            self._told[place] = why


def _moved(status: PoolStatus) -> PoolStatus:
    """Of a pool that another target has now: all it has here leaves."""
    leaving = tuple(
        each if each.leaving else replace(each, leaving=MOVED) for each in status.replicas
    )
    return PoolStatus(replicas=leaving, ending=status.ending)


def _joined(main: PoolStatus, other: PoolStatus) -> PoolStatus:
    """A pool of which another target still has something."""
    return replace(
        main,
        replicas=(*main.replicas, *other.replicas),
        pending=main.pending + other.pending,
        ending=main.ending + other.ending,
    )
