"""Starts the scaler: ``python -m services.scaler``. Settings: `ScalerSettings`."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import structlog
import uvloop

from pennyweight.scaler.v1.scaler_pb2_grpc import add_ScalerServiceServicer_to_server
from services.common.config import ConfigError, die, from_environment
from services.common.credentials import Keyring
from services.common.server import Server, stop_on_signals
from services.common.telemetry import Tracing, configure_logging, serve_metrics
from services.scaler.config import ENVIRONMENT_PREFIX, ScalerSettings, Scaling
from services.scaler.fleet.fleet import Fleet
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.servicer import ScalerServicer
from services.scaler.targets.local import LocalTarget
from services.scaler.targets.replica_processes import ReplicaProcesses

log = structlog.get_logger()

SERVICE = "pennyweight.scaler.v1.ScalerService"


async def serve(
    settings: ScalerSettings,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Runs the scaler until `stop` is set; `started` hears the port.

    Replicas inherit `environment`, without our own settings in it.

    Raises:
        ConfigError: a setting or a file it names cannot be used.
    """
    scaling = Scaling.load(settings.scaling_file)
    loads, metrics = Loads(), Metrics()
    processes = ReplicaProcesses(
        settings.state_folder,
        environment,
        host=settings.replica_host,
        advertise_host=settings.advertise_host,
        server=settings.tritonserver,
    )
    target = LocalTarget(scaling, processes, metrics)
    fleet = Fleet(scaling, target, loads, metrics)
    servicer = ScalerServicer(fleet, loads, metrics)
    tracing = Tracing("scaler", settings.otlp_endpoint)
    server = Server(settings, Keyring.load(settings.keys_file), tracing)
    server.add(add_ScalerServiceServicer_to_server, servicer, SERVICE)
    async with AsyncExitStack() as opened:
        opened.callback(tracing.close)
        opened.push_async_callback(target.close)
        port = server.bind()
        # Adopted before the first watcher comes: nobody may see an empty fleet that is not empty.
        await fleet.adopt()
        exporter = serve_metrics(settings.metrics_listen, metrics.registry)
        opened.callback(exporter.server_close)
        opened.callback(exporter.shutdown)
        opened.push_async_callback(server.grpc.stop, 0)
        await server.start()
        log.info("serving", port=port, metrics_port=exporter.server_port)
        started(port)
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(fleet.run())
            await stop.wait()
            log.info("stopping", replicas_stay=not settings.stop_replicas_on_exit)
            await server.set_serving(serving=False)
            if settings.stop_replicas_on_exit:
                await fleet.end_all(settings.drain_seconds)
            keeping.cancel()
        fleet.close()
        servicer.close()
        await server.serve_until_stopped(stop)


async def _main() -> None:
    settings = from_environment(ScalerSettings, ENVIRONMENT_PREFIX, os.environ)
    configure_logging("scaler", settings.log_level)
    await serve(settings, os.environ, stop_on_signals())


def main() -> None:
    """Runs the scaler until SIGTERM or SIGINT."""
    try:
        uvloop.run(_main())
    except ConfigError as error:
        die(error)


if __name__ == "__main__":
    main()
