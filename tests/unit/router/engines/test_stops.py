"""An answer that is stopped: what its replica says last tells how far it came, or nothing."""

import asyncio
import struct
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from services.common.errors import InternalError
from services.router.engines import own_call, shared_call
from services.router.engines.own_call import OwnCall
from services.router.engines.pieces import Pieces
from services.router.engines.shared_call import SharedCall
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
    monkeypatch.setattr(shared_call, "LAST_SECONDS", 0.05)
    call = await asyncio.wait_for(stopped(*says), 5)
    assert (call.output_tokens, call.final) == (0, False)


class Slow:
    """A stream whose request comes to its replica after the first stops."""

    def __init__(self, deaf_to: int) -> None:
        self.deaf_to = deaf_to
        self.stops = 0
        self.cancelled = False
        self.heard = asyncio.Event()

    def ask_to_stop(self) -> None:
        self.stops += 1
        if self.stops > self.deaf_to:
            self.heard.set()

    async def read(self) -> Any:
        if self.heard.is_set():
            return grpc.aio.EOF
        await self.heard.wait()
        return service_pb2.ModelStreamInferResponse(
            infer_response=service_pb2.ModelInferResponse(
                outputs=[_output("output_ids", [1, 1, 2]), _output("sequence_length", [1, 1])],
                raw_output_contents=[struct.pack("<ii", 97, 98), struct.pack("<i", 2)],
                parameters={"triton_final_response": _true()},
            )
        )

    def cancel(self) -> None:
        self.cancelled = True


def _output(name: str, shape: list[int]) -> Any:
    return service_pb2.ModelInferResponse.InferOutputTensor(
        name=name, datatype="INT32", shape=shape
    )


def _true() -> Any:
    return service_pb2.InferParameter(bool_param=True)


async def test_a_stop_that_came_before_its_request_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_call, "ASK_AGAIN_SECONDS", 0.005)
    stream = Slow(deaf_to=2)
    call = OwnCall(
        set(),
        Pieces(Letters(), (), 64),
        lambda: 0.0,
        call=stream,
        spawn=asyncio.create_task,
        ask_to_stop=stream.ask_to_stop,
    )
    await call.stop()
    assert (stream.stops, call.final, call.output_tokens) == (3, True, 2)


async def test_what_comes_after_the_end_is_not_counted() -> None:
    call = await stopped(REPLY, LAST)
    own = OwnCall(
        set(),
        Pieces(Letters(), (), 64),
        lambda: 0.0,
        call=Slow(deaf_to=9),
        spawn=asyncio.create_task,
        ask_to_stop=lambda: None,
    )
    own.cancel()
    for ended in (call, own):
        before = ended.output_tokens
        ended.arrived(LAST)
        assert ended.output_tokens == before


async def test_what_piled_up_is_one_piece_in_its_order_up_to_a_failure() -> None:
    call = OwnCall(
        set(),
        Pieces(Letters(), (), 64),
        lambda: 0.0,
        call=Slow(deaf_to=0),
        spawn=asyncio.create_task,
        ask_to_stop=lambda: None,
    )
    for token in range(3):
        call.arrived(Chunk((97 + token, 100 + token), final=False))
    call.arrived(Chunk((103,), final=True))
    call.arrived(InternalError("after all"))
    piece = await call.read(1.0)
    assert (piece.text, piece.tokens, piece.ended) == ("adbecfg", 7, True)
    with pytest.raises(InternalError):
        await call.read(1.0)


async def test_what_came_came_then_whenever_it_is_read() -> None:
    now = 1.0
    call = OwnCall(
        set(),
        Pieces(Letters(), (), 64),
        lambda: now,
        call=Slow(deaf_to=9),
        spawn=asyncio.create_task,
        ask_to_stop=lambda: None,
    )
    assert call.heard_at is None
    call.arrived(Chunk((97,), final=False))
    now = 9.0
    assert (await call.read(1.0)).text == "a"
    assert call.heard_at == 1.0
    for letter in (98, 99):
        call.arrived(Chunk((letter,), final=letter == 99))
    now = 10.0
    piece = await call.read(1.0)  # all that has piled up
    assert (piece.text, piece.tokens, piece.ended, call.heard_at) == ("bc", 2, True, 9.0)
    now = 11.0
    call.arrived(ReplicaFailed("lost", lost=True))  # nothing of an answer
    assert call.heard_at == 9.0
    call.cancel()
