"""What the routers last said about their load: one report for each router, with its age.

In process alone: routers report every second, so a new scaler knows all within seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LIVE_SECONDS = 10.0
"""A router that has not reported for this long is not counted."""

FORGET_SECONDS = 60.0
MAX_ROUTERS = 256


@dataclass(frozen=True)
class TierLoad:
    """Requests of one tier as one router sees them."""

    waiting: int
    running: int


@dataclass(frozen=True)
class Report:
    """A router's load: by tier, and requests in flight by replica id."""

    tiers: Mapping[str, TierLoad]
    replicas: Mapping[str, int]


class Loads:
    """The last report of each router. Times are those of the fleet's clock."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Report]] = {}

    def take(self, router: str, report: Report, now: float) -> bool:
        """Keeps the report; False if there are too many routers for one more."""
        for name, (at, _) in list(self._last.items()):
            if now - at > FORGET_SECONDS:
                del self._last[name]
        if router not in self._last and len(self._last) >= MAX_ROUTERS:
            return False
        self._last[router] = (now, report)
        return True

    def routers(self, now: float) -> int:
        """Routers that report."""
        return sum(1 for _ in self._live(now))

    def tier(self, tier: str, now: float) -> TierLoad:
        """The tier's load, summed over the live routers."""
        found = [report.tiers[tier] for _, report in self._live(now) if tier in report.tiers]
        return TierLoad(sum(one.waiting for one in found), sum(one.running for one in found))

    def in_flight(self, replica: str, since: float, now: float) -> list[int | None]:
        """Each live router's requests on the replica; None where its report is older than `since`.

        A router that does not mention the replica has nothing on it.
        """
        return [
            report.replicas.get(replica, 0) if at >= since else None
            for at, report in self._live(now)
        ]

    def _live(self, now: float) -> Iterator[tuple[float, Report]]:
        return ((at, report) for at, report in self._last.values() if now - at <= LIVE_SECONDS)
