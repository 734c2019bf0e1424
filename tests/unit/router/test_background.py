"""Tasks that outlive their call: waited for, cut off, and contained."""

import asyncio

from structlog.testing import capture_logs

from services.router.background import Background

FOREVER = 3600.0


async def test_what_runs_and_what_it_begins_is_waited_for() -> None:
    background, done = Background(), []

    async def first() -> None:
        background.spawn(second())

    async def second() -> None:
        done.append("second")

    background.spawn(first())
    await background.ended(FOREVER)
    assert done == ["second"]


async def test_nobody_waits_longer_than_asked() -> None:
    background = Background()
    background.spawn(asyncio.sleep(FOREVER))
    await background.ended(0.01)
    await background.cut_off(FOREVER)


async def test_what_a_task_begins_as_it_is_cut_off_may_end() -> None:
    background, ended = Background(), []

    async def ending() -> None:
        await asyncio.sleep(0)
        ended.append("heard")

    async def attempt() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            background.spawn(ending())

    background.spawn(attempt())
    await background.cut_off(FOREVER)
    assert ended == ["heard"]


async def test_what_takes_too_long_to_end_is_cut_off_too() -> None:
    background, ended = Background(), []

    async def ending() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            ended.append("cut off")

    async def attempt() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            background.spawn(ending())

    background.spawn(attempt())
    await background.cut_off(0.01)
    assert ended == ["cut off"]


async def test_the_failure_of_one_ends_no_other() -> None:
    background, done = Background(), []

    async def failing() -> None:
        raise RuntimeError("a prompt")

    async def working() -> None:
        await asyncio.sleep(0)
        done.append("worked")

    with capture_logs() as logs:
        background.spawn(failing())
        background.spawn(working())
        await background.ended(FOREVER)
    assert done == ["worked"]
    (line,) = logs
    assert line["event"] == "a task of a request failed"
    assert "failing" in line["fault"]
    assert "a prompt" not in str(line)
