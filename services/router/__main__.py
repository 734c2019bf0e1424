"""Runs the router: ``python -m services.router``."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from pennyweight.router.v1 import router_pb2, router_pb2_grpc
from services.common.channel import Peer
from services.common.config import ConfigError, die, from_environment
from services.common.credentials import Keyring
from services.common.server import Server, stop_on_signals
from services.common.telemetry import Tracing, configure_logging, serve_metrics
from services.router.cache import CacheStream
from services.router.config import RouterSettings, load_policies
from services.router.fleet import Fleet
from services.router.handle import HandleSigner
from services.router.ledger import FileLedger
from services.router.load import LoadWindow
from services.router.metrics import Metrics
from services.router.path import RequestPath
from services.router.records import Records
from services.router.scaler import ScalerLink
from services.router.servicer import RouterServicer
from services.router.tokenizer import ModelText
from services.router.triton import TritonEngine

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
    metrics = Metrics(registry)
    tracing = Tracing("router", settings.otlp_endpoint)
    policies = load_policies(settings.routes_file, settings.prices_file)
    texts = {name: ModelText(Path(tier.tokenizer)) for name, tier in policies.tiers.items()}
    load = LoadWindow()
    engine = TritonEngine(policies.tiers, texts, grpc_errors=settings.triton_grpc_errors)
    fleet = Fleet(policies, metrics, forget=engine.forget)

    def peer(address: str) -> Peer:
        return Peer(address, settings.service_key_file, settings.peer_tls_ca)

    cache = CacheStream(
        peer(settings.cache_address),
        timeout_seconds=settings.cache_timeout_seconds,
        metrics=metrics,
        tracing=tracing,
    )
    scaler = ScalerLink(peer(settings.scaler_address), fleet, load, metrics, router=settings.name)
    ledger = FileLedger(settings.ledger_folder, settings.name, metrics)
    if settings.handle_key_file is None:
        log.warning("no handle_key_file: request handles end with this process")
    server = Server(settings, Keyring.load(settings.keys_file), tracing)
    exposition = serve_metrics(settings.metrics_listen, registry)
    tasks = asyncio.TaskGroup()
    runs: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = tasks.create_task(_contained(work))
        runs.add(task)
        task.add_done_callback(runs.discard)

    path = RequestPath(
        policies=policies,
        fleet=fleet,
        engine=engine,
        texts=texts,
        cache=cache,
        load=load,
        metrics=metrics,
        spawn=spawn,
    )
    server.add(
        router_pb2_grpc.add_RouterServiceServicer_to_server,
        RouterServicer(
            path=path,
            policies=policies,
            fleet=fleet,
            signer=HandleSigner.load(settings.handle_key_file),
            records=Records(metrics, ledger, policies.version),
            max_prompt_characters=settings.max_prompt_characters,
        ),
        router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name,
    )
    port = server.bind()
    async with tasks:
        links = [
            tasks.create_task(work)
            for work in (cache.run(), scaler.watch(), scaler.report(), engine.watch())
        ]
        tasks.create_task(ledger.run())
        await server.start()
        log.info("serving", port=port, policy_version=policies.version, routes=len(policies.routes))
        started(port)
        await server.serve_until_stopped(stop)
        if runs:  # whose callers have gone; some engines crash when these are cancelled
            await asyncio.wait(runs, timeout=settings.drain_seconds)
        await asyncio.sleep(LAST_WORDS_SECONDS)
        for task in (*links, *runs):
            task.cancel()
        ledger.close()
    exposition.shutdown()
    exposition.server_close()
    await engine.close()
    await scaler.close()
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
