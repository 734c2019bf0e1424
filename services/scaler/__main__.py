"""Starts the scaler: ``python -m services.scaler``. Settings: `ScalerSettings`."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

import structlog
from prometheus_client import CollectorRegistry

from pennyweight.scaler.v1.scaler_pb2_grpc import add_ScalerServiceServicer_to_server
from services.common.kept_up import kept_up
from services.common.process import open_frame, run
from services.scaler.assembly import History, measured
from services.scaler.config import ScalerSettings, Scaling
from services.scaler.elsewhere import open_keda, places, serve_keda
from services.scaler.fleet.fleet import Fleet
from services.scaler.fleet.scaling_file import ScalingFile, ScalingWatch
from services.scaler.fleet.sizes import Sizes
from services.scaler.fleet.wishes import WishBoard
from services.scaler.keda import ExternalScaler
from services.scaler.load.engines import Engines
from services.scaler.load.loads import Loads
from services.scaler.load.queries import Queries
from services.scaler.load.signals import Signals
from services.scaler.metrics import Metrics
from services.scaler.ports import Target
from services.scaler.servicer import ScalerServicer
from services.scaler.targets.cores import available_cores, available_gpus
from services.scaler.targets.distant import DistantStarter
from services.scaler.targets.good_settings import GoodSettings
from services.scaler.targets.local import LocalTarget
from services.scaler.targets.replica_processes import ReplicaProcesses
from services.scaler.targets.several import SeveralTargets
from services.scaler.targets.spot_notices import SpotNotices

log = structlog.get_logger()


async def serve(
    settings: ScalerSettings,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    started: Callable[[int], None] = lambda _: None,
) -> None:
    """Runs the scaler until `stop` is set; `started` hears the port.

    Replicas inherit `environment`, without our own settings in it.

    Raises:
        ConfigError: a setting, or a file or an address it names, cannot be used.
        ServerEnded: the server ended by itself; the replicas stay for the next scaler.
    """
    file = ScalingFile(
        settings.scaling_file,
        available_cores(),
        gpus=available_gpus(),
        queries=bool(settings.prometheus),
    )
    scaling, registry = file.load(), CollectorRegistry()
    loads, metrics = Loads(), Metrics(registry)
    processes, good = _processes(settings, environment), GoodSettings(settings.state_folder)

    notices = SpotNotices(settings.state_folder, lambda: fleet.configured)

    def slots(own: Scaling) -> Target:
        made = LocalTarget(
            own,
            processes,
            metrics,
            good=good,
            notice=notices.of,
            longest=lambda tier: loads.tier(tier, time.monotonic()).longest,
        )
        notices.on_change = made.wake
        return made

    target = SeveralTargets(scaling, places(settings, metrics, slots))
    engines, queries = (
        Engines(lambda: fleet.metrics_pages()),  # noqa: PLW0108 - it is made further down
        Queries(settings.prometheus, lambda: fleet.queries()),  # noqa: PLW0108 - so too
    )
    history = History(
        settings.state_folder / "history",
        file.again(),
        loads,
        metrics,
        places_allowed=settings.places_allowed,
        replicas=lambda: {view.name: measured(view, sizes) for view in fleet.pools()},
        lasting=lambda: fleet.lasting(),  # noqa: PLW0108 - it is made further down
    )
    history.configure(scaling)
    sizes = Sizes(
        scaling,
        Signals(loads, engines, queries),
        decisions=history.decisions,
        overrides=history.overrides,
    )
    wishes, file_name = WishBoard(), str(settings.scaling_file)
    fleet = Fleet(scaling, target, loads, metrics, sizes, wishes=wishes, file=file_name)

    def adopt(scaling: Scaling) -> None:
        fleet.configure(scaling)
        history.configure(scaling)

    watch = ScalingWatch(
        file, adopt, metrics, kept=history.versions.in_force, undone=history.edits.undo
    )
    servicer = ScalerServicer(fleet, watch, loads, metrics, history.calls)
    keda = ExternalScaler(wishes, failed=metrics.keda_unknown.inc)
    async with open_frame("scaler", settings, registry) as frame:
        frame.closing.push_async_callback(target.close)
        server, port = frame.server, frame.bind()
        server.add(add_ScalerServiceServicer_to_server, servicer)
        keda_server = open_keda(settings, keda, frame)
        # Adopted before the first watcher comes: nobody may see an empty fleet that is not empty.
        await fleet.adopt()
        fleet.recall(await asyncio.to_thread(history.open))
        history.versions.in_force(file.content)
        await frame.closing.enter_async_context(history.kept())
        await server.start()
        log.info("serving", port=port, metrics_port=frame.metrics_port)
        started(port)
        async with asyncio.TaskGroup() as tasks:
            beside = (
                fleet.run(),
                kept_up("scaling file", watch.run),
                kept_up("engines", engines.run),
                kept_up("queries", queries.run),
                kept_up("spot notices", notices.run),
            )
            if keda_server is not None:
                tasks.create_task(serve_keda(keda_server, stop))
            keeping = [tasks.create_task(work) for work in beside]
            await server.until_stopped(stop)
            log.info("stopping", replicas_stay=not settings.stop_replicas_on_exit)
            await server.set_serving(serving=False)
            keda.close()
            if settings.stop_replicas_on_exit:
                await fleet.end_all(settings.drain_seconds)
            for task in keeping:
                task.cancel()
        fleet.close()
        history.close()
        servicer.close()
        await server.serve_until_stopped(stop)


def _processes(settings: ScalerSettings, environment: Mapping[str, str]) -> ReplicaProcesses:
    """How replicas run on this host."""
    return ReplicaProcesses(
        settings.state_folder,
        environment,
        host=settings.replica_host,
        advertise_host=settings.advertise_host,
        server=settings.tritonserver,
        starter=DistantStarter(settings.starter) if settings.starter else None,
    )


def main() -> None:
    """Runs the scaler until SIGTERM or SIGINT."""
    run("scaler", ScalerSettings, lambda settings, stop: serve(settings, os.environ, stop))


if __name__ == "__main__":
    main()
