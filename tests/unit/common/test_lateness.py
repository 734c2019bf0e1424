"""What is given up when it is due, and what later, as the loop itself was late."""

import asyncio
from collections.abc import Sequence

import pytest

from services.common.lateness import LOOKS, Limit

SECONDS = 60.0
GRACE = 3.0


@pytest.fixture
async def answer() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


def pass_through(monkeypatch: pytest.MonkeyPatch, limit: Limit, came: Sequence[float]) -> None:
    """The loop comes to the limit, so many seconds after the last time; never by itself."""
    loop = asyncio.get_running_loop()
    for seconds in came:
        now = loop.time() + seconds
        monkeypatch.setattr(loop, "time", lambda now=now: now)
        limit._timer.cancel()
        limit._reached(limit._timer.when())
    monkeypatch.undo()


async def test_what_is_due_is_given_up(
    monkeypatch: pytest.MonkeyPatch, answer: "asyncio.Future[str]"
) -> None:
    limit = Limit(SECONDS, GRACE, answer.cancel)
    pass_through(monkeypatch, limit, [SECONDS / LOOKS + GRACE / 2] * (LOOKS - 1))
    assert not answer.cancelled()
    pass_through(monkeypatch, limit, [SECONDS / LOOKS])
    assert answer.cancelled()
    assert not limit.late


@pytest.mark.parametrize(
    "came",
    [
        [SECONDS / LOOKS] * (LOOKS - 1) + [SECONDS / LOOKS + 2 * GRACE],
        [SECONDS + 0.1],
        [SECONDS / LOOKS + 2 * GRACE] + [SECONDS / LOOKS] * (LOOKS - 1),
    ],
    ids=["at the end", "all the time", "at the beginning"],
)
async def test_it_is_given_up_a_little_later_if_we_were_late(
    monkeypatch: pytest.MonkeyPatch, answer: "asyncio.Future[str]", came: Sequence[float]
) -> None:
    limit = Limit(SECONDS, GRACE, answer.cancel)
    pass_through(monkeypatch, limit, came)
    assert limit.late
    assert not answer.cancelled()
    limit._timer._run()  # type: ignore[attr-defined]
    assert answer.cancelled()


async def test_what_has_come_in_time_is_not_given_up_though_we_read_it_late(
    monkeypatch: pytest.MonkeyPatch, answer: "asyncio.Future[str]"
) -> None:
    limit = Limit(SECONDS, GRACE, answer.cancel)
    asyncio.get_running_loop().call_soon(answer.set_result, "answer")
    pass_through(monkeypatch, limit, [2 * SECONDS])  # the loop was held up
    assert await answer == "answer"
    limit.cancel()
    assert limit._timer.cancelled()
