"""What this router reports of its load: counters that add up over routers, and its last minute."""

from collections.abc import Callable, Sequence

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.durations import duration_of, set_time
from services.router.fleet.load import LoadQuantiles, LoadTotals, LoadWindow
from services.router.fleet.snapshot import TierLoad


class LoadReports:
    """Makes the reports of one router, in order.

    `snapshot` gives what waits and runs, `load` what was counted, `wall` seconds since the epoch.
    Counters count from when this is made.
    """

    def __init__(
        self,
        router: str,
        snapshot: Callable[[], Sequence[TierLoad]],
        load: LoadWindow,
        *,
        wall: Callable[[], float],
    ) -> None:
        self._router = router
        self._snapshot = snapshot
        self._load = load
        self._wall = wall
        self._started_at = wall()
        self._last_at: float | None = None
        self._last_tokens: dict[str, int] = {}

    def next(self, now: float) -> pb.ReportLoadRequest:
        """The report of this moment; `now` in monotonic seconds."""
        report = pb.ReportLoadRequest(router=self._router)
        set_time(report.observed_at, self._wall())
        set_time(report.started_at, self._started_at)
        passed = now - self._last_at if self._last_at is not None else 0.0
        tokens: dict[str, int] = {}
        for load in self._snapshot():
            totals = self._load.totals(load.tier)
            made = totals.output_tokens - self._last_tokens.get(load.tier, 0)
            tokens[load.tier] = totals.output_tokens
            tier = _tier(load, totals, self._load.quantiles(load.tier, now))
            tier.output_tokens_per_second = max(made, 0) / passed if passed > 0 else 0.0
            report.tiers.append(tier)
            report.replicas.extend(
                pb.ReplicaLoad(replica=replica.id, in_flight=replica.in_flight)
                for replica in load.replicas
            )
        self._last_at, self._last_tokens = now, tokens
        return report


def _tier(load: TierLoad, totals: LoadTotals, quantiles: LoadQuantiles) -> pb.TierLoad:
    return pb.TierLoad(
        tier=load.tier,
        waiting=load.waiting,
        running=load.running,
        first_text=_points(quantiles.first_text),
        between_tokens=_points(quantiles.between_tokens),
        arrivals=totals.arrivals,
        prompt_tokens=totals.prompt_tokens,
        output_tokens=totals.output_tokens,
        finished=totals.finished,
        first_text_counts=pb.DurationCounts(counts=totals.first_text),
        between_tokens_counts=pb.DurationCounts(counts=totals.between_tokens),
    )


def _points(quantiles: Sequence[tuple[float, float]]) -> list[pb.Quantile]:
    return [
        pb.Quantile(quantile=fraction, value=duration_of(seconds))
        for fraction, seconds in quantiles
    ]
