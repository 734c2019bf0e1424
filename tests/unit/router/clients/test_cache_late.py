"""What this process is late itself says nothing of the cache."""

from itertools import chain, repeat

from prometheus_client import CollectorRegistry

from services.common.channel import Peer
from services.common.telemetry import Tracing
from services.router.clients.cache import CacheStream
from services.router.metrics import Metrics

TIMEOUT = 0.001


def stream(*times: float) -> CacheStream:
    """One whose clock says these times, and then that no time passes any more."""
    clock = chain(times, repeat(times[-1]))
    return CacheStream(
        Peer("127.0.0.1:1"),
        timeout_seconds=TIMEOUT,
        metrics=Metrics(CollectorRegistry()),
        tracing=Tracing("router"),
        clock=lambda: next(clock),
    )


async def test_a_sleep_that_took_too_long_is_slept_again() -> None:
    late = stream(0.0, TIMEOUT * 3, 7.0, 7.0 + TIMEOUT, 99.0)
    await late._rest()
    assert late._clock() == 99.0
