"""What the cache is asked on a request's way: who waits there for an answer, and how long."""

from dataclasses import replace

import pytest

from services.router.policy.decision import CacheOutcome
from services.router.policy.routes import CachePolicy
from tests.making.policies import route, tier
from tests.making.walking import Cache, Engine, Run, Way

PATIENT = CachePolicy(use=True, ttl_seconds=60.0, wait_seconds=8.0)


def scene() -> Way:
    """A request with 30 s left, whose route waits for another's answer."""
    told = route("chat", tier("small"), cache=PATIENT)
    return Way(told, Engine({"small": [Run(["hi"])]}), cache=Cache())


@pytest.mark.parametrize(("left", "wait"), [(30.0, 8.0), (10.0, 5.0)])
async def test_another_answer_is_waited_for_as_the_route_says_and_half_the_time_left_at_most(
    left: float, wait: float
) -> None:
    way = scene()
    until = way.clock() + left
    way.state = replace(way.state, context=replace(way.state.context, until=until))
    await way.go()
    assert way.cache.waits == [wait]


@pytest.mark.parametrize(
    ("away", "outcome"), [(False, CacheOutcome.MISS), (True, CacheOutcome.UNAVAILABLE)]
)
async def test_a_cache_that_is_away_is_told_from_one_without_the_answer(
    *, away: bool, outcome: CacheOutcome
) -> None:
    way = scene()
    way.cache.away = away
    await way.go()
    assert way.decision.cache is outcome
    assert len(way.cache.stored) == (0 if away else 1)


async def test_who_only_asks_what_would_be_decided_waits_for_nobody() -> None:
    way = scene()
    await way.path.explain(way.state)
    assert way.cache.waits == [0.0]
