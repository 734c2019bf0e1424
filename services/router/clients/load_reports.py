"""What this router reports of its load: what waits and runs, and counters that add up."""

from collections.abc import Callable, Sequence

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.durations import set_time
from services.common.load_totals import LoadTotals
from services.router.fleet.load import LoadWindow
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

    def next(self, *, leaving: bool = False) -> pb.ReportLoadRequest:
        """The report of this moment; `leaving`: the last one."""
        report = pb.ReportLoadRequest(router=self._router, leaving=leaving)
        set_time(report.observed_at, self._wall())
        set_time(report.started_at, self._started_at)
        for load in self._snapshot():
            report.tiers.append(_tier(load, self._load.totals(load.tier)))
            report.replicas.extend(
                pb.ReplicaLoad(replica=replica.id, in_flight=replica.in_flight)
                for replica in load.replicas
            )
        return report


def _tier(load: TierLoad, totals: LoadTotals) -> pb.TierLoad:
    return pb.TierLoad(
        tier=load.tier,
        waiting=load.waiting,
        running=load.running,
        arrivals=totals.arrivals,
        prompt_tokens=totals.prompt_tokens,
        output_tokens=totals.output_tokens,
        finished=totals.finished,
        first_text_counts=pb.DurationCounts(counts=totals.first_text),
        between_tokens_counts=pb.DurationCounts(counts=totals.between_tokens),
        max_sequence_tokens=load.max_sequence_tokens,
    )
