"""Callers who do not read: looked over beside what else ends their calls."""

import asyncio
from functools import partial

import pytest

from services.router.request.unread import Reader, SlowReaders
from services.router.servicer import end_now
from tests.making.policies import ladder, route
from tests.making.walking import Engine, Listener, Run, Way


def way() -> Way:
    return Way(route("chat", *ladder("small")), Engine({}))


async def test_a_call_whose_own_time_ends_in_the_turn_of_the_look_is_no_error() -> None:
    scene, looked = way(), []
    readers = SlowReaders(scene.metrics, most_seconds=1.0, most_bytes=0, clock=lambda: 9.0)

    def look(time: asyncio.Timeout) -> None:
        assert time.expired()
        readers.look()
        looked.append(True)

    async def call() -> None:
        async with asyncio.timeout(0.0) as time:
            readers.readers.add(Reader(scene.state, partial(end_now, time), since=0.0))
            # Runs after the timeout has fired and before what runs under it hears of it.
            asyncio.get_running_loop().call_soon(look, time)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await call()
    assert looked == [True]


async def test_who_reads_nothing_keeps_nobody_waiting_who_asks_the_same() -> None:
    scene = Way(route("chat", *ladder("small")), Engine({"small": [Run(["one ", "two"])]}))
    now = iter((0.9, 1.0, 2.0))
    readers = SlowReaders(scene.metrics, most_seconds=60.0, most_bytes=1000, clock=now.__next__)
    listener = Listener(blocks_at=0)
    answering = asyncio.create_task(scene.answer(listener))
    async with asyncio.timeout(5):
        await listener.blocked.wait()
    readers.readers.add(Reader(scene.state, end=lambda: None, since=0.0))
    given_back: list[list[str]] = []
    for _ in range(3):
        readers.look()
        given_back.append(list(scene.cache.abandoned))
    assert given_back == [[], ["lease"], ["lease"]]
    listener.blocks_at = -1
    listener.let_go.set()
    await answering
    assert [answer.output_tokens for answer in scene.cache.stored] == [7]  # all the same
    assert scene.cache.abandoned == ["lease"]
