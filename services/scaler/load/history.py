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
    since: float
    growth: deque[tuple[float, LoadTotals]] = field(default_factory=deque)


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
        if known.growth and int(known.growth[-1][0]) == int(now):
            growth += known.growth.pop()[1]
        known.growth.append((now, growth))
        while known.growth[0][0] < now - HISTORY_SECONDS:
            known.growth.popleft()

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
        counted = LoadTotals()
        for at, growth in known.growth:
            if at > now - span:
                counted += growth
        return Demand(span, counted)
