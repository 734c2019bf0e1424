"""The cheap benchmarks run to their figures and leave nothing behind; no figure is judged."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from bench.http2 import DEFAULT_WINDOW, Client, ServerConnection, message, request_headers

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = ROOT / "model_repository" / "cpu" / "small" / "weights" / "int8"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = [one for one in psutil.process_iter(["cmdline", "cwd"]) if _names(one, tmp_path)]
    assert not left
    assert not list(tmp_path.iterdir())


def _names(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.Error:
        return False


@pytest.mark.skipif(not (WEIGHTS / "tokenizer.json").exists(), reason="the tokenizer is not here")
def test_hop_prints_its_figures_and_ends_what_it_started(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", "hop", "--quick"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("figure ")]
    figures = {name: (float(value), unit) for _, name, value, unit in lines}
    assert set(figures) == {
        "hop.complete_calls",
        "hop.complete_calls_uncached",
        "hop.streamed_messages",
    }
    assert {unit for _, unit in figures.values()} == {"/s"}


@pytest.mark.parametrize("name", ["decide", "loop", "guardrail"])
def test_benchmarks_of_one_thread_print_figures(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", name, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"figure {name}." in result.stdout


class NarrowClient(Client):
    """Lets the peer send no more ahead than every stream starts with."""

    window = DEFAULT_WINDOW


Answer = Callable[[ServerConnection, int, bytes], None]


@asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[tuple[Client, bytes]]:
    """A client, and request headers, to a server that answers so."""
    accepted: list[ServerConnection] = []

    def accept() -> ServerConnection:
        accepted.append(ServerConnection(answer))
        return accepted[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(accept, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = await NarrowClient.connect(address)
    yield client, request_headers("/a.b/C", address)
    await client.close()
    for connection in accepted:
        await connection.close()
    server.close()
    await server.wait_closed()


async def test_messages_of_many_streams_come_whole_in_spite_of_narrow_windows() -> None:
    """Far more goes over one connection than its windows hold at a time."""

    def answer(connection: ServerConnection, stream: int, request: bytes) -> None:
        for number in range(30):
            connection.respond(stream, message(request * 100), last=number == 29)

    async with connected(answer) as (client, headers):
        calls = await asyncio.gather(*(client.ask(headers, b"%3d" % n) for n in range(200)))

    assert [call.messages for call in calls] == [30] * 200
    assert [call.last for call in calls] == [b"%3d" % number * 100 for number in range(200)]


async def test_a_lost_connection_ends_the_calls() -> None:
    async with connected(lambda connection, *_: connection.abort()) as (client, headers):
        call = await client.ask(headers, b"?")

    assert call.messages == 0
