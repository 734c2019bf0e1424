"""The page of metrics, and what one who only wants to do harm can take of it."""

import asyncio
import gzip
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric

from services.common import exposition
from services.common.config import ConfigError
from services.common.exposition import Exposition, serve_metrics
from tests.making.opened import closes, opened, taken_port

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("sold", "Things sold.", registry=registry).inc(3)
    return registry


@asynccontextmanager
async def served(registry: CollectorRegistry, listen: str = "127.0.0.1:0") -> AsyncIterator[int]:
    page = await serve_metrics(listen, registry)
    try:
        yield page.port
    finally:
        await page.close()


async def ask(port: int, request: bytes = GET + b"\r\n", host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("localhost:0", "localhost")],
)
async def test_the_page_is_served(registry: CollectorRegistry, listen: str, host: str) -> None:
    before = opened()
    async with served(registry, listen) as port:
        head, _, body = (await ask(port, host=host)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"sold_total 3.0" in body
    await closes(before)


@pytest.mark.parametrize("listen", [":0", "[::]:0", "0.0.0.0:0"])
async def test_it_listens_everywhere_where_told(registry: CollectorRegistry, listen: str) -> None:
    async with served(registry, listen) as port:
        assert b"sold_total 3.0" in await ask(port)


async def test_the_page_has_the_form_that_was_asked_for(registry: CollectorRegistry) -> None:
    async with served(registry) as port:
        more = b"Accept: application/openmetrics-text; version=1.0.0\r\nAccept-Encoding: gzip\r\n"
        head, _, body = (await ask(port, GET + more + b"\r\n")).partition(b"\r\n\r\n")
    assert b"openmetrics" in head
    assert gzip.decompress(body).endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\xff\xfe \x00 \xff\r\n\r\n", b"405"),
        (GET + b"x: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_what_is_no_request_for_it_is_refused(
    registry: CollectorRegistry, request_: bytes, status: bytes
) -> None:
    async with served(registry) as port:
        assert (await ask(port, request_)).split()[1] == status
        assert b"sold_total 3.0" in await ask(port)


async def test_idle_connections_take_no_threads_and_make_way(registry: CollectorRegistry) -> None:
    async with served(registry) as port:
        await ask(port)
        threads = threading.active_count()
        idle: list[Connection] = []
        for _ in range(3 * exposition.MAX_CONNECTIONS):
            idle.append(await asyncio.open_connection("127.0.0.1", port))
            idle[-1][1].write(GET)
        assert b"sold_total 3.0" in await ask(port)
        assert threading.active_count() <= threads
        gone = [await asyncio.wait_for(_ended(one), 10) for one in idle[: -2 * len(idle) // 3]]
        assert gone
        for _, writer in idle:
            writer.close()


async def _ended(connection: Connection) -> None:
    with suppress(ConnectionError):
        assert await connection[0].read() == b""


async def test_who_says_nothing_is_let_go(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "SECONDS", 0.05)
    async with served(registry) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        connection[1].write(GET)
        await asyncio.wait_for(_ended(connection), 10)
        connection[1].close()


class Held:
    """A collector that waits until it may go on."""

    def __init__(self, text: str = "") -> None:
        self.making, self.goes_on = threading.Event(), threading.Event()
        self.made = 0
        self._text = text

    def collect(self) -> list[Metric]:
        self.made += 1
        self.making.set()
        self.goes_on.wait(10)
        return [Metric("held", self._text, "gauge")]

    def describe(self) -> list[Metric]:
        return []


async def test_a_page_that_is_being_made_is_not_lost_to_others_who_ask_and_serves_them_all(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 4)
    held = Held()
    registry.register(held)  # type: ignore[arg-type]
    page = await serve_metrics("127.0.0.1:0", registry)
    scrapes = [asyncio.create_task(ask(page.port)) for _ in range(4)]
    async with asyncio.timeout(10):
        while len(page._answering) < 4:
            await asyncio.sleep(0)
    for _ in range(8):
        connection = await asyncio.open_connection("127.0.0.1", page.port)
        connection[1].write(GET + b"\r\n")
        await asyncio.wait_for(_ended(connection), 10)  # turned away
        connection[1].close()
    held.goes_on.set()
    assert all(b"sold_total 3.0" in one for one in await asyncio.gather(*scrapes))
    assert held.made == 1
    await page.close()


async def test_whatever_is_asked_for_there_are_four_pages(registry: CollectorRegistry) -> None:
    held = Held()
    registry.register(held)  # type: ignore[arg-type]
    page = await serve_metrics("127.0.0.1:0", registry)
    scrapes = [
        asyncio.create_task(
            ask(
                page.port,
                f"GET /{one}?name[]=x{one} HTTP/1.1\r\nAccept: text/html;q={one}{more}, a/{one}\r\n"
                f"Accept-Encoding: {coding}br;q={one}\r\n\r\n".encode(),
            )
        )
        for one in range(10)
        for more in ("", f", application/openmetrics-text; version=1.{one}")
        for coding in ("", "gzip, ")
    ]
    async with asyncio.timeout(10):
        while len(page._answering) < len(scrapes):
            await asyncio.sleep(0)
    held.goes_on.set()
    answers = await asyncio.gather(*scrapes)
    await page.close()
    assert held.made == 4
    assert all(one.split()[1] == b"200" for one in answers)
    assert len(set(answers)) == 4


def test_who_goes_while_its_page_is_made_is_no_error(registry: CollectorRegistry) -> None:
    held = Held()
    registry.register(held)  # type: ignore[arg-type]

    async def goes() -> None:
        page = await serve_metrics("127.0.0.1:0", registry)
        with socket.create_connection(("127.0.0.1", page.port)) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.sendall(GET + b"\r\n")
            await asyncio.to_thread(held.making.wait, 10)
            (writer,) = page._answering
            (exchange,) = page._exchanges
        async with asyncio.timeout(10):
            while not writer.transport.is_closing():
                await asyncio.sleep(0)
        held.goes_on.set()
        await asyncio.wait({exchange}, timeout=10)
        await page.close()
        assert exchange.exception() is None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(goes())


async def test_who_does_not_take_its_page_makes_way(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 2)
    held = Held("x" * 32_000_000)  # more than sockets hold
    held.goes_on.set()
    registry.register(held)  # type: ignore[arg-type]
    async with served(registry) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(2)]
        for reader, writer in idle:
            writer.write(GET + b"\r\n")
            assert await asyncio.wait_for(reader.readexactly(1), 10)
        assert b"sold_total 3.0" in await ask(
            port, GET.replace(b"s HT", b"s?name[]=sold_total HT") + b"\r\n"
        )
        for _, writer in idle:
            writer.close()


async def test_the_end_waits_for_a_page_that_is_being_made(registry: CollectorRegistry) -> None:
    making, goes_on = threading.Event(), threading.Event()

    class Slow:
        def collect(self) -> list[object]:
            making.set()
            goes_on.wait(10)
            return []

        def describe(self) -> list[object]:
            return []

    registry.register(Slow())  # type: ignore[arg-type]
    page = await serve_metrics("127.0.0.1:0", registry)
    asking = asyncio.create_task(ask(page.port))
    await asyncio.to_thread(making.wait, 10)
    closing = asyncio.create_task(page.close())
    with suppress(ConnectionError):
        await asking
    assert not closing.done()
    goes_on.set()
    await asyncio.wait_for(closing, 10)


async def test_a_page_that_cannot_be_made_is_an_error_of_that_request_alone(
    registry: CollectorRegistry,
) -> None:
    async with served(registry) as port:

        class Broken:
            def collect(self) -> None:
                raise ZeroDivisionError

            def describe(self) -> list[object]:
                return []

        broken = Broken()
        registry.register(broken)  # type: ignore[arg-type]
        assert (await ask(port)).split()[1] == b"500"
        registry.unregister(broken)  # type: ignore[arg-type]
        assert b"sold_total 3.0" in await ask(port)


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:http", "127.0.0.1", "127.0.0.1:99999", "9:9:9", "[::1]", "no host:1"]
)
async def test_an_address_that_is_none_stops_the_start(
    registry: CollectorRegistry, listen: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await serve_metrics(listen, registry)
    assert f"metrics listen address {listen}" in str(caught.value)


async def test_a_taken_port_stops_the_start(registry: CollectorRegistry) -> None:
    with taken_port() as port, pytest.raises(ConfigError, match="metrics listen address"):
        await serve_metrics(f"127.0.0.1:{port}", registry)


def test_it_is_no_server_before_its_start(registry: CollectorRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert Exposition(registry, listening).port == listening.getsockname()[1]
