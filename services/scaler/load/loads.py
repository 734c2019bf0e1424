"""What the routers say about their load, added up: the last report of each, and what counters grew.

In process alone: routers report every second, so a new scaler knows all within seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.common.load_totals import LoadTotals
from services.scaler.load.history import HISTORY_SECONDS, MAX_TIERS, History
from services.scaler.policy.demand import Demand, grown

LIVE_SECONDS = 10.0
"""A router that has not reported for this long is not counted."""

FORGET_SECONDS = 60.0
MISSED_SECONDS = 300.0
"""A router that fell silent is missed for so long, as requests may go through it unseen; then it
is taken to be gone for good."""
MAX_ROUTERS = 256
MAX_MISSED = 1024


@dataclass(frozen=True)
class TierLoad:
    """Requests of one tier as one router sees them, or several together.

    Attributes:
        longest: most tokens that one of them may have, prompt and answer together; 0: not known.
    """

    waiting: int
    running: int
    longest: int = 0


@dataclass(frozen=True)
class Run:
    """The counters of one run of a router, by tier; `started_at` tells it from other runs."""

    started_at: int
    tiers: Mapping[str, LoadTotals]


@dataclass(frozen=True)
class Report:
    """A router's load: by tier, requests in flight by replica id, and counters if it has them.

    Attributes:
        leaving: it is the last of its run; the router ends.
    """

    tiers: Mapping[str, TierLoad]
    replicas: Mapping[str, int]
    run: Run | None = None
    leaving: bool = False


class Loads:
    """The load of all routers. Times are those of the fleet's clock."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Report]] = {}
        self._runs: dict[str, Run] = {}
        self._history = History()
        self._counted: dict[str, LoadTotals] = {}
        self._heard: dict[str, float] = {}
        self._asked: dict[str, float] = {}

    def take(self, router: str, report: Report, now: float) -> bool:
        """Keeps the report; False if there are too many routers for one more.

        A router that leaves is forgotten, but for what it counted.
        """
        for name, (at, _) in list(self._last.items()):
            if now - at > FORGET_SECONDS:
                del self._last[name]
                self._runs.pop(name, None)
        if report.leaving and self._superseded(router, report.run):
            return True
        if router not in self._last and len(self._last) >= MAX_ROUTERS:
            return False
        if report.run is not None:
            if not self._counting(now):
                self._history.forget()
            self._grow(router, report.run, now)
        self._last[router] = (now, report)
        self._hear(router, report, now)
        if report.leaving:
            for known in (self._last, self._runs, self._heard):
                known.pop(router, None)
        return True

    def routers(self, now: float) -> int:
        """Routers that report."""
        return sum(1 for _ in self._live(now))

    def tier(self, tier: str, now: float) -> TierLoad:
        """The tier's load, added up over the live routers."""
        loads = [report.tiers[tier] for _, report in self._live(now) if tier in report.tiers]
        return TierLoad(
            sum(load.waiting for load in loads),
            sum(load.running for load in loads),
            max((load.longest for load in loads), default=0),
        )

    def demand(self, tier: str, now: float, seconds: float = HISTORY_SECONDS) -> Demand | None:
        """What the tier was asked for in the last `seconds`, added up over routers.

        None: no live router counts it, or none for long enough. That is not to say: nothing.
        """
        return self._history.demand(tier, seconds, now) if self._counting(now) else None

    def counted(self) -> Mapping[str, LoadTotals]:
        """All that tiers were asked for since this scaler began, added up over routers."""
        return dict(self._counted)

    def counting(self, now: float) -> bool:
        """Whether any live router counts: if none does, nothing that is counted says anything."""
        return self._counting(now)

    def silent(self, now: float) -> dict[str, float]:
        """Seconds since routers were heard of that report no more and are still missed."""
        return {
            router: now - at
            for router, at in self._heard.items()
            if LIVE_SECONDS < now - at <= MISSED_SECONDS
        }

    def known_until(self, now: float) -> float | None:
        """Until when all routers have said what they have; None: none was heard of lately."""
        heard = [at for at in self._heard.values() if now - at <= MISSED_SECONDS]
        return min(heard, default=None)

    def running_on(self, replica: str, now: float) -> int:
        """Requests that the live routers have on the replica."""
        return sum(report.replicas.get(replica, 0) for _, report in self._live(now))

    def idle_seconds(self, tier: str, now: float) -> float | None:
        """How long no request of the tier waited, ran or came; None: not known.

        It is not known while no router counts, or one is missed.
        """
        asked = self._asked.get(tier)
        if asked is None or self.silent(now) or not self._counting(now):
            return None
        return max(0.0, now - asked)

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

    def _counting(self, now: float) -> bool:
        return any(report.run is not None for _, report in self._live(now))

    def _hear(self, router: str, report: Report, now: float) -> None:
        """Notes that the router was heard of, and which tiers it has requests of."""
        for name, at in list(self._heard.items()):
            if now - at > MISSED_SECONDS:
                del self._heard[name]
        if router in self._heard or len(self._heard) < MAX_MISSED:
            self._heard[router] = now
        for tier, load in report.tiers.items():
            if (
                load.waiting
                or load.running
                or (tier not in self._asked and len(self._asked) < MAX_TIERS)
            ):
                self._asked[tier] = now

    def _superseded(self, router: str, run: Run | None) -> bool:
        """Whether a later run of the router reports already."""
        later = self._runs.get(router)
        return run is not None and later is not None and run.started_at < later.started_at

    def _grow(self, router: str, run: Run, now: float) -> None:
        """Adds what the router's counters grew by since they were last heard of.

        A router that was never heard of says where its counters stand, not since when. One of an
        earlier run, which shares its name with a later one, is not counted.
        """
        if self._superseded(router, run):
            return
        before = self._runs.get(router)
        self._runs[router] = run
        for tier, counted in run.tiers.items():
            growth = LoadTotals()
            if before is not None:
                restarted = run.started_at != before.started_at
                growth = grown(before.tiers.get(tier, LoadTotals()), counted, restarted=restarted)
            self._history.add(tier, growth, now)
            if tier in self._counted or len(self._counted) < MAX_TIERS:
                self._counted[tier] = self._counted.get(tier, LoadTotals()) + growth
            if growth.arrivals:
                self._asked[tier] = now
