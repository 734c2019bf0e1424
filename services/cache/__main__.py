"""The cache as a process: ``python -m services.cache``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry

from services.cache.config import CacheSettings
from services.cache.metrics import CacheCollector, Counts, operation_seconds
from services.cache.operations import Operations
from services.cache.ports import Store
from services.cache.servicer import CacheService, add_to_server
from services.cache.stores.memory import MemoryStore
from services.cache.stores.redis import open_redis
from services.common.process import open_frame, run
from services.common.telemetry import Tracing

log = structlog.get_logger()


async def serve(
    settings: CacheSettings,
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Runs the cache until `stop` is set; `started` hears the port.

    Raises:
        ConfigError: a file or an address of the settings cannot be used.
    """
    registry, hash_key = CollectorRegistry(), settings.hash_key()
    async with open_frame("cache", settings, registry) as frame:
        store = await frame.closing.enter_async_context(open_store(settings, hash_key))
        service = build(settings, store, hash_key, registry, frame.tracing)
        frame.server.add(add_to_server, service)
        port = frame.bind()
        await frame.server.start()
        log.info("serving", port=port, store=store.kind)
        started(port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_drain_on(stop, service))
            tasks.create_task(frame.server.serve_until_stopped(stop))


@asynccontextmanager
async def open_store(settings: CacheSettings, hash_key: bytes) -> AsyncIterator[Store]:
    """The store that the settings ask for.

    Raises:
        ConfigError: Redis cannot be what they say. That it is away is no such error: it may come.
    """
    clock = asyncio.get_running_loop()
    if settings.redis is None:
        yield MemoryStore(
            clock,
            max_bytes=settings.max_bytes,
            max_entries=settings.max_entries,
            lease_seconds=settings.lease_seconds,
            max_waiters=settings.max_waiters,
        )
        return
    if settings.hash_key_file is None:
        log.warning("no hash_key_file: the keys in Redis are hashed with a published key")
    async with open_redis(
        settings.redis.link(settings.redis_connections),
        hash_key,
        clock,
        lease_seconds=settings.lease_seconds,
        max_waiters=settings.max_waiters,
    ) as store:
        yield store


def build(
    settings: CacheSettings,
    store: Store,
    hash_key: bytes,
    registry: CollectorRegistry,
    tracing: Tracing,
) -> CacheService:
    """The servicer over a store, with its metrics in the registry."""
    counts = Counts()
    registry.register(CacheCollector(counts, store.counts))
    operations = Operations(
        store,
        hash_key,
        max_entry_bytes=settings.max_entry_bytes,
        max_wait_seconds=settings.max_wait_seconds,
        seconds=operation_seconds(registry),
        counts=counts,
    )
    return CacheService(operations, tracing, settings.max_unanswered)


async def _drain_on(stop: asyncio.Event, service: CacheService) -> None:
    await stop.wait()
    service.drain()


def main() -> None:
    """Runs the cache until SIGTERM or SIGINT."""
    run("cache", CacheSettings, serve)


if __name__ == "__main__":
    main()
