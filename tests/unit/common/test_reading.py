"""Turns at reading messages, and the time that one may be on its way."""

import asyncio
from typing import Any

import grpc
import pytest

from services.common.errors import BadRequest, DeadlineExceeded
from services.common.reading import LARGE_BYTES, LEAST_TURNS, MOST_BYTES, Reading, single_message


def test_there_are_as_many_turns_as_memory_allows() -> None:
    turns = Reading.of_bytes(4 * 2**20)
    assert turns.most == MOST_BYTES // (4 * 2**20)
    assert turns.most_of_one * 4 == turns.most
    assert Reading.of_bytes(2**40).most == LEAST_TURNS


async def test_who_has_all_its_turns_waits_and_others_do_not() -> None:
    turns, let_go, begun = Reading(3, 2), asyncio.Event(), list[str]()

    async def read(caller: str) -> None:
        async with turns.turn(caller, 9.0):
            begun.append(caller)
            await let_go.wait()

    readers = [asyncio.create_task(read(who)) for who in ("loud", "loud", "loud", "quiet", "late")]
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == ["loud", "loud", "quiet"]
    let_go.set()
    await asyncio.gather(*readers)
    assert sorted(begun) == ["late", "loud", "loud", "loud", "quiet"]
    assert turns._lines == {}


class Slow:
    """A call whose message never comes."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self.status: Any = None

    async def read(self) -> bytes:
        await self._ended.wait()
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: Any) -> None:
        self.status = status
        self._ended.set()
        raise grpc.aio.AbortError


async def test_a_message_that_does_not_come_ends_its_call() -> None:
    call = Slow()
    with pytest.raises(grpc.aio.AbortError):
        await single_message(call, 0.0)
    assert call.status.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_without_a_message_is_the_callers_fault() -> None:
    class Empty:
        async def read(self) -> Any:
            return grpc.aio.EOF

    with pytest.raises(BadRequest, match="without a message"):
        await single_message(Empty(), 9.0)


async def test_large_messages_are_parsed_one_by_one_and_others_get_on_between() -> None:
    turns, order = Reading.of_bytes(4 * 2**20), list[str]()

    def parse(data: bytes) -> int:
        order.append("parsed")
        return len(data)

    async def other() -> None:
        order.append("other")

    size = LARGE_BYTES + 1

    async def parsed(caller: str) -> int:
        async with turns.turn(caller, 9.0):
            return await turns.parsed(caller, parse, bytes(size), clock=lambda: 0.0)

    assert await asyncio.gather(parsed("a"), parsed("a"), other()) == [size, size, None]
    assert order == ["parsed", "other", "parsed"]
    assert await turns.parsed("a", parse, b"small", clock=lambda: 0.0) == 5


async def test_many_large_messages_of_one_caller_hold_up_one_of_another_by_one_at_most() -> None:
    turns, order = Reading.of_bytes(4 * 2**20), list[str]()

    async def parsed(caller: str) -> None:
        async with turns.turn(caller, 9.0):
            await turns.parsed(caller, order.append, bytes(LARGE_BYTES + 1), clock=lambda: 0.0)
            order[-1] = caller

    await asyncio.gather(*(parsed("loud") for _ in range(5)), parsed("quiet"))
    assert order.index("quiet") <= 1


async def test_a_turn_that_does_not_come_in_time_is_given_up_and_left_to_others() -> None:
    turns, go = Reading(1, 1), asyncio.Event()

    async def hold() -> None:
        async with turns.turn("a", 9.0):
            await go.wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    for caller in ("a", "b"):
        with pytest.raises(DeadlineExceeded, match="took all of 0 s"):
            async with turns.turn(caller, 0.0):
                raise AssertionError("it has no turn")
    go.set()
    await holding
    async with turns.turn("b", 9.0) as left:
        assert 0 < left <= 9.0
