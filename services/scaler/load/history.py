"""What tiers were asked for in the last minute, second by second, added up over routers."""

from collections import deque
from dataclasses import dataclass, field

from services.common.load_totals import LoadTotals
from services.scaler.policy.demand import Demand

HISTORY_SECONDS = 60.0
SHORTEST_SECONDS = 1.0
"""A rate over less than this says nothing."""
MAX_TIERS = 256


@dataclass
class _Tier:
    """What a tier was asked for, added up since it is known: any span of it is one difference.

    Attributes:
        since: when it began to be known.
        before: all until the first of `totals`.
        totals: when it grew, and all until then.
    """

    since: float
    before: LoadTotals = field(default_factory=LoadTotals)
    totals: deque[tuple[float, LoadTotals]] = field(default_factory=deque)


class History:
    """Growth of counters by tier. Times are those of the fleet's clock, and never go back."""

    def __init__(self) -> None:
        self._tiers: dict[str, _Tier] = {}

    def add(self, tier: str, growth: LoadTotals, now: float) -> None:
        """Takes what a router's counters grew by; the first time says when they began to be known.

        What comes in the same second is kept as one.
        """
        known = self._tiers.get(tier)
        if known is None:
            if len(self._tiers) >= MAX_TIERS:
                return
            known = self._tiers[tier] = _Tier(since=now)
        total = (known.totals[-1][1] if known.totals else known.before) + growth
        if known.totals and int(known.totals[-1][0]) == int(now):
            known.totals.pop()
        known.totals.append((now, total))
        while known.totals[0][0] < now - HISTORY_SECONDS:
            known.before = known.totals.popleft()[1]

    def forget(self) -> None:
        """Nobody was heard of for a while: what comes next is the beginning."""
        self._tiers.clear()

    def demand(self, tier: str, seconds: float, now: float) -> Demand | None:
        """What the tier was asked for in the last `seconds`; None: not known for long enough."""
        known = self._tiers.get(tier)
        if known is None:
            return None
        span = min(seconds, HISTORY_SECONDS, now - known.since)
        if span < SHORTEST_SECONDS:
            return None
        before = known.before
        for at, total in known.totals:
            if at > now - span:
                break
            before = total
        return Demand(span, known.totals[-1][1] + -before)
