"""A stream that many answers share tells all of them when it ends, however that comes."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2

from services.router.engines.shared_call import SharedStream
from services.router.engines.trtllm import Chunk
from services.router.ports import ReplicaFailed


class Wire:
    """The call below a stream, of which one method fails as nobody foresaw."""

    def __init__(self, fails: str) -> None:
        self._fails = fails
        self._written = asyncio.Event()

    async def read(self) -> Any:
        await self._written.wait()
        if self._fails == "read":
            raise ValueError("a prompt")
        await asyncio.Event().wait()

    async def write(self, _: service_pb2.ModelInferRequest) -> None:
        self._written.set()
        if self._fails == "write":
            raise ValueError("a prompt")

    def cancel(self) -> None:
        """Nothing else runs."""


class Waiting:
    """An answer that is waited for."""

    def __init__(self) -> None:
        self.what: asyncio.Future[Chunk | Exception] = asyncio.get_running_loop().create_future()

    def arrived(self, what: Chunk | Exception) -> None:
        self.what.set_result(what)


@pytest.mark.parametrize("fails", ["read", "write"])
async def test_an_odd_failure_fails_what_waits_and_is_logged_without_its_words(fails: str) -> None:
    stream, waiting = SharedStream(Wire(fails)), Waiting()
    with capture_logs() as logs:
        stream.send(service_pb2.ModelInferRequest(id="1"), waiting)  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            failure = await waiting.what
    assert isinstance(failure, ReplicaFailed)
    assert failure.lost
    assert stream.broken
    (line,) = logs
    assert "ValueError" in line["fault"]
    assert "a prompt" not in str(line)
    stream.end("1")
    await stream.close()
