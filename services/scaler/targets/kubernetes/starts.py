"""Which pods have come since we look, and how long each took until it was ready."""

from collections.abc import Collection

from services.scaler.metrics import Metrics
from services.scaler.policy.start_times import StartTimes
from services.scaler.policy.workload import Pod


class Starts:
    """Of one pool. Those that were there when we began to look are adopted."""

    def __init__(self, metrics: Metrics) -> None:
        """Nothing was seen yet."""
        self._metrics = metrics
        self._seen: set[str] | None = None
        self._starting: set[str] = set()
        self.times = StartTimes()

    def note(self, pods: Collection[Pod], labels: tuple[str, str]) -> None:
        """Takes which pods are there now; `labels`: pool and tier."""
        there = {pod.uid for pod in pods}
        if self._seen is None:
            self._metrics.adoptions.labels(*labels).inc(len(there))
        else:
            new = there - self._seen
            self._metrics.starts.labels(*labels).inc(len(new))
            self._starting = (self._starting | new) & there
        self._seen = there
        for pod in pods:
            if pod.uid in self._starting and pod.ready_since is not None:
                self._starting.discard(pod.uid)
                took = max(0.0, pod.ready_since - pod.created)
                self.times = self.times.add(took)
                self._metrics.start_seconds.labels(*labels).observe(took)
