"""What many ask for at a time is made once for them, and never from before they asked."""

import asyncio

import pytest

from services.common.shared import Shared


class Slow:
    """Makes the state as it is at the beginning, when it is let."""

    def __init__(self) -> None:
        self.state = 0
        self.made = 0
        self.go = asyncio.Event()
        self.wrong: Exception | None = None

    async def make(self) -> int:
        self.made += 1
        found = self.state
        await self.go.wait()
        if self.wrong is not None:
            raise self.wrong
        return found


async def begun(slow: Slow, times: int) -> None:
    while slow.made < times:
        await asyncio.sleep(0)


async def test_a_crowd_costs_two_and_nobody_gets_one_from_before_it_asked() -> None:
    slow = Slow()
    shared = Shared(slow.make)
    first = asyncio.create_task(shared.get())
    await begun(slow, 1)
    slow.state = 1  # seen by whoever asks from here on
    crowd = [asyncio.create_task(shared.get()) for _ in range(64)]
    await asyncio.sleep(0)
    slow.go.set()
    assert await first == 0
    assert set(await asyncio.gather(*crowd)) == {1}
    assert slow.made == 2
    slow.state = 2
    assert await shared.get() == 2


async def test_who_is_cut_off_has_nothing_made_anew_for_the_others() -> None:
    slow = Slow()
    shared = Shared(slow.make)
    cut_off = [asyncio.create_task(shared.get()) for _ in range(64)]
    await begun(slow, 1)
    cut_off += [asyncio.create_task(shared.get()) for _ in range(64)]
    quiet = asyncio.create_task(shared.get())
    for caller in cut_off:  # one after another, as their deadlines pass
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    await begun(slow, 2)  # which waits for nothing that nobody wants
    slow.go.set()
    assert await quiet == 0
    assert slow.made == 2


async def test_what_nobody_waits_for_is_not_made_to_its_end() -> None:
    ended = asyncio.Event()

    async def make() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    shared = Shared(make)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await shared.get()
        await ended.wait()
        ended.clear()


async def test_what_cannot_be_made_is_tried_again_for_the_next() -> None:
    slow = Slow()
    slow.go.set()
    slow.wrong = ValueError("no")
    shared = Shared(slow.make)
    with pytest.raises(ValueError, match="no"):
        await shared.get()
    slow.wrong = None
    assert await shared.get() == 0
