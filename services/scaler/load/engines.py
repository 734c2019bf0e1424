"""What engines say of themselves on the metrics pages of their Triton servers.

Families are those of TensorRT-LLM's backend, which the CPU engine has too. Engines refresh them
only while they work: one whose counter of iterations stands still is idle, whatever its gauges
say. Servers of other runtimes have none of them, and then nothing is known here.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client.parser import text_string_to_metric_families

from services.scaler.load.pages import Pages, Unanswered

log = structlog.get_logger()

LOOK_SECONDS = 5.0
MAX_ENGINES = 4096

_REQUESTS = "nv_trt_llm_request_metrics"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
_GENERAL = "nv_trt_llm_general_metrics"
_LABELS = {
    _REQUESTS: "request_type",
    _BLOCKS: "kv_cache_block_type",
    _GENERAL: "general_type",
}


@dataclass(frozen=True)
class EngineReading:
    """What one engine says.

    Attributes:
        at: when it was asked, in seconds of the fleet's clock.
        waiting: requests that it has and does not work on yet; None: it does not say.
        kv: used fraction of its KV cache, 0 to 1; None: it does not say.
        iterations: steps it has made; None: it does not say.
    """

    at: float
    waiting: float | None = None
    kv: float | None = None
    iterations: float | None = None

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return self.waiting is not None or self.kv is not None


def reading_of(page: str, before: EngineReading | None, now: float) -> EngineReading:
    """What a page of metrics says; what is not a count or a fraction is left out.

    Args:
        page: Prometheus' text format.
        before: what the same engine said last.
        now: when it was asked.

    Raises:
        ValueError: it cannot be read, as one that was cut off.
    """
    found: dict[tuple[str, str], float] = {}
    for metric in text_string_to_metric_families(page):
        label = _LABELS.get(metric.name)
        if label is None:
            continue
        for sample in metric.samples:
            key = metric.name, sample.labels.get(label, "")
            if math.isfinite(sample.value) and sample.value >= 0:
                found[key] = found.get(key, 0.0) + sample.value
    waiting = found.get((_REQUESTS, "waiting"))
    kv = _fraction(found)
    iterations = found.get((_GENERAL, "iteration_counter"))
    if iterations is not None and before is not None and iterations == before.iterations:
        waiting, kv = (None if waiting is None else 0.0), (None if kv is None else 0.0)
    return EngineReading(now, waiting, kv, iterations)


def _fraction(found: Mapping[tuple[str, str], float]) -> float | None:
    """Of the blocks, over all models of a server, as several fractions do not add up."""
    used, most = found.get((_BLOCKS, "used")), found.get((_BLOCKS, "max"))
    if used is not None and most:
        return min(used / most, 1.0)
    fraction = found.get((_BLOCKS, "fraction"))
    return None if fraction is None else min(fraction, 1.0)


class Engines:
    """Asks engines in turn; keeps the last reading of each."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[tuple[str, str]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            addresses: gives id and host:port of the metrics page of each replica that is ready.
            clock: monotonic seconds.
        """
        self._addresses = addresses
        self._clock = clock
        self._readings: dict[str, EngineReading] = {}
        self._silent: set[str] = set()

    def reading(self, replica: str) -> EngineReading | None:
        """What the replica's engine said last; None: nothing yet."""
        return self._readings.get(replica)

    async def run(self) -> None:
        """Asks all every few seconds. Runs for ever; the caller owns it."""
        async with Pages() as pages:
            while True:
                await self.look(pages)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self, pages: Pages) -> None:
        """Asks all once."""
        asked = dict(list(self._addresses())[:MAX_ENGINES])
        for gone in self._readings.keys() - asked.keys():
            del self._readings[gone]
        self._silent &= asked.keys()
        await asyncio.gather(*(self._ask(pages, name, at) for name, at in asked.items()))

    async def _ask(self, pages: Pages, replica: str, address: str) -> None:
        try:
            _, body = await pages.get(f"http://{address}/metrics")
            now, before = self._clock(), self._readings.get(replica)
            reading = await asyncio.to_thread(reading_of, body.decode(), before, now)
        except (Unanswered, ValueError) as error:
            if replica not in self._silent:
                log.warning("an engine's metrics cannot be had", replica=replica, why=str(error))
            self._silent.add(replica)
        else:
            self._silent.discard(replica)
            self._readings[replica] = reading
