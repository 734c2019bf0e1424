"""Runs the router: ``python -m services.router``."""

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2_grpc
from services.common.process import open_frame, run
from services.router.assembly import assemble
from services.router.background import Background
from services.router.config import RouterSettings
from services.router.levers.copy import parse_record
from services.router.metrics import Metrics
from services.router.state.store import open_state

log = structlog.get_logger()

FLUSH_SECONDS = 2.0
"""Longest wait at the end for the cache to take the last answers."""

LEAVE_SECONDS = 1.0
"""A scaler that does not hear of our end misses us for some minutes."""

LAST_SECONDS = 2.0
"""How long attempts may take to say how far they came, at the end."""


async def serve(
    settings: RouterSettings,
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Serves until `stop` is set; running answers finish first. `started` hears the port.

    However it ends, what ran has its ending and its record: calls end first, then what they have
    left behind, then the ledger.

    Raises:
        ConfigError: a file, address or folder that the settings name cannot be used.
    """
    registry = CollectorRegistry()
    background = Background()
    async with open_frame("router", settings, registry) as frame:
        state = await frame.closing.enter_async_context(open_state(settings, parse_record))
        parts = assemble(settings, state, Metrics(registry), frame.tracing, background.spawn)
        frame.closing.push_async_callback(parts.close)
        frame.server.add(router_pb2_grpc.add_RouterServiceServicer_to_server, parts.servicer)
        port = frame.bind()
        await parts.levers.refresh()
        async with parts.ledger.writing(), asyncio.TaskGroup() as tasks:
            links = [tasks.create_task(work) for work in parts.links()]
            try:
                await frame.server.start()
                policies = parts.in_force.now
                routes = len(policies.routes)
                log.info("serving", port=port, policy_version=policies.version, routes=routes)
                started(port)
                left = await frame.server.serve_until_stopped(stop)
                parts.pairs.stop()
                await background.ended(max(left, LAST_SECONDS))
                if not await parts.cache.flush(FLUSH_SECONDS):
                    log.warning("the last answers may not have reached the cache")
            finally:
                await frame.server.close()
                await background.cut_off(LAST_SECONDS)
                await parts.scaler.leave(LEAVE_SECONDS)
                for link in links:
                    link.cancel()
    log.info("stopped")


def main() -> None:
    """Runs the router until SIGTERM or SIGINT."""
    run("router", RouterSettings, serve)


if __name__ == "__main__":
    main()
