"""Writes the tables of metrics in docs/operating.md from what the services register.

`python -m tools.metrics` rewrites what stands between the marks; a test holds page and services
together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from services.cache.metrics import CacheCollector, Counts, operation_seconds
from services.cache.ports import StoreCounts
from services.common.folders import FolderCollector
from services.common.keys_in_force import KeysInForce
from services.common.log_lines import LogCollector
from services.common.tls import TlsRefusals
from services.router.fleet.snapshot import LoadCollector
from services.router.metrics import Metrics as RouterMetrics
from services.scaler.metrics import Metrics as ScalerMetrics
from tools.settings import between

PAGE = Path(__file__).parent.parent / "docs" / "operating.md"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"


@dataclass(frozen=True)
class MetricRow:
    """A metric as Prometheus names it; a histogram's name is without its ``_bucket``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class _Registry(CollectorRegistry):
    """Remembers what was registered, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        super().register(collector)
        self.collectors.append(collector)


def services() -> dict[str, tuple[MetricRow, ...]]:
    """The metrics of each service."""
    router, cache, scaler = _Registry(), _Registry(), _Registry()
    RouterMetrics(router)
    router.register(LoadCollector(tuple))
    store = StoreCounts(
        entries=0, bytes=0, waiters=0, leases_expired=0, evicted=0, damaged=0, up=True
    )
    cache.register(CacheCollector(Counts(), lambda: store))
    operation_seconds(cache)
    ScalerMetrics(scaler)
    registries = {"router": router, "cache": cache, "scaler": scaler}
    return {name: tuple(_rows(registry)) for name, registry in registries.items()}


def of_every_service() -> tuple[MetricRow, ...]:
    """The metrics that each service has beside its own."""
    registry = _Registry()
    registry.register(LogCollector())
    registry.register(FolderCollector({}))
    KeysInForce(None, registry)
    TlsRefusals(None, registry)
    return tuple(_rows(registry))


def names() -> frozenset[str]:
    """The names of all metrics."""
    rows = (of_every_service(), *services().values())
    return frozenset(row.name for some in rows for row in some)


def tables() -> str:
    """All metrics as Markdown."""
    parts = [f"### Metrics of every service\n\n{_table(of_every_service())}"]
    parts += [f"### Metrics of the {name}\n\n{_table(rows)}" for name, rows in services().items()]
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its tables as they should be."""
    return between(BEGIN, END, text, tables())


def _rows(registry: _Registry) -> Iterator[MetricRow]:
    for collector in registry.collectors:
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield MetricRow(name, family.type, _labels(collector, family), family.documentation)


def _labels(collector: Any, family: Any) -> tuple[str, ...]:
    """Names of the labels; prometheus_client shows them only once there are values."""
    return tuple(getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))


def _table(rows: tuple[MetricRow, ...]) -> str:
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        meaning = row.meaning.replace("|", "\\|")
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {meaning} |")
    return "\n".join(lines)


def main() -> None:
    """Rewrites the page."""
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
