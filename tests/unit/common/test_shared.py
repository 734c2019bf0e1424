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


async def test_a_crowd_costs_two_and_nobody_gets_one_from_before_it_asked() -> None:
    slow = Slow()
    shared = Shared(slow.make)
    first = asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    slow.state = 1  # seen by whoever asks from here on
    crowd = [asyncio.create_task(shared.get()) for _ in range(64)]
    await asyncio.sleep(0)
    slow.go.set()
    assert await first == 0
    assert set(await asyncio.gather(*crowd)) == {1}
    assert slow.made == 2
    slow.state = 2
    assert await shared.get() == 2


async def test_who_gives_up_while_making_leaves_it_to_the_next() -> None:
    slow = Slow()
    shared = Shared(slow.make)
    first, second = (asyncio.create_task(shared.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    slow.go.set()
    assert await second == 0
    assert slow.made == 2


async def test_what_cannot_be_made_is_tried_again_for_the_next() -> None:
    slow = Slow()
    slow.go.set()
    slow.wrong = ValueError("no")
    shared = Shared(slow.make)
    with pytest.raises(ValueError, match="no"):
        await shared.get()
    slow.wrong = None
    assert await shared.get() == 0
