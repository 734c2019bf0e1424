"""How many calls are open, and whose, until gRPC lets go of them."""

from collections.abc import Callable
from typing import Any

import pytest

from services.common.errors import Unavailable
from services.common.open_calls import OpenCalls


class Context:
    """Remembers whom to tell of the call's end."""

    def __init__(self) -> None:
        self._done: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._done.append(callback)

    def end(self) -> None:
        for callback in self._done:
            callback(self)


def opened(calls: OpenCalls, caller: str) -> Context:
    context = Context()
    calls.enter(caller, context)
    return context


def test_one_caller_leaves_room_to_others_and_everybody_has_a_bound() -> None:
    calls = OpenCalls(most=3, most_of_one=2)
    first, _ = opened(calls, "loud"), opened(calls, "loud")
    with pytest.raises(Unavailable) as caught:
        opened(calls, "loud")
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("TOO_MANY_CALLS", 1.0)
    opened(calls, "quiet")
    with pytest.raises(Unavailable):
        opened(calls, "third")
    first.end()
    opened(calls, "third")


def test_in_a_crowd_each_has_fewer_and_nobody_is_left_out() -> None:
    calls = OpenCalls(None, 3, crowd=4, most_in_crowd=1)
    for _ in range(3):
        opened(calls, "loud")
    first = opened(calls, "second")
    with pytest.raises(Unavailable):
        opened(calls, "second")
    for caller in ("third", "fourth", "fifth"):
        opened(calls, caller)
        with pytest.raises(Unavailable):
            opened(calls, caller)
    first.end()
    opened(calls, "second")


def test_a_refused_call_counts_nothing() -> None:
    calls = OpenCalls(most=None, most_of_one=1)
    first = opened(calls, "a")
    refused = Context()
    with pytest.raises(Unavailable):
        calls.enter("a", refused)
    refused.end()
    with pytest.raises(Unavailable):
        opened(calls, "a")
    first.end()
    opened(calls, "a").end()
    opened(calls, "a")
