"""Runs the router: ``python -m services.router``."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2_grpc
from services.common.process import open_frame, run
from services.router.assembly import assemble
from services.router.config import RouterSettings
from services.router.levers.copy import parse_record
from services.router.metrics import Metrics
from services.router.state.store import open_state

log = structlog.get_logger()

FLUSH_SECONDS = 2.0
"""Longest wait at the end for the cache to take the last answers."""

LAST_SECONDS = 2.0
"""How long runs may take to end that are cut off at the end."""


async def serve(
    settings: RouterSettings,
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Serves until `stop` is set; running answers finish first. `started` hears the port.

    Raises:
        ConfigError: a file, address or folder that the settings name cannot be used.
    """
    registry = CollectorRegistry()
    tasks = asyncio.TaskGroup()
    runs: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = tasks.create_task(_contained(work))
        runs.add(task)
        task.add_done_callback(runs.discard)

    async with open_frame("router", settings, registry) as frame:
        state = await frame.closing.enter_async_context(open_state(settings, parse_record))
        parts = assemble(settings, state, Metrics(registry), frame.tracing, spawn)
        frame.closing.push_async_callback(parts.close)
        frame.server.add(router_pb2_grpc.add_RouterServiceServicer_to_server, parts.servicer)
        port = frame.bind()
        await parts.levers.refresh()
        async with tasks:
            links = [tasks.create_task(work) for work in parts.links()]
            tasks.create_task(parts.ledger.run())
            await frame.server.start()
            policies = parts.in_force.now
            routes = len(policies.routes)
            log.info("serving", port=port, policy_version=policies.version, routes=routes)
            started(port)
            await frame.server.serve_until_stopped(stop)
            parts.pairs.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.drain_seconds):
                    while runs:  # one may leave another, that its engine must not see cancelled
                        await asyncio.wait(runs)
            if not await parts.cache.flush(FLUSH_SECONDS):
                log.warning("the last answers may not have reached the cache")
            for task in (*links, *runs):
                task.cancel()
            while runs:  # a run that is cut off ends on its replica, and leaves its record
                await asyncio.wait(runs, timeout=LAST_SECONDS)
                for task in runs:
                    task.cancel()
            parts.ledger.close()
    log.info("stopped")


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    """Runs work of a single request: its failure must not end the process."""
    try:
        await work
    except Exception:
        log.exception("a task of a request failed")


def main() -> None:
    """Runs the router until SIGTERM or SIGINT."""
    run("router", RouterSettings, serve)


if __name__ == "__main__":
    main()
