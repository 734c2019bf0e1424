"""A cache whose name means nothing for a while, or another address, is found at once."""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from services.common.channel import Peer
from services.common.telemetry import Tracing
from services.router.clients.cache import CacheStream
from services.router.metrics import Metrics
from services.router.ports import Asked
from tests.integration.names import Names
from tests.integration.router.world import PATIENCE, CacheService
from tests.making.policies import ladder

ASKED = Asked((), None, 8, 0.0, 1.0, 0, None, ())


async def test_a_name_that_was_gone_for_a_while_is_asked_for_all_the_time() -> None:
    cache, names = CacheService(), Names()
    await cache.start()
    server = await names.open()
    stream = CacheStream(
        Peer(f"dns://{server}/cache.test:{cache.port}"),
        timeout_seconds=PATIENCE,
        metrics=Metrics(CollectorRegistry()),
        tracing=Tracing("router"),
    )
    running = asyncio.create_task(stream.run())
    (small,) = ladder("small")
    try:
        async with asyncio.timeout(30):
            while names.asked < 24:  # a channel alone asks ever more seldom
                await asyncio.sleep(0.01)
        names.address = "127.0.0.1"
        async with asyncio.timeout(PATIENCE):
            found: Any = None
            while found is None or not found.available:
                await asyncio.sleep(0.003)
                found = await stream.lookup(
                    "acme", "chat", ASKED, [small], lease=False, max_wait_seconds=0.0
                )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cache.stop()
        await names.close()
