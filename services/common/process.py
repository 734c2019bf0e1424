"""A service as a process: what all of them do at their start and at their end.

    with the environment read and logs set up (`run`):
        tracing, keys and the metrics endpoint are opened (`open_frame`),
        the service opens its own parts, and has them closed with the rest (`Frame.closing`),
        its address is taken (`Frame.bind`), and its server serves until the process is to end.

What was opened is closed in the opposite order, whether the service ended as it should, failed or
never started.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from services.common.config import ConfigError, die, from_environment, prefix_of
from services.common.descriptors import raise_limit
from services.common.exposition import serve_metrics
from services.common.folders import FolderCollector, folders_of
from services.common.keys_in_force import KeysInForce
from services.common.log_lines import LogCollector
from services.common.logs import logging_to_standard_error
from services.common.self_watch import StartWatch
from services.common.server import Server, ServerEnded, stop_on_signals
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from services.common.threads import take_threads
from services.common.tls import TlsRefusals

log = structlog.get_logger()

FAILED = 1
"""Exit status of a service that failed, or whose server ended by itself."""

Settings = TypeVar("Settings", bound=ServerSettings)


@dataclass(frozen=True)
class Frame:
    """What every service has open while it runs.

    Attributes:
        server: where servicers are added; it does not listen before `bind`.
        tracing: where spans go.
        metrics_port: of ``/metrics``.
        closing: what a service opens itself goes here, to be closed after the server.
    """

    server: Server
    tracing: Tracing
    metrics_port: int
    closing: AsyncExitStack

    def bind(self) -> int:
        """Takes the address, and sees to it that the server is stopped before all else is closed.

        Raises:
            ConfigError: the address cannot be listened on, or the TLS files are wrong.
        """
        self.closing.push_async_callback(self.server.close)
        return self.server.bind()


@asynccontextmanager
async def open_frame(
    service: str, settings: ServerSettings, registry: CollectorRegistry
) -> AsyncIterator[Frame]:
    """Opens what every service needs; `service` names it in traces.

    Raises:
        ConfigError: a file or an address of the settings cannot be used.
    """
    async with AsyncExitStack() as closing:
        start = StartWatch()
        start.begin()
        closing.callback(start.over)
        tracing = Tracing(service, settings.otlp_endpoint)
        closing.callback(tracing.close)
        keys = KeysInForce(settings.keys_file, registry)
        watch = asyncio.create_task(keys.run())
        closing.callback(watch.cancel)
        tls = asyncio.create_task(TlsRefusals(settings.tls_files, registry).run())
        closing.callback(tls.cancel)
        server = Server(settings, keys, tracing, serves=start.over)
        registry.register(LogCollector())
        registry.register(FolderCollector(folders_of(settings)))
        exposition = await serve_metrics(settings.metrics_listen, registry)
        closing.push_async_callback(exposition.close)
        yield Frame(server, tracing, exposition.port, closing)


def run(
    service: str,
    kind: type[Settings],
    serve: Callable[[Settings, asyncio.Event], Coroutine[Any, Any, None]],
) -> None:
    """Runs a service until SIGTERM or SIGINT.

    With wrong settings it ends with status 2; with status 1 where it fails, or its server ended by
    itself, so that whoever supervises it starts it anew. Its last words are in the log.

    Args:
        service: its name in logs, and in the variables that hold its settings.
        kind: of its settings.
        serve: runs it until the event is set.
    """

    async def settled(settings: Settings) -> None:
        take_threads()
        await serve(settings, stop_on_signals())

    raise_limit()
    try:
        settings = from_environment(kind, prefix_of(service), os.environ)
        with logging_to_standard_error(service, settings.log_level):
            try:
                uvloop.run(settled(settings))
            except ConfigError:
                raise
            except Exception as error:
                if not _is_server_ended(error):  # which is logged where it was seen
                    log.critical("the service failed", exc_info=error)
                raise SystemExit(FAILED) from None
    except ConfigError as error:
        die(error)


def _is_server_ended(error: Exception) -> bool:
    """Whether nothing else went wrong, be it inside the groups that task groups make."""
    if isinstance(error, ExceptionGroup):
        return error.split(ServerEnded)[1] is None
    return isinstance(error, ServerEnded)
