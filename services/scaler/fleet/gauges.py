"""What of the fleet its metrics show, pool by pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.scaler.fleet.sizes import Sized
from services.scaler.metrics import Metrics
from services.scaler.policy.draining import ReplicaState
from services.scaler.policy.sizing.views import Bound, Decision

REVERSAL_SECONDS = 1800.0
"""A size that falls so soon after it rose, or the other way round, has flapped."""


@dataclass(frozen=True)
class Counted:
    """A pool as its gauges show it.

    Attributes:
        tier: that it serves.
        desired: replicas wanted.
        states: of its replicas.
        pending: replicas on their way without an address.
        ending: replicas that are being cleared away.
        troubled: something keeps it from its size.
        refused: it goes by its last good settings.
        usd_per_hour: of one replica; 0: not known.
        sized: what came of its last tick; None: it has a fixed size.
    """

    tier: str
    desired: int
    states: Sequence[ReplicaState]
    pending: int
    ending: int
    troubled: bool
    refused: bool
    usd_per_hour: float
    sized: Sized | None


class Gauges:
    """Shows pools; knows which it has shown, so that none stays that is gone."""

    def __init__(self, metrics: Metrics) -> None:
        """Nothing is shown yet."""
        self._metrics = metrics
        self._labelled: set[tuple[str, str]] = set()
        self._shown: dict[str, Counted] = {}
        self._turned: dict[str, tuple[int, float]] = {}  # last direction, and when

    def keep(self, tiers: Mapping[str, str]) -> None:
        """No longer shows what is not configured any more, or goes by another tier again.

        Args:
            tiers: of the configured pools, by name.
        """
        labelled = set(tiers.items())
        for labels in self._labelled - labelled:
            self._metrics.forget(*labels, ReplicaState, Bound)
            self._shown.pop(labels[0], None)
        self._labelled = labelled
        for gone in self._turned.keys() - tiers.keys():
            del self._turned[gone]

    def show(self, pool: str, counted: Counted) -> None:
        """Shows a pool. What shows already is not set again: that is most of a round's work."""
        if self._shown.get(pool) == counted:
            return
        self._shown[pool] = counted
        metrics, labels = self._metrics, (pool, counted.tier)
        metrics.desired.labels(*labels).set(counted.desired)
        metrics.trouble.labels(*labels).set(counted.troubled)
        metrics.settings_refused.labels(*labels).set(counted.refused)
        counts = {state: counted.states.count(state) for state in ReplicaState}
        counts[ReplicaState.STARTING] += counted.pending
        counts[ReplicaState.GONE] = counted.ending
        for state, count in counts.items():
            metrics.replicas.labels(*labels, str(state)).set(count)
        metrics.usd_per_hour.labels(*labels).set(sum(counts.values()) * counted.usd_per_hour)
        if counted.sized is None:
            return
        metrics.stale_signals.labels(*labels).set(len(counted.sized.stale))
        bound = {one.bound for one in counted.sized.decision.constraints}
        for kind in Bound:
            metrics.bound.labels(*labels, str(kind)).set(kind in bound)

    def decided(self, pool: str, tier: str, decision: Decision, now: float) -> None:
        """Counts a decision that changes a size."""
        change = decision.size - decision.before
        if change == 0:
            return
        direction = 1 if change > 0 else -1
        way = "up" if change > 0 else "down"
        self._metrics.decisions.labels(pool, tier, way).inc()
        before = self._turned.get(pool)
        if before is not None and before[0] != direction and now - before[1] < REVERSAL_SECONDS:
            self._metrics.reversals.labels(pool, tier).inc()
        self._turned[pool] = direction, now
