"""What waits and runs on the fleet at one moment, and how Prometheus reads it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class ReplicaLoad:
    """Requests that this router has running on a replica."""

    id: str
    in_flight: int


@dataclass(frozen=True)
class TierLoad:
    """Requests of a tier that wait for a place on a replica, and that run.

    Attributes:
        max_sequence_tokens: most that a request of it may have; 0 of a tier that is no more.
    """

    tier: str
    waiting: int
    running: int
    replicas: tuple[ReplicaLoad, ...]
    max_sequence_tokens: int = 0


class LoadCollector(Collector):
    """Reads what waits and runs when Prometheus asks: no gauge can be out of date."""

    def __init__(self, snapshot: Callable[[], Sequence[TierLoad]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The gauges of waiting and running requests, by tier."""
        waiting = GaugeMetricFamily(
            "pennyweight_router_waiting",
            "Requests waiting for a place on a replica now.",
            labels=("tier",),
        )
        running = GaugeMetricFamily(
            "pennyweight_router_running", "Requests running on replicas now.", labels=("tier",)
        )
        for load in self._snapshot():
            waiting.add_metric((load.tier,), load.waiting)
            running.add_metric((load.tier,), load.running)
        yield waiting
        yield running
