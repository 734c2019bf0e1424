"""What the local target knows of a pool: what it should be, what failed, how long starts take.

Leaves to `local` which replicas it has and what is done with them.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.scaler.config import Pool
from services.scaler.policy.replicas import NEXT_TRY, Failures, Goal, Patience, after_failure
from services.scaler.ports import PoolStatus
from services.scaler.targets.occupants import Occupant

log = structlog.get_logger()

KEPT_STARTS = 20


@dataclass(frozen=True)
class Wanted:
    """What `Target.resize` last said of a pool."""

    size: int = 0
    draining: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


class KeptPool:
    """A pool, also one that is no longer configured and still has replicas.

    Attributes:
        settings: how it is configured; None: no longer.
        wanted: what it should be; None: nobody has said.
        failures: of its slots, as far as they matter for the next try.
    """

    def __init__(self, name: str, settings: Pool | None) -> None:
        self.settings = settings
        self.wanted: Wanted | None = None
        self.failures: dict[int, Failures] = {}
        self._name = name
        self._trouble = ""
        self._starts: deque[float] = deque(maxlen=KEPT_STARTS)

    @property
    def labels(self) -> tuple[str, str]:
        """Pool and tier, for metrics. A pool that is no longer configured has no tier."""
        return self._name, "" if self.settings is None else self.settings.tier

    def goal(self) -> Goal:
        """What is wanted, for the policy; nothing of a pool that is no longer configured."""
        if self.settings is None or self.wanted is None:
            return Goal(size=0, slots=0, start_seconds=float("inf"))
        return Goal(self.wanted.size, len(self.settings.slots), self.settings.start_seconds)

    def failed(
        self, slot: int, why: str, *, served_seconds: float, patience: Patience, now: float
    ) -> None:
        """Takes a failure of a slot, whose replica had served so long."""
        before = self.failures.get(slot)
        self.failures[slot] = after_failure(before, served_seconds, patience, now, why)

    def started(self, seconds: float) -> None:
        """Takes how long a start took, until the replica was ready."""
        self._starts.append(seconds)

    def note(self, trouble: str) -> None:
        """Keeps the pool's trouble; logs it when it is another one, not as its time passes."""
        before = self._trouble.partition(NEXT_TRY)[0]
        self._trouble = trouble
        if trouble and trouble.partition(NEXT_TRY)[0] != before:
            log.warning("pool in trouble", pool=self._name, trouble=trouble)
        elif before and not trouble:
            log.info("pool out of trouble", pool=self._name)

    def status(self, occupants: Sequence[Occupant]) -> PoolStatus:
        """The pool as others see it, with these replicas."""
        shown = [occupant.status(self.settings) for occupant in occupants]
        return PoolStatus(
            replicas=tuple(status for status in shown if status is not None),
            pending=sum(occupant.present and occupant.replica is None for occupant in occupants),
            ending=sum(not occupant.present for occupant in occupants),
            capacity=0 if self.settings is None else len(self.settings.slots),
            trouble=self._trouble,
            typical_start_seconds=statistics.median(self._starts) if self._starts else None,
        )
