"""Turns: whose is next, who is refused, and that none gets lost."""

import asyncio

import pytest

from services.common.errors import DeadlineExceeded, Overloaded
from services.router.admission.turns import Turns
from services.router.policy.line import Priority

SOON = 1000.0
NORMAL = Priority.INTERACTIVE


def turns(at_once: int = 4, for_one: int = 2, waiting: int = 8, waiting_for_one: int = 4) -> Turns:
    return Turns(
        at_once,
        for_one,
        clock=lambda: 0.0,
        waiting=waiting,
        waiting_for_one=waiting_for_one,
        what="outcomes",
        reason="TOO_MANY_OUTCOMES",
    )


def asks(turns: Turns, tenant: str, times: int = 1) -> "list[asyncio.Task[None]]":
    return [asyncio.create_task(turns.take(tenant, NORMAL, SOON)) for _ in range(times)]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def has(asked: "list[asyncio.Task[None]]") -> int:
    return sum(one.done() and one.exception() is None for one in asked)


async def end(*asked: "asyncio.Task[None]") -> None:
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_one_tenant_has_its_part_alone_and_another_waits_for_none_of_it() -> None:
    some = turns()
    crowd = asks(some, "acme", 6)
    await settled()
    assert has(crowd) == 2
    (other,) = asks(some, "globex")
    await settled()
    assert other.done()
    await end(*crowd)


async def test_of_many_the_first_wait_and_the_others_are_refused_with_a_hint() -> None:
    some = turns()
    crowd = asks(some, "acme", 10)
    await settled()
    refused = [one.exception() for one in crowd if one.done() and one.exception() is not None]
    assert len(refused) == 10 - 2 - 4
    for error in refused:
        assert isinstance(error, Overloaded)
        assert (error.reason, error.retry_after_seconds) == ("TOO_MANY_OUTCOMES", 1.0)
    await end(*crowd)


async def test_where_all_is_full_a_crowd_gives_way_to_who_has_less() -> None:
    some = turns(at_once=1, for_one=1, waiting=4, waiting_for_one=4)
    crowd = asks(some, "acme", 5)
    await settled()
    (other,) = asks(some, "globex")
    await settled()
    refused = [one for one in crowd if one.done() and one.exception() is not None]
    assert refused == crowd[-1:]
    for _ in range(2):  # who waited before the other came, then the other
        some.give_back("acme")
        await settled()
    assert other.done()
    await end(*crowd)


async def test_a_turn_is_waited_for_until_the_time_is_over() -> None:
    some = turns(for_one=1)
    await some.take("acme", NORMAL, SOON)
    with pytest.raises(DeadlineExceeded):
        await some.take("acme", NORMAL, 0.0)
    some.give_back("acme")
    await some.take("acme", NORMAL, SOON)


async def test_who_gives_up_or_fails_takes_no_turn_along() -> None:
    some = turns(for_one=1)
    (first,) = asks(some, "acme")
    (second,) = asks(some, "acme")
    await settled()
    some.give_back("acme")
    await end(second)  # as its turn comes
    await first
    with pytest.raises(ValueError, match="inside"):
        async with some.turn("acme", NORMAL, SOON):
            raise ValueError("inside")
    async with some.turn("acme", NORMAL, SOON):
        pass
