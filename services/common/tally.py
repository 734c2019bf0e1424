"""Counters and histograms for the hot path: plain numbers, put into Prometheus' form when scraped.

For what every request touches; `prometheus_client`'s own, which lock for each observation and walk
the buckets one by one, serve everywhere else. One thread counts, any may scrape: a scrape sees each
number as it is at that moment.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Adds to it; never negative."""
        self.value += amount


class Counted(Collector):
    """A counter for each set of labels."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        """`name` is without ``_total``."""
        self._name, self._text, self._labels = name, text, labels
        self._children: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The counter with these labels; look it up once where it is hot."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Count()
        return child

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.copy().items():
            family.add_metric(values, child.value)
        yield family


class Histogram:
    """One histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Takes a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histograms(Collector):
    """A histogram for each set of labels."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """`bounds` are the buckets' upper ends, ascending; one without an end follows."""
        self._name, self._text, self._labels = name, text, labels
        self._bounds = tuple(bounds)
        self._ends = [*map(floatToGoString, bounds), "+Inf"]
        self._children: dict[tuple[str, ...], Histogram] = {}
        registry.register(self)

    def labels(self, *values: str) -> Histogram:
        """The histogram with these labels; look it up once where it is hot."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Histogram(self._bounds)
        return child

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self._children.copy().items():
            so_far, buckets = 0, []
            for end, count in zip(self._ends, child.counts.copy(), strict=True):
                so_far += count
                buckets.append((end, so_far))
            family.add_metric(values, buckets, child.total)
        yield family
