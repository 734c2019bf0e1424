"""What is put in comes out in order, as much at a time as has piled up."""

import asyncio

from services.common.outbox import Outbox


async def test_what_piled_up_is_taken_together_and_in_order() -> None:
    outbox: Outbox[int] = Outbox()
    for number in range(5):
        outbox.put(number)
    assert [await outbox.take(3), await outbox.take(3)] == [[0, 1, 2], [3, 4]]


async def test_what_is_too_large_together_is_taken_apart() -> None:
    outbox: Outbox[str] = Outbox(len)
    for item in ("aa", "bb", "c", "dddddd", "e"):
        outbox.put(item)
    taken = [await outbox.take(10, max_size=4) for _ in range(4)]
    assert taken == [["aa", "bb"], ["c"], ["dddddd"], ["e"]]


async def test_whose_items_they_are_take_turns_and_keep_their_own_order() -> None:
    outbox: Outbox[str] = Outbox(len, whose=lambda item: item[0])
    for item in ("a1", "a2---", "a3---", "b1", "c1", "b2"):
        outbox.put(item)
    taken = [await outbox.take(10, max_size=6) for _ in range(3)]
    assert taken == [["a1", "b1", "c1"], ["a2---"], ["b2"]]
    outbox.put("b3")
    assert await outbox.take(10) == ["a3---", "b3"]


async def test_who_takes_waits_until_there_is_something() -> None:
    outbox: Outbox[str] = Outbox()
    taking = asyncio.create_task(outbox.take(10))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done()
    outbox.put("first")
    outbox.put("second")
    assert await taking == ["first", "second"]


async def test_what_is_forgotten_is_never_taken() -> None:
    outbox: Outbox[str] = Outbox()
    outbox.put("of the stream before")
    outbox.clear()
    taking = asyncio.create_task(outbox.take(1))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done()
    outbox.put("of this one")
    assert await taking == ["of this one"]


async def test_a_writer_that_ends_takes_nothing_with_it() -> None:
    outbox: Outbox[str] = Outbox()
    taking = asyncio.create_task(outbox.take(1))
    await asyncio.sleep(0)
    outbox.put("kept")
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert await outbox.take(1) == ["kept"]


async def test_of_what_one_has_only_so_much_is_out_and_others_pass_by() -> None:
    outbox: Outbox[str] = Outbox(len, whose=lambda item: item[0], most_out=2)
    for item in ("a1", "a2", "a3", "a4"):
        outbox.put(item)
    assert await outbox.take(10) == ["a1", "a2"]
    outbox.put("b1")
    outbox.put("a5")
    assert await outbox.take(10) == ["b1"]
    taking = asyncio.create_task(outbox.take(10))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done()
    outbox.over("a")
    assert await taking == ["a3"]
    outbox.over("a")
    outbox.over("a")
    assert await outbox.take(10) == ["a4", "a5"]
    outbox.over("a")
    outbox.over("a")
    outbox.put("a6")
    assert await outbox.take(10) == ["a6"]


async def test_on_a_new_stream_nothing_is_out() -> None:
    outbox: Outbox[str] = Outbox(whose=lambda item: item[0], most_out=1)
    outbox.put("a1")
    outbox.put("a2")
    assert await outbox.take(10) == ["a1"]
    outbox.clear()
    outbox.put("a3")
    assert await outbox.take(10) == ["a3"]
