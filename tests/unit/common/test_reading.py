"""Turns at reading messages, and the time that one may be on its way."""

import asyncio
from typing import Any

import grpc
import pytest

from services.common.caller_turns import REST
from services.common.errors import BadRequest, DeadlineExceeded
from services.common.reading import (
    FEW_PARTS,
    LARGE_BYTES,
    LEAST_TURNS,
    LONG_BYTES,
    MOST_BYTES,
    MOST_PARTS,
    Reading,
    single_message,
)


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


PART = b"\x12\x00"


def of_parts(number: int, size: int) -> bytes:
    """A message of so many parts, the last of them a text that makes it so many bytes large."""
    data = PART * (number - 1)
    left = size - len(data) - 5
    return (
        data
        + bytes((0x0A, *(128 | left >> 7 * k & 127 for k in range(3)), left >> 21))
        + (b"x" * left)
    )


DEAR = of_parts(FEW_PARTS + 1, LARGE_BYTES + 1)
LONG = of_parts(3, LONG_BYTES + 1)


@pytest.mark.parametrize("data", [DEAR, LONG], ids=["many parts", "long"])
async def test_dear_messages_are_parsed_one_by_one_and_others_get_on_between(data: bytes) -> None:
    turns, order = Reading.of_bytes(4 * 2**20), list[str]()

    def parse(data: bytes) -> int:
        order.append("parsed")
        return len(data)

    async def other() -> None:
        for _ in range(2):
            order.append("other")
            await asyncio.sleep(0)

    async def parsed(caller: str) -> int:
        async with turns.turn(caller, 9.0):
            return await turns.parsed(caller, parse, data, {}, clock=lambda: 0.0)

    sizes = await asyncio.gather(parsed("a"), parsed("a"), other())
    assert sizes[:2] == [len(data)] * 2
    between = order[order.index("parsed") + 1 :]
    assert "other" in between[: between.index("parsed")]


@pytest.mark.parametrize(
    "data",
    [
        b"small",
        of_parts(LARGE_BYTES // 2 - 8, LARGE_BYTES),
        of_parts(FEW_PARTS, LARGE_BYTES + 1),
        of_parts(3, LONG_BYTES),
    ],
    ids=["small", "of many parts", "large", "long"],
)
async def test_what_is_parsed_soon_waits_for_nobody(data: bytes) -> None:
    turns = Reading.of_bytes(4 * 2**20)

    async def no_turn() -> int:
        return int(await turns.parsed("nobody in a line", len, data, {}))

    with pytest.raises(StopIteration) as parsed:  # a coroutine that never waits
        no_turn().send(None)
    assert parsed.value.value == len(data)


async def test_many_dear_messages_of_one_caller_hold_up_one_of_another_by_one_at_most() -> None:
    turns, order = Reading.of_bytes(4 * 2**20), list[str]()

    async def parsed(caller: str) -> None:
        async with turns.turn(caller, 9.0):
            await turns.parsed(caller, lambda _: order.append(caller), DEAR, {}, lambda: 0.0)

    await asyncio.gather(*(parsed("loud") for _ in range(5)), parsed("quiet"))
    assert order.index("quiet") <= 1


async def test_whoever_costs_much_rests_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, now, rests = Reading.of_bytes(4 * 2**20), [0.0], list[float]()

    def parse(data: bytes) -> int:
        now[0] += 0.5
        return len(data)

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", rest)
    async with turns.turn("a", 9.0):
        data = of_parts(3 * FEW_PARTS, LARGE_BYTES + 1)
        assert await turns.parsed("a", parse, data, {}, lambda: now[0]) == len(data)
    assert rests == [0.0, REST * 0.5]  # after more was counted, and after it was parsed


@pytest.mark.parametrize("size", [LARGE_BYTES * 8, LONG_BYTES * 8])
async def test_what_has_more_parts_than_any_call_takes_is_refused_unparsed(size: int) -> None:
    turns = Reading.of_bytes(4 * 2**20)

    def parse(_: bytes) -> None:
        raise AssertionError("it is parsed")

    for data, why, reason in (
        (of_parts(MOST_PARTS + 1, size), "more than 16384 parts", "TOO_MANY_PARTS"),
        (b"\x0f" + bytes(size), "cannot be read", "MALFORMED"),
    ):
        async with turns.turn("a", 9.0):
            with pytest.raises(BadRequest, match=why) as caught:
                await turns.parsed("a", parse, data, {}, lambda: 0.0)
        assert caught.value.reason == reason
    async with turns.turn("a", 9.0):
        most = of_parts(MOST_PARTS, size)
        assert await turns.parsed("a", len, most, {}, lambda: 0.0) == len(most)


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
