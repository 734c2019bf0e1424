"""What gathers is written until the block ends, and then what is left."""

import asyncio

import pytest

from services.common.writing import any_set, set_within, writing


async def test_the_block_ends_once_the_work_has() -> None:
    told: list[str] = []

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(0)
        told.append("what was left")

    async def block() -> None:
        async with writing(work):
            told.append("inside")
            raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        await block()
    assert told == ["inside", "what was left"]


async def test_any_of_some_events_ends_the_wait_and_leaves_nobody_waiting() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(any_set(first, second))
    await asyncio.sleep(0)
    second.set()
    async with asyncio.timeout(5):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_event_is_waited_for_no_longer_than_said() -> None:
    async with asyncio.timeout(5):
        await set_within(asyncio.Event(), 0.001)
    event = asyncio.Event()
    event.set()
    await set_within(event, 0.0)
