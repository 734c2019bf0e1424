"""Who has the next turn; what becomes of the turns of those who left."""

import asyncio

from services.common.fair_semaphore import FairSemaphore


class Queue:
    """Who waits at a semaphore of one turn, which is taken."""

    def __init__(self) -> None:
        self.turns = FairSemaphore(1)
        self.came: list[str] = []

    async def _wait(self, name: str) -> None:
        await self.turns.take(name[0])
        self.came.append(name)

    async def holding(self, *names: str) -> dict[str, "asyncio.Task[None]"]:
        """Takes the turn, and has those of these names wait, in this order."""
        await self.turns.take("holder")
        waiting = {name: asyncio.create_task(self._wait(name)) for name in names}
        await asyncio.sleep(0)
        return waiting

    async def give_back(self, times: int) -> list[str]:
        """Gives back so many turns, one after another; who has come so far."""
        for _ in range(times):
            self.turns.give_back()
            await asyncio.sleep(0)
        return self.came


async def test_a_crowd_holds_up_its_own_alone() -> None:
    queue = Queue()
    await queue.holding("a1", "a2", "a3", "b1", "c1", "b2")
    assert await queue.give_back(6) == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_who_comes_anew_does_not_come_before_those_who_wait() -> None:
    queue = Queue()
    await queue.holding("a1", "b1")
    await queue.give_back(1)
    again = asyncio.create_task(queue._wait("a2"))
    await asyncio.sleep(0)
    assert await queue.give_back(2) == ["a1", "b1", "a2"]
    await again


async def test_as_many_as_there_are_turns_have_one_at_once() -> None:
    turns = FairSemaphore(2)
    await turns.take("a")
    await turns.take("b")
    third = asyncio.create_task(turns.take("a"))
    await asyncio.sleep(0)
    assert not third.done()
    turns.give_back()
    await third
    turns.give_back()
    await turns.take("c")


async def test_who_has_left_takes_no_turn_and_loses_its_line_none() -> None:
    queue = Queue()
    waiting = await queue.holding("a1", "a2", "b1")
    waiting["a1"].cancel()
    await asyncio.gather(waiting["a1"], return_exceptions=True)
    assert await queue.give_back(1) == ["a2"]
    assert await queue.give_back(1) == ["a2", "b1"]
    queue.turns.give_back()
    await queue.turns.take("c")


async def test_a_turn_that_came_as_its_waiter_left_is_the_next_ones() -> None:
    queue = Queue()
    waiting = await queue.holding("a1", "b1")
    queue.turns.give_back()
    waiting["a1"].cancel()
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    assert queue.came == ["b1"]


async def test_turns_of_which_all_waiters_left_are_free_again() -> None:
    queue = Queue()
    waiting = await queue.holding("a1", "b1")
    for task in waiting.values():
        task.cancel()
    await asyncio.gather(*waiting.values(), return_exceptions=True)
    queue.turns.give_back()
    await queue.turns.take("c")
