"""The gRPC server around a servicer: address, health, reflection, TLS, drain.

Leaves to the gate who may call and what errors become, and to the servicers what a call means.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from services.common.config import ConfigError
from services.common.descriptors import most_connections
from services.common.gate import Gate, Keys
from services.common.health import Health
from services.common.intake import Listener
from services.common.kept_up import kept_up
from services.common.keyless import Keyless
from services.common.memory import give_memory_back_at_times
from services.common.reflection import NAME as REFLECTION
from services.common.reflection import Reflection
from services.common.self_watch import SelfWatch, ask_health, end_for_certain
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing

log = structlog.get_logger()


class ServerEnded(Exception):
    """The server ended by itself: it serves nothing any more, and the process must end too."""


MIN_PING_INTERVAL_MS = 5_000
"""A caller that pings more often is sent away."""

UNCOMPRESSED = 1
"""The set of algorithms that has none."""

MAX_STREAMS = 1000
"""Calls that one connection may have open; its client holds back further ones."""

MOST_HEALTH_CALLS = 64
MOST_LOOKS = 4
"""Calls without a key, about health and by reflection, that one connection may have open."""

MOST_WAITING = 20_000
MOST_WAITING_HARD = 40_000
"""Calls that wait to be taken: from the first number on gRPC drops some at random, from the second
on all. Its own numbers, 1,000 and 3,000, are fewer than come in a burst."""

HANDSHAKE_MS = 10_000
"""For TLS and the first frames of a connection."""

IDLE_MS = 300_000
"""A connection without a call is closed then, whether it pings or not; clients make another."""

LAST_CALLS_SECONDS = 0.2
LAST_BYTES_SECONDS = 5.0
"""How long what was answered may be on its way at the end of a drain."""
CUT_OFF_SECONDS = 2.0
"""How long calls may take to end that are cut off."""


class Server:
    """One listening gRPC server.

    Use: add the servicers, ``await start()``, then ``await serve_until_stopped(stop)``.
    """

    def __init__(
        self,
        settings: ServerSettings,
        keys: Keys,
        tracing: Tracing,
        serves: Callable[[], None] = lambda: None,
    ) -> None:
        """`serves` is called once it does."""
        self._serves = serves
        self._settings = settings
        self._port = 0
        self._started = False
        self._health = Health()
        self.grpc = Listener(
            (
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                # A few KB may unpack to the largest message, before anybody knows whose they are.
                ("grpc.compression_enabled_algorithms_bitset", UNCOMPRESSED),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.server.max_pending_requests", MOST_WAITING),
                ("grpc.server.max_pending_requests_hard_limit", MOST_WAITING_HARD),
                (
                    "grpc.max_allowed_incoming_connections",
                    most_connections(settings.max_connections),
                ),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", int(settings.drain_seconds * 1000)),
                # Idle streams are kept alive by pings; the default allows one in five minutes.
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.so_reuseport", 0),  # a taken port must be an error, not a silent share
            ),
        )
        self._gate = Gate(self.grpc, keys, tracing, settings.max_message_bytes)
        add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
        add_health(self._health, Keyless(self.grpc, MOST_HEALTH_CALLS))

    def add(self, add_to_server: Callable[[Any, Any], None], servicer: object) -> None:
        """Adds a servicer as its stubs do; they name the service for health and reflection."""
        add_to_server(servicer, self._gate)

    def bind(self) -> int:
        """Takes the address. Returns the port; calling it again returns the same.

        Raises:
            ConfigError: the address cannot be listened on, or the TLS files are wrong.
        """
        if self._port:
            return self._port
        names = (*self._gate.services, health.SERVICE_NAME, REFLECTION)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(Reflection(names), Keyless(self.grpc, MOST_LOOKS))
        listen = self._settings.listen
        try:
            files = self._settings.tls_files
            credentials = None if files is None else files.credentials()
            self._port = (
                self.grpc.add_insecure_port(listen)
                if credentials is None
                else self.grpc.add_secure_port(listen, credentials)
            )
        except RuntimeError as error:
            raise ConfigError("environment", [f"listen address {listen}: {error}"]) from error
        return self._port

    async def start(self) -> int:
        """Listens, says SERVING and returns the port.

        Raises:
            ConfigError: see `bind`.
        """
        port = self.bind()
        self._started = True
        await self.grpc.start()
        await self.set_serving(serving=True)
        self._serves()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """Says to health checkers whether this server serves."""
        self._health.set(("", *self._gate.services), serving=serving)

    async def serve_until_stopped(self, stop: asyncio.Event) -> float:
        """Serves until `stop` is set, then lets running calls finish.

        New calls are refused with UNAVAILABLE from that moment; running ones have
        ``drain_seconds``, then they are cancelled.

        Returns:
            how much of ``drain_seconds`` is left for what calls have left behind.

        Raises:
            ServerEnded: see `until_stopped`.
        """
        await self.until_stopped(stop)
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.drain_seconds
        self._health.ends()
        self._gate.closed = True
        # gRPC cancels calls that come in the very moment it stops; ours are refused properly.
        await asyncio.sleep(LAST_CALLS_SECONDS)
        await self._drain(until)
        await self._cut_off_calls_end()
        return max(0.0, until - clock())

    async def _drain(self, until: float) -> None:
        """Ends the server once no call runs that the gate let in, or at `until`.

        Calls without a key hold up nothing: streams of health and reflection that nobody reads, and
        those that are never sent whole.
        """
        clock = asyncio.get_running_loop().time
        stopping = asyncio.create_task(self.grpc.stop(max(0.0, until - clock())))
        served = asyncio.create_task(self._gate.emptied())
        try:
            await asyncio.wait((stopping, served), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((stopping,), timeout=LAST_BYTES_SECONDS)
            await self.grpc.stop(None)
            await stopping
        finally:
            for task in (stopping, served):
                task.cancel()
            await asyncio.gather(stopping, served, return_exceptions=True)

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set.

        Raises:
            ServerEnded: the server ended without being asked to; what ran is lost.
        """
        if stop.is_set():
            return
        stands_still = asyncio.get_running_loop().create_future()
        watch = self._self_watch(stands_still)
        failure = asyncio.create_task(self.grpc.failure())
        asked = asyncio.create_task(stop.wait())
        memory = asyncio.create_task(kept_up("memory", give_memory_back_at_times))
        health = asyncio.create_task(kept_up("own health", watch.ask_at_times))
        watch.start()
        try:
            await asyncio.wait((failure, asked, stands_still), return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                return
            if stands_still.done():  # which is logged where it was seen
                raise ServerEnded(stands_still.result())
            error = failure.result()
            why = f"{type(error).__name__}: {error}"  # without what it holds: bytes of a request
            log.critical("the server ended by itself", error=why)
            raise ServerEnded(f"the server ended by itself: {why}") from None
        finally:
            watch.stop()
            tasks = (failure, asked, memory, health)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _self_watch(self, stands_still: asyncio.Future[str]) -> SelfWatch:
        """Sees whether this server answers; if not, tells the future, and ends the process.

        Where callers must show a certificate we have none, so there it is seen whether the loop
        runs, and that alone.
        """
        settings, loop = self._settings, asyncio.get_running_loop()

        async def ask() -> None:
            if settings.tls_client_ca is None:
                tls = settings.tls_certificate is not None
                await ask_health(settings.listen, self._port, tls=tls)

        def tell(why: str) -> None:
            if not stands_still.done():
                stands_still.set_result(why)

        return SelfWatch(
            ask,
            lambda why: loop.call_soon_threadsafe(tell, why),
            end=end_for_certain,
            ended=lambda: self.grpc.ended,
        )

    async def close(self) -> None:
        """Ends at once whatever still runs, and gives the address back, even if it never served."""
        self._gate.closed = True
        if self._port and not self._started:
            self._started = True
            await self.grpc.start()  # gRPC keeps the address of a server that never did
        await self.grpc.stop(None)
        await self._cut_off_calls_end()

    async def _cut_off_calls_end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CUT_OFF_SECONDS):
                await self._gate.emptied()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
