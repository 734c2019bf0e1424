"""What the cache counts, and how Prometheus reads it.

The counts are plain integers, read when asked for: counting costs a request nothing to speak of,
and ``GetStats`` and ``/metrics`` cannot disagree. Labels are bounded: no tenants, no routes.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.cache.ports import StoreCounts

LOOKUP_RESULTS = ("hit", "shared", "leased", "absent", "failed")
STORE_RESULTS = ("stored", "not_held", "too_large", "failed")
ABANDON_RESULTS = ("ended", "awaited", "failed")

OPERATION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5, 30)


@dataclass
class Counts:
    """Operations since the start, by result; waits and streams as they are now.

    Attributes:
        lookups: by `LOOKUP_RESULTS`; "absent" is a miss without a lease, "failed" one for want of
            the store.
        stores: by `STORE_RESULTS`.
        abandons: by `ABANDON_RESULTS`.
        refused: operations with a wrong request.
        streams: open Exchange streams.
    """

    lookups: Counter[str] = field(default_factory=Counter)
    stores: Counter[str] = field(default_factory=Counter)
    abandons: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    streams: int = 0

    @property
    def store_errors(self) -> int:
        """Operations the store could not serve."""
        return self.lookups["failed"] + self.stores["failed"] + self.abandons["failed"]


class CacheCollector(Collector):
    """Reads the counts of the operations and of the store when Prometheus asks."""

    def __init__(self, counts: Counts, store: Callable[[], StoreCounts]) -> None:
        self._counts = counts
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """All metrics of the cache but the histogram."""
        counts, store = self._counts, self._store()
        for name, text, values, results in (
            ("lookups", "Lookups answered.", counts.lookups, LOOKUP_RESULTS),
            ("stores", "Answers offered.", counts.stores, STORE_RESULTS),
            ("abandons", "Leases given back.", counts.abandons, ABANDON_RESULTS),
        ):
            listed = f"{text} By result: {', '.join(results)}."
            family = CounterMetricFamily(f"pennyweight_cache_{name}", listed, labels=("result",))
            for result in results:
                family.add_metric((result,), values[result])
            yield family
        yield _counter("refused", "Operations with a wrong request.", counts.refused)
        yield _counter(
            "store_errors",
            "Operations the store could not serve; each was a miss or left out.",
            counts.store_errors,
        )
        yield _counter("leases_expired", "Leases that ended by themselves.", store.leases_expired)
        yield _counter("evicted", "Entries dropped for room.", store.evicted)
        yield _counter(
            "damaged",
            "Entries that could not be read, and what no cache has written; dropped.",
            store.damaged,
        )
        yield _gauge("streams", "Open Exchange streams.", counts.streams)
        yield _gauge("waiters", "Lookups that wait for another's answer.", store.waiters)
        yield _gauge("store_up", "1 while the store can be used.", int(store.up))
        if store.entries is not None:
            yield _gauge("entries", "Entries held, where they are in memory.", store.entries)
        if store.bytes is not None:
            yield _gauge("bytes", "Bytes that entries take, where they are in memory.", store.bytes)


def operation_seconds(registry: CollectorRegistry) -> Histogram:
    """The histogram of how long operations take, waits for another's answer included."""
    return Histogram(
        "pennyweight_cache_operation_seconds",
        "How long an operation took in the cache, waits for another's answer included.",
        ("operation",),
        buckets=OPERATION_BUCKETS,
        registry=registry,
    )


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"pennyweight_cache_{name}", text, value=value)


def _gauge(name: str, text: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pennyweight_cache_{name}", text, value=value)
