"""What this process has open, so that a test can see whether something was left behind."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil


def opened() -> set[str]:
    """Sockets of the network, files and threads, as they are now; not what gRPC shares."""
    process = psutil.Process()
    sockets = {f"{one.status} {one.laddr}" for one in process.net_connections("inet")}
    files = {one.path for one in process.open_files()}
    threads = {one.name for one in threading.enumerate() if "_poll_wrapper" not in one.name}
    return sockets | files | threads


async def closes(before: set[str]) -> None:
    """Waits until nothing is open that was not before, but for the loop's own first worker.

    A thread that ends may take its time.
    """
    left = before | {"asyncio_0"}
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while not opened() <= left:
                await asyncio.sleep(0.01)
    assert opened() - left == set()


@contextmanager
def taken_port() -> Iterator[int]:
    """A port of this machine that somebody else listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]
