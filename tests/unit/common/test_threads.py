"""Threads are there from the start, so that a lack of them later hinders nothing."""

import asyncio
import threading
from typing import NoReturn

import pytest

from services.common.threads import take_threads, whole_pool


def none_left(_: threading.Thread) -> NoReturn:
    raise RuntimeError("can't start new thread")


async def test_work_beside_the_loop_needs_no_thread_that_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_threads()
    all_at_once = threading.Barrier(2)
    with monkeypatch.context() as lack:
        lack.setattr(threading.Thread, "start", none_left)
        await asyncio.gather(*(asyncio.to_thread(all_at_once.wait) for _ in range(2)))


def test_a_system_without_so_many_threads_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if len(started) == 2:
            none_left(thread)
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        whole_pool(3, "few")
    for thread in started:
        thread.join(30)
    assert not any(thread.is_alive() for thread in started)
