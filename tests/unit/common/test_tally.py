"""What the hot path counts is what Prometheus' own would have counted."""

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.common.tally import Counted, Histograms

BOUNDS = (0.1, 0.5, 1.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels, when they began left out."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 7.0]))))
def test_they_expose_what_the_library_exposes(seen: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    count, histogram = (
        Counted("sold", "Sold.", ("kind",), ours),
        Histograms("size", "Size.", ("kind",), BOUNDS, ours),
    )
    counter = prometheus_client.Counter("sold", "Sold.", ("kind",), registry=theirs)
    sizes = prometheus_client.Histogram("size", "Size.", ("kind",), buckets=BOUNDS, registry=theirs)
    for kind, value in seen:
        count.labels(kind).inc(2)
        counter.labels(kind).inc(2)
        histogram.labels(kind).observe(value)
        sizes.labels(kind).observe(value)
    assert samples(ours) == samples(theirs)
    assert prometheus_client.generate_latest(ours).count(b"# HELP") == 2


def test_a_child_is_one_and_the_same() -> None:
    registry = CollectorRegistry()
    counted = Counted("sold", "Sold.", ("kind",), registry)
    assert counted.labels("a") is counted.labels("a")
    assert counted.labels("a") is not counted.labels("b")
