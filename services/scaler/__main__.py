"""Starts the scaler: ``python -m services.scaler``. Settings: `ScalerSettings`."""

import asyncio
import os
from collections.abc import Mapping

import structlog
import uvloop

from pennyweight.scaler.v1 import scaler_pb2, scaler_pb2_grpc
from services.common.config import ConfigError, die, from_environment
from services.common.credentials import Keyring
from services.common.server import Server, stop_on_signals
from services.common.telemetry import Tracing, configure_logging, serve_metrics
from services.scaler.config import ENVIRONMENT_PREFIX, ScalerSettings, Scaling
from services.scaler.fleet import Fleet
from services.scaler.loads import Loads
from services.scaler.metrics import Metrics
from services.scaler.process_target import ProcessTarget
from services.scaler.servicer import ScalerServicer

log = structlog.get_logger()


async def serve(settings: ScalerSettings, environment: Mapping[str, str]) -> None:
    """Runs the scaler until SIGTERM or SIGINT.

    Raises:
        ConfigError: something it was told cannot be used.
    """
    stop = stop_on_signals()
    scaling = Scaling.load(settings.scaling_file)
    keyring = Keyring.load(settings.keys_file)
    tracing = Tracing("scaler", settings.otlp_endpoint)
    loads, metrics = Loads(), Metrics()
    target = ProcessTarget(
        settings.state_folder,
        environment,
        host=settings.replica_host,
        advertise_host=settings.advertise_host,
        server=settings.tritonserver,
    )
    fleet = Fleet(scaling, target, loads, metrics)
    servicer = ScalerServicer(fleet, loads, metrics)
    server = Server(settings, keyring, tracing)
    server.add(
        scaler_pb2_grpc.add_ScalerServiceServicer_to_server,
        servicer,
        scaler_pb2.DESCRIPTOR.services_by_name["ScalerService"].full_name,
    )
    # Adopted before the first watcher comes: nobody may see an empty fleet that is not empty.
    await fleet.adopt()
    metrics_server = serve_metrics(settings.metrics_listen, metrics.registry)
    port = await server.start()
    log.info("serving", port=port, metrics_port=metrics_server.server_port)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(fleet.run())
        await stop.wait()
        log.info("stopping", replicas="end" if settings.stop_replicas_on_exit else "stay")
        await server.set_serving(serving=False)
        if settings.stop_replicas_on_exit:
            await fleet.end_all(settings.drain_seconds)
        keeping.cancel()
    fleet.close()
    servicer.close()
    await server.serve_until_stopped(stop)
    await target.close()
    metrics_server.shutdown()
    metrics_server.server_close()
    tracing.close()


def main() -> None:
    """Reads the environment and serves."""
    try:
        settings = from_environment(ScalerSettings, ENVIRONMENT_PREFIX, os.environ)
        configure_logging("scaler", settings.log_level)
        uvloop.run(serve(settings, os.environ))
    except ConfigError as error:
        die(error)


if __name__ == "__main__":
    main()
