"""The page of metrics: over HTTP, from the loop of the service, made in a thread.

Anybody who reaches the port may ask, so what one caller can take is bounded: connections, the bytes
of a request, the time from the first byte of a request to the last of the answer. One page is made
at a time, for all who ask meanwhile; there are four kinds, whatever a request says: of two formats,
compressed or not. Where there is no more room the oldest connection makes way that has not asked
yet, or else the oldest that does not take its page; none does whose page is being made.
"""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from services.common.config import ConfigError

log = structlog.get_logger()

MAX_PORT = 65_535
MAX_CONNECTIONS = 256
"""More than come in one turn of the loop, so that whoever asks at once is heard."""
MAX_HEAD_BYTES = 16 * 1024
SECONDS = 10.0
"""For a whole exchange; a scrape takes milliseconds."""
OPEN_METRICS = "application/openmetrics-text"
LAST_SECONDS = 1.0
"""How long a page may still be made at the end."""


class _Kind(NamedTuple):
    """Of a page: in the format of OpenMetrics, else in that of Prometheus; compressed."""

    open_metrics: bool
    gzip: bool


class Exposition:
    """The page of one registry; listening once it is there."""

    def __init__(self, registry: CollectorRegistry, listening: socket.socket) -> None:
        """Serves nothing before `start`."""
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._page: Any = make_wsgi_app(registry)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._exchanges: set[asyncio.Task[None]] = set()
        self._reading: dict[asyncio.StreamWriter, None] = {}
        self._answering: dict[asyncio.StreamWriter, None] = {}
        self._taking: dict[asyncio.StreamWriter, None] = {}
        self._pages: dict[_Kind, asyncio.Future[bytes]] = {}
        self._server: asyncio.Server

    async def start(self) -> None:
        """Begins to serve."""
        self._server = await asyncio.start_server(
            self._came, sock=self._listening, limit=MAX_HEAD_BYTES
        )

    async def close(self) -> None:
        """Ends all connections and gives the address back."""
        self._server.close()
        for writer in (*self._reading, *self._answering, *self._taking):
            writer.transport.abort()
        if self._exchanges:
            await asyncio.wait(self._exchanges, timeout=LAST_SECONDS)
        await self._server.wait_closed()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._exchange(reader, writer))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._reading) + len(self._answering) + len(self._taking) >= MAX_CONNECTIONS:
            oldest = next(iter(self._reading or self._taking), writer)
            self._forget(oldest)
            oldest.transport.abort()
            if oldest is writer:
                return
        self._reading[writer] = None
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._answer(reader, writer)
                self._forget(writer)
                self._taking[writer] = None
                with suppress(RuntimeError):  # which uvloop raises where the other end has gone
                    writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # it has gone, or takes too long
        finally:
            self._forget(writer)
            writer.transport.abort()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._reading.pop(writer, None)
        self._answering.pop(writer, None)
        self._taking.pop(writer, None)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            asked = _asked(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.LimitOverrunError:
            return _response("431 Request Header Fields Too Large", (), b"")
        except ValueError:
            return _response("400 Bad Request", (), b"")
        if self._reading.pop(writer, self) is not self:
            self._answering[writer] = None
        if asked is None:
            return _response("405 Method Not Allowed", (("Allow", "GET"),), b"")
        return await asyncio.shield(self._making(asked))

    def _making(self, asked: _Kind) -> asyncio.Future[bytes]:
        """The page that is being made, or else a new one."""
        if asked not in self._pages:
            loop = asyncio.get_running_loop()
            making = loop.run_in_executor(self._thread, partial(_made, self._page, asked))
            making.add_done_callback(lambda _: self._pages.pop(asked))
            self._pages[asked] = making
        return self._pages[asked]


async def serve_metrics(listen: str, registry: CollectorRegistry) -> Exposition:
    """Serves ``/metrics`` on host:port; port 0 takes a free one.

    Raises:
        ConfigError: the address is none, or the port is taken.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(
            host or None, _port(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(address, family=family, dualstack_ipv6=both)
    except (OSError, ValueError) as error:
        raise ConfigError("environment", [f"metrics listen address {listen}: {error}"]) from error
    exposition = Exposition(registry, listening)
    await exposition.start()
    return exposition


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"a port is at most {MAX_PORT}")
    return port


def _asked(head: bytes) -> _Kind | None:
    """The page that a request asks for; None: it asks for none.

    Raises:
        ValueError: this is no request.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, _ = first.split(" ")
    said = {"accept": "", "accept-encoding": ""}
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() in said:
            said[name.lower()] = value
    formats = said["accept"].split(",")
    open_metrics = any(OPEN_METRICS in one and "version=0" not in one for one in formats)
    codings = [one.split(";")[0].strip().lower() for one in said["accept-encoding"].split(",")]
    return _Kind(open_metrics, "gzip" in codings) if method == "GET" else None


def _made(page: Any, asked: _Kind) -> bytes:
    """The whole response."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "HTTP_ACCEPT": OPEN_METRICS if asked.open_metrics else "",
        "HTTP_ACCEPT_ENCODING": "gzip" if asked.gzip else "",
    }
    head: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        head[:] = status, headers

    try:
        body = b"".join(page(environ, start))
    except Exception:
        log.exception("the metrics cannot be shown")
        return _response("500 Internal Server Error", (), b"")
    return _response(head[0], head[1], body)


def _response(status: str, headers: Any, body: bytes) -> bytes:
    def lines() -> Iterator[str]:
        yield f"HTTP/1.1 {status}"
        for name, value in headers:
            yield f"{name}: {value}"
        yield f"Content-Length: {len(body)}"
        yield "Connection: close"

    return "\r\n".join(lines()).encode("latin-1") + b"\r\n\r\n" + body
