"""Turns at long work on the loop: who waits for whom, and how long others run meanwhile."""

import asyncio

import pytest

from services.common.caller_turns import PIECE, REST, CallerTurns


async def test_a_crowd_waits_behind_its_own_and_delays_others_by_one_at_most() -> None:
    turns, order = CallerTurns(), list[str]()

    async def ask(caller: str) -> None:
        await turns.made(caller, range(2 * PIECE), lambda _: None)
        order.append(caller)

    await asyncio.gather(*(ask("loud") for _ in range(8)), ask("quiet"))
    assert order.index("quiet") <= 1
    assert turns._lines == {}


async def test_a_few_are_made_at_once_and_wait_for_nobody() -> None:
    turns = CallerTurns()
    async with turns.turn("loud"):
        with pytest.raises(StopIteration) as made:  # a coroutine that never waits
            turns.made("loud", range(PIECE), str).send(None)
    assert made.value.value == [str(item) for item in range(PIECE)]


async def test_others_run_most_of_the_time_that_many_take(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, now, rests = CallerTurns(), [0.0], list[float]()

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", rest)
    async with turns.turn("a", lambda: now[0]) as rested:
        for seconds in (0.5, 0.25):
            now[0] += seconds
            await rested()
    assert rests == [0.5 * REST, 0.25 * REST]


async def test_pieces_are_of_a_size_and_what_comes_of_them_is_in_order() -> None:
    turns, others = CallerTurns(), list[int]()
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return -item

    async def beside() -> None:
        while len(made) < 100:
            others.append(len(made))
            await asyncio.sleep(0)

    found, _ = await asyncio.gather(turns.made("a", range(100), make, piece=10), beside())
    assert found == [-item for item in range(100)]
    assert {10, 50, 90} <= set(others)  # others ran between any two pieces


async def test_who_gives_up_leaves_the_turn_to_the_next() -> None:
    turns = CallerTurns()

    async def hold() -> None:
        async with turns.turn("a"):
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(turns.made("b", range(2 * PIECE), str))
    await asyncio.sleep(0)
    assert not waiting.done()
    holding.cancel()
    assert len(await waiting) == 2 * PIECE
