"""Callers who do not read: looked over beside what else ends their calls."""

import asyncio
from functools import partial

import pytest

from services.router.request.unread import Reader, SlowReaders
from services.router.servicer import end_now
from tests.making.policies import ladder, route
from tests.making.walking import Engine, Way


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
