"""What the core keeps of a pool from one tick to the next.

It is plain data: whoever keeps it over a restart gives it back as it was. Times in it are those of
`View.now`; after a jump of that clock windows begin anew, and what was learned stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from services.scaler.policy.sizing.limits import Past, changed
from services.scaler.policy.sizing.money import Spent
from services.scaler.policy.sizing.rules import RuleState
from services.scaler.policy.sizing.schedule import Times
from services.scaler.policy.sizing.settings import Behavior
from services.scaler.policy.sizing.work import WorkMemory
from services.scaler.policy.start_times import StartTimes


@dataclass(frozen=True, slots=True)
class SizeMemory:
    """Of one pool. At first: `SizeMemory(size)` with the replicas that are there or on their way.

    Attributes:
        size: replicas wanted.
        now: time of the last tick; None: there was none.
        work: what demand is told from.
        past: what was wanted and what changed.
        rules: state of the rules.
        burst: until when a burst lasts; None: there is none.
        times: schedules that hold.
    """

    size: int
    now: float | None = None
    work: WorkMemory = field(default_factory=WorkMemory)
    past: Past = field(default_factory=Past)
    rules: tuple[RuleState, ...] = ()
    burst: float | None = None
    times: Times = field(default_factory=Times)

    def restarted(self) -> "SizeMemory":
        """After a jump of the clock."""
        return replace(
            self, now=None, work=self.work.restarted(), past=Past(), rules=(), burst=None
        )

    def sized(self, behavior: Behavior, size: int) -> "SizeMemory":
        """With the size that came of this tick; rates count the change."""
        past = self.past
        if self.now is not None:
            past = changed(behavior, past, self.now, size - self.size)
        return SizeMemory(size, self.now, self.work, past, self.rules, self.burst, self.times)


@dataclass(frozen=True, slots=True)
class Lasting:
    """What of all pools holds beyond a restart.

    Attributes:
        spent: what was spent today.
        work: what was learned, by pool, model and precision: of other replicas it says nothing.
        starts: how long the last starts took, by the same.
    """

    spent: Spent = field(default_factory=Spent)
    work: Mapping[tuple[str, str, str], WorkMemory] = field(default_factory=dict)
    starts: Mapping[tuple[str, str, str], StartTimes] = field(default_factory=dict)
