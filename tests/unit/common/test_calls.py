"""A call's cancellation is distinguished from that of the task that awaits it."""

import asyncio

from services.common.calls import is_cancelled


async def awaiting(call: "asyncio.Future[None]", seen: list[bool]) -> None:
    try:
        await call
    except asyncio.CancelledError:
        seen.append(is_cancelled())


async def test_the_calls_own_cancellation_is_not_the_tasks() -> None:
    call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[bool] = []
    task = asyncio.create_task(awaiting(call, seen))
    await asyncio.sleep(0)
    call.cancel()
    await task
    assert seen == [False]


async def test_the_tasks_cancellation_is_its_own() -> None:
    call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[bool] = []
    task = asyncio.create_task(awaiting(call, seen))
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert seen == [True]
