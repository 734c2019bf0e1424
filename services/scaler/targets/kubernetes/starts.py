"""Which pods have come since we look, and how long each took until it was ready."""

import statistics
from collections import deque
from collections.abc import Collection

from services.scaler.metrics import Metrics
from services.scaler.policy.workload import Pod

KEPT_STARTS = 20


class Starts:
    """Of one pool. Those that were there when we began to look are adopted."""

    def __init__(self, metrics: Metrics) -> None:
        """Nothing was seen yet."""
        self._metrics = metrics
        self._seen: set[str] | None = None
        self._starting: set[str] = set()
        self._seconds: deque[float] = deque(maxlen=KEPT_STARTS)

    @property
    def typical_seconds(self) -> float | None:
        """How long a start takes; None: none was seen."""
        return statistics.median(self._seconds) if self._seconds else None

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
                self._seconds.append(took)
                self._metrics.start_seconds.labels(*labels).observe(took)
