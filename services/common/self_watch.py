"""A service that stands still notices it, and ends so that it is started anew.

A loop that hangs, or a gRPC that found no thread when it needed one, lives on and takes
connections, but answers nobody, and whoever supervises processes sees one that runs. So each
service asks its own health as any caller would, over its own address, and a thread sees whether
answers come.

A machine that is slow or was asleep ends nothing: what counts is silence over several looks of a
thread that itself was running. A refusal is no silence; nor is a connection that is closed because
there are too many. Nor does it stand still while calls of others come to their ends, however long
the line is that its own question waits in.
"""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from typing import NoReturn

import structlog

log = structlog.get_logger()

ASK_SECONDS = 5.0
"""Between two questions."""

ANSWER_SECONDS = 20.0
"""How long an answer may take."""

LOOK_SECONDS = 10.0
MOST_SILENT = 3
"""Looks of the thread in a row between which no answer came."""

LAST_SECONDS = 15.0
"""How long the service may take to end by itself, with its ledger written, before it is ended."""

START_SECONDS = 120.0
"""How long a start may take until the service serves."""

SAID_SECONDS = 1.0
"""How long the last line may take to be written."""

FAILED = 1
"""Exit status of a service that is ended."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_HEAD_BYTES = 9
_STREAM = 1
_EVERYWHERE = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server listens that says so."""
_CHECK = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/grpc.health.v1.Health/Check"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class SelfWatch:
    """Whether answers come. Use: `start`, `ask_at_times` in a task, and `stop` before a drain."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        give_up: Callable[[str], object],
        *,
        end: Callable[[], None],
        ended: Callable[[], int] = lambda: 0,
    ) -> None:
        """Starts nothing yet.

        Args:
            ask: returns when there was an answer.
            give_up: called by the thread, with the reason, once there was silence for too long.
            end: called by the thread after it; ends the process if it still lives.
            ended: calls of anybody that came to their ends so far.
        """
        self._ended = ended
        self._ask = ask
        self._give_up = give_up
        self._end = end
        self._answers = 0
        self._over = threading.Event()

    def start(self) -> None:
        """Begins to watch.

        Raises:
            RuntimeError: the system has no thread for it.
        """
        threading.Thread(target=self._run, name="self-watch", daemon=True).start()

    def stop(self) -> None:
        """Watches no more."""
        self._over.set()

    async def ask_at_times(self) -> None:
        """Asks, again and again, until cancelled."""
        while True:
            await self.ask_once()
            await asyncio.sleep(ASK_SECONDS)

    async def ask_once(self) -> None:
        """Asks once; all but silence and a closed door is an answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask()
        except (TimeoutError, ConnectionRefusedError):
            return
        except (OSError, EOFError):
            pass  # such as no descriptor, or too many connections: somebody said so
        self._answers += 1

    def look(self, wait: Callable[[float], bool]) -> bool:
        """Looks until it is over, False, or there was silence for too long, True.

        `wait` waits for so many seconds, and says whether it is over.
        """
        seen, silent = self._signs, 0
        while silent < MOST_SILENT:
            if wait(LOOK_SECONDS):
                return False
            signs = self._signs
            silent = silent + 1 if signs == seen else 0
            seen = signs
        return True

    @property
    def _signs(self) -> tuple[int, int]:
        return self._answers, self._ended()

    def _run(self) -> None:
        if self.look(self._over.wait):
            why = f"own health was not answered for {MOST_SILENT * LOOK_SECONDS:g} s"
            log.critical("the service stands still and ends, to be started anew", error=why)
            with suppress(RuntimeError):  # the loop is closed: the process ends already
                self._give_up(why)
            self._end()


class StartWatch:
    """Ends a process whose start comes to no end: gRPC waits for ever for a thread it did not get.

    Use: `begin`, and `over` once it serves or fails.
    """

    def __init__(self, end: Callable[[], None] | None = None) -> None:
        """`end` ends the process at once."""
        self._end = end or (lambda: os._exit(FAILED))
        self._over = threading.Event()

    def begin(self) -> None:
        """Begins to watch.

        Raises:
            RuntimeError: the system has no thread for it.
        """
        threading.Thread(target=self.watch, name="start-watch", daemon=True).start()

    def over(self) -> None:
        """The start is over, one way or the other."""
        self._over.set()

    def watch(self) -> None:
        """Waits until it is over, or has taken too long."""
        if not self._over.wait(START_SECONDS):
            why = f"no service after {START_SECONDS:g} s"
            log.critical("the start stands still and ends, to be tried anew", error=why)
            self._over.wait(SAID_SECONDS)
            self._end()


def end_for_certain() -> NoReturn:
    """Ends the process, after it had time to end by itself."""
    time.sleep(LAST_SECONDS)
    os._exit(FAILED)


async def ask_health(listen: str, port: int, *, tls: bool) -> None:
    """Makes a call of the health service as any caller would, and waits for its answer.

    Of the answer it matters only that there is one. A certificate is not checked: it is our own.
    gRPC's own client shares its threads with the server, so bytes are written by hand.

    Args:
        listen: address that the server listens on, as host:port or unix:path.
        port: that it took.
        tls: whether it speaks TLS.

    Raises:
        OSError: it cannot be connected to.
        EOFError: it closed the connection instead of answering.
    """
    context = _unchecked() if tls else None
    named = "localhost" if tls else None
    if listen.startswith("unix:"):
        path = listen.removeprefix("unix:").removeprefix("//")
        reader, writer = await asyncio.open_unix_connection(
            path, ssl=context, server_hostname=named
        )
    else:
        host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
        reader, writer = await asyncio.open_connection(
            _EVERYWHERE.get(host, host), port, ssl=context, server_hostname=named
        )
    with closing(writer):
        try:
            writer.write(_REQUEST)
            await writer.drain()
            while True:
                head = await reader.readexactly(_FRAME_HEAD_BYTES)
                await reader.readexactly(int.from_bytes(head[:3]))
                if int.from_bytes(head[5:]) == _STREAM:
                    return
        finally:
            with suppress(OSError):
                writer.transport.abort()


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _literal(text: str) -> bytes:
    """As HPACK has a text that is in no table."""
    return bytes((len(text),)) + text.encode()


_REQUEST = b"".join(
    (
        _PREFACE,
        _frame(_SETTINGS, 0, 0, b""),
        _frame(
            _HEADERS,
            _END_HEADERS,
            _STREAM,
            b"".join(b"\0" + _literal(name) + _literal(value) for name, value in _CHECK),
        ),
        _frame(_DATA, _END_STREAM, _STREAM, bytes(5)),  # an empty message
    )
)
