"""Runs the router: ``python -m services.router``."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from services.common.config import ConfigError, die, from_environment
from services.common.credentials import Keyring
from services.common.server import Server, stop_on_signals
from services.common.telemetry import Tracing, configure_logging, serve_metrics
from services.router.assembly import assemble
from services.router.config import RouterSettings
from services.router.levers.copy import parse_record
from services.router.metrics import Metrics
from services.router.state.store import open_state

log = structlog.get_logger()

LAST_WORDS_SECONDS = 0.3
"""Time for the last answers to reach the cache once no call runs any more."""


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
    tracing = Tracing("router", settings.otlp_endpoint)
    tasks = asyncio.TaskGroup()
    runs: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = tasks.create_task(_contained(work))
        runs.add(task)
        task.add_done_callback(runs.discard)

    async with open_state(settings, parse_record) as state:
        parts = assemble(settings, state, Metrics(registry), tracing, spawn)
        server = Server(settings, Keyring.load(settings.keys_file), tracing)
        server.add(
            router_pb2_grpc.add_RouterServiceServicer_to_server,
            parts.servicer,
            router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name,
        )
        exposition = serve_metrics(settings.metrics_listen, registry)
        port = server.bind()
        await parts.levers.refresh()
        async with tasks:
            links = [tasks.create_task(work) for work in parts.links()]
            tasks.create_task(parts.ledger.run())
            await server.start()
            policies = parts.in_force.now
            routes = len(policies.routes)
            log.info("serving", port=port, policy_version=policies.version, routes=routes)
            started(port)
            await server.serve_until_stopped(stop)
            parts.pairs.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.drain_seconds):
                    while runs:  # one may leave another, that its engine must not see cancelled
                        await asyncio.wait(runs)
            await asyncio.sleep(LAST_WORDS_SECONDS)
            for task in (*links, *runs):
                task.cancel()
            parts.ledger.close()
        exposition.shutdown()
        exposition.server_close()
        await parts.close()
    tracing.close()
    log.info("stopped")


async def _contained(work: Coroutine[Any, Any, None]) -> None:
    """Runs work of a single request: its failure must not end the process."""
    try:
        await work
    except Exception:
        log.exception("a task of a request failed")


async def _main() -> None:
    settings = from_environment(RouterSettings, "PENNYWEIGHT_ROUTER_", os.environ)
    configure_logging("router", settings.log_level)
    await serve(settings, stop_on_signals())


def main() -> None:
    """Runs the router until SIGTERM or SIGINT."""
    try:
        uvloop.run(_main())
    except ConfigError as error:
        die(error)


if __name__ == "__main__":
    main()
