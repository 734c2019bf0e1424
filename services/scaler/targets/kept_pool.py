"""What the local target knows of a pool: what it should be, what failed, how long starts take.

Leaves to `local` which replicas it has and what is done with them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from services.scaler.policy.replicas import NEXT_TRY, Failures, Goal, Patience, State, after_failure
from services.scaler.policy.rollout import Rollout, changes
from services.scaler.policy.start_times import StartTimes
from services.scaler.pools.models import FILE
from services.scaler.pools.pool import Pool
from services.scaler.ports import PoolStatus
from services.scaler.targets.occupants import Occupant
from services.scaler.targets.slots import fingerprint

log = structlog.get_logger()


@dataclass(frozen=True)
class Wanted:
    """What `Target.resize` last said of a pool."""

    size: int = 0
    draining: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()


class KeptPool:
    """A pool, also one that is no longer configured and still has replicas.

    Attributes:
        wanted: what it should be; None: nobody has said.
        failures: of its slots, as far as they matter for the next try.
        notice: why all of its capacity is taken away; empty: it is not.
    """

    def __init__(self, name: str, settings: Pool | None, good: Pool | None = None) -> None:
        """`good`: settings that it was ready with before."""
        self._rollout: Rollout[Pool] | None = None
        self.wanted: Wanted | None = None
        self.failures: dict[int, Failures] = {}
        self.notice = ""
        self._name = name
        self._trouble = ""
        self._starts = StartTimes()
        self.configure(settings)
        self.recall(good)

    @property
    def settings(self) -> Pool | None:
        """The settings that its replicas are to have; None: it is no longer configured."""
        return None if self._rollout is None else self._rollout.in_force

    def configure(self, settings: Pool | None, *, again: bool = False) -> None:
        """Takes what the file says of it.

        Args:
            settings: how it is configured; None: no longer.
            again: try them once more though they are refused.
        """
        before = self._rollout
        if settings is None or before is None:
            self._rollout = None if settings is None else Rollout(settings)
        elif settings != before.asked or (again and before.refused is not None):
            good = before.good
            alike = good is not None and _alike(settings, good)
            if not _alike(settings, before.in_force):
                self.failures.clear()  # they were those of other settings
            self._rollout = before.ask(settings, alike=alike)

    def recall(self, good: Pool | None) -> None:
        """Takes the settings that it was ready with before, under an earlier scaler."""
        if good is not None and self._rollout is not None:
            asked = self._rollout.asked
            self._rollout = Rollout(asked, asked if _alike(asked, good) else good)

    def whole(self, occupants: Sequence[Occupant], patience: Patience, now: float) -> Pool | None:
        """Settings that turn out to be good, as the whole pool is ready with them.

        While there are others to go back to, it has to be ready with them for a while.
        """
        if self._rollout is None or self.wanted is None or self.wanted.size == 0:
            return None
        present = [occupant for occupant in occupants if occupant.present]
        until = now - patience.stable_seconds if self.on_trial else now
        ready = sum(
            occupant.state is State.READY
            and not occupant.quiet
            and occupant.ready_at is not None
            and occupant.ready_at <= until
            for occupant in present
        )
        old = any(occupant.outdated(self.settings) for occupant in present)
        after = self._rollout.whole()
        if old or ready < self.wanted.size or after == self._rollout:
            return None
        self._rollout = after
        return after.good

    def judge(self, why: str, now: float, *, serving: bool) -> bool:
        """A replica failed with the settings in force; whether the pool goes by others now.

        Args:
            why: it failed.
            now: seconds since 1970.
            serving: whether another of its replicas serves.
        """
        before = self._rollout
        if before is None or before.good is None:
            return False
        differ = changes(_told(before.good), _told(before.asked), f"pools.{self._name}")
        self._rollout = before.failed(why, now, tuple(differ), serving=serving)
        if self._rollout == before:
            return False
        if before.turns == self._rollout.turns == 0:
            self.failures.clear()  # they were those of the refused settings
        return True

    @property
    def labels(self) -> tuple[str, str]:
        """Pool and tier, for metrics. A pool that is no longer configured has no tier."""
        return self._name, "" if self.settings is None else self.settings.tier

    @property
    def on_trial(self) -> bool:
        """Whether its settings are new, and there are good ones to go back to."""
        return self._rollout is not None and self._rollout.tried

    def goal(self, *, spare: bool = True) -> Goal:
        """What is wanted, for the policy; nothing of a pool that is no longer configured.

        Where its capacity is taken away there is no slot left to start on.

        `spare`: replicas that are out of date may go.
        """
        if self.settings is None or self.wanted is None:
            return Goal(size=0, slots=0, start_seconds=float("inf"), spare=spare)
        slots = 0 if self.notice else len(self.settings.slots)
        return Goal(self.wanted.size, slots, self.settings.start_seconds, spare)

    def short_of(self, occupants: Sequence[Occupant]) -> bool:
        """Whether fewer replicas are ready than it wants."""
        if self.settings is None:
            return False
        wanted = self.settings.first if self.wanted is None else self.wanted.size
        return sum(occupant.state is State.READY for occupant in occupants) < wanted

    def failed(
        self, slot: int, why: str, *, served_seconds: float, patience: Patience, now: float
    ) -> None:
        """Takes a failure of a slot, whose replica had served so long."""
        before = self.failures.get(slot)
        self.failures[slot] = after_failure(before, served_seconds, patience, now, why)

    def started(self, seconds: float) -> None:
        """Takes how long a start took, until the replica was ready."""
        self._starts = self._starts.add(seconds)

    def note(self, trouble: str) -> None:
        """Keeps the pool's trouble; logs it when it is another one, not as its time passes."""
        if self._rollout is not None and self._rollout.refused is not None:
            refused = f"its new settings are refused: {self._rollout.refused.reason}; it goes on"
            trouble = f"{refused} with the last good ones{'; ' if trouble else ''}{trouble}"
        before = self._trouble.partition(NEXT_TRY)[0]
        self._trouble = trouble
        if trouble and trouble.partition(NEXT_TRY)[0] != before:
            log.warning("pool in trouble", pool=self._name, trouble=trouble)
        elif before and not trouble:
            log.info("pool out of trouble", pool=self._name)

    def status(self, occupants: Sequence[Occupant]) -> PoolStatus:
        """The pool as others see it, with these replicas."""
        refused = None if self._rollout is None else self._rollout.refused
        shown = [occupant.status(self.settings) for occupant in occupants]
        return PoolStatus(
            replicas=tuple(status for status in shown if status is not None),
            pending=sum(occupant.present and occupant.replica is None for occupant in occupants),
            ending=sum(not occupant.present for occupant in occupants),
            capacity=0 if self.settings is None or self.notice else len(self.settings.slots),
            trouble="; ".join(filter(None, (self.notice, self._trouble))),
            starts=self._starts,
            in_force=self.settings if refused is not None else None,
            refused=refused,
        )


def _told(pool: Pool) -> dict[str, Any]:
    """Settings by the names that operators know; of a model's file a digest."""
    told = asdict(pool)
    text = told.pop("config_pbtxt")
    told[FILE] = f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}" if text else None
    return told


def _alike(one: Pool, other: Pool) -> bool:
    """Whether a replica on any slot of both is the same."""
    slots = zip(one.slots, other.slots, strict=False)
    return all(fingerprint(one, first) == fingerprint(other, second) for first, second in slots)
