"""A whole answer that is stopped: what its replica says last tells how far it came, or nothing."""

import asyncio
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from services.router.engines import triton_streams
from services.router.engines.pieces import Pieces
from services.router.engines.triton_streams import SharedCall
from services.router.engines.trtllm import Chunk
from services.router.ports import EngineFigures, ReplicaFailed
from tests.making.walking import Letters

REPLY = Chunk((), final=True, figures=EngineFigures(), bare=True)
WORKED = EngineFigures(engine_seconds=0.5)


class Stream:
    """A shared stream that answers each stop with what it is told to."""

    def __init__(self, *says: Chunk | Exception) -> None:
        self.says = says
        self.call: SharedCall | None = None

    def send(self, request: Any, call: SharedCall) -> None:
        self.call = call

    def ask(self, request: Any) -> None:
        for what in self.says:
            asyncio.get_running_loop().call_soon(self.call.arrived, what)  # type: ignore[union-attr]

    def end(self, request_id: str) -> None:
        self.call = None


class Encoder:
    """Makes stops."""

    def stop(self, request_id: str) -> service_pb2.ModelInferRequest:
        return service_pb2.ModelInferRequest(id=request_id)


async def stopped(*says: Chunk | Exception) -> SharedCall:
    call = SharedCall(
        set(),
        Pieces(Letters(), (), 64),
        lambda: 0.0,
        stream=Stream(*says),  # type: ignore[arg-type]
        request=service_pb2.ModelInferRequest(id="1"),
        encoder=Encoder(),  # type: ignore[arg-type]
    )
    await call.stop()
    return call


LAST = Chunk((97, 98, 99), final=True, figures=WORKED)


@pytest.mark.parametrize("says", [(LAST,), (REPLY, LAST), (LAST, REPLY)])
async def test_its_tokens_are_counted_whenever_the_reply_comes(says: tuple[Chunk, ...]) -> None:
    call = await stopped(*says)
    assert (call.output_tokens, call.final, call.figures) == (3, True, WORKED)


async def test_where_the_tokens_are_dropped_the_log_probs_tell_how_many() -> None:
    dropped = Chunk((), final=True, figures=WORKED, log_probs=b"\0" * 4 * 7)
    call = await stopped(REPLY, dropped)
    assert (call.output_tokens, call.final) == (7, True)


async def test_dropped_tokens_alone_say_nothing() -> None:
    call = await stopped(REPLY, Chunk((), final=True, figures=WORKED))
    assert (call.output_tokens, call.final) == (0, False)
    assert call.figures.engine_seconds == 0.5  # by which they are estimated


async def test_one_that_had_not_begun_has_made_nothing() -> None:
    call = await stopped(REPLY, Chunk((), final=True, figures=EngineFigures()))
    assert (call.output_tokens, call.final) == (0, True)


@pytest.mark.parametrize("says", [(), (REPLY,), (ReplicaFailed("gone", lost=True),)])
async def test_a_replica_that_says_nothing_leaves_it_open(
    says: tuple[Chunk | Exception, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_streams, "LAST_SECONDS", 0.05)
    call = await asyncio.wait_for(stopped(*says), 5)
    assert (call.output_tokens, call.final) == (0, False)
