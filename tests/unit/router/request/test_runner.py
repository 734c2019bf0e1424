"""Attempts of one tier: where the next one goes after a failure, and what is kept of each."""

import asyncio
from typing import Any

import pytest

from services.common.buckets import bucket_of
from services.common.errors import Unavailable
from services.router.fleet.replica import Replica, State
from services.router.policy.calibration import Rung
from services.router.policy.line import Priority
from services.router.policy.routes import Cancel, Route
from services.router.ports import EngineFigures, Piece, ReplicaFailed
from services.router.request.attempt import Ending
from services.router.request.plan import Cause
from services.router.request.runner import (
    BEYOND_DEADLINE_SECONDS,
    LAST_WORDS_SECONDS,
    MAX_TRIES,
    RETRY,
)
from tests.making.policies import ladder, quality, route
from tests.making.walking import Cache, Engine, Listener, Run, Way

SURE = -0.125
LEFT = 30.0
"""Seconds that `Way` gives a request."""


def small(**changes: Any) -> Route:
    return route("chat", *ladder("small", **changes))


def failing(*, lost: bool = True) -> Run:
    return Run([ReplicaFailed("no", lost=lost)], SURE)


def second_replica(way: Way) -> Replica:
    first = way.replicas[0]
    return Replica("small-2", "small", first.model, first.precision, "b:1", State.READY, 8)


@pytest.mark.parametrize("lost", [True, False])
async def test_only_a_lost_replica_is_avoided_by_other_requests(*, lost: bool) -> None:
    way = Way(small(), Engine({"small": [failing(lost=lost) for _ in range(MAX_TRIES)]}))
    with pytest.raises(Unavailable):
        await way.go()
    assert way.replicas[0].breaker.closed is not lost
    assert {attempt.estimated for attempt in way.state.attempts} == {lost}  # it said no word more


async def test_a_replica_that_answers_again_is_avoided_no_more() -> None:
    way = Way(small(), Engine({"small": [failing(), Run(["hi"])]}))
    await way.go()
    assert [attempt.cause for attempt in way.state.attempts] == [Cause.FIRST, Cause.RETRY]
    assert way.replicas[0].breaker.closed
    assert way.metrics.retries.labels("small")._value.get() == 1


async def test_the_next_try_goes_to_another_replica_though_the_first_only_refused() -> None:
    way = Way(small(), Engine({"small": [failing(lost=False), Run(["hi"])]}))
    way.fleet.update([second_replica(way)])
    await way.go()
    assert [attempt.replica for attempt in way.state.attempts] == ["small", "small-2"]


async def test_what_each_replica_would_say_again_is_asked_of_each_once() -> None:
    def useless() -> Run:
        return Run([ReplicaFailed("no", lost=False, lasting=True)], SURE)

    way = Way(small(), Engine({"small": [useless(), useless(), Run(["hi"])]}))
    way.fleet.update([second_replica(way)])
    with pytest.raises(Unavailable, match="takes this request now"):
        await way.go()
    assert [attempt.replica for attempt in way.state.attempts] == ["small", "small-2"]


async def test_tries_pause_longer_each_time() -> None:
    way = Way(small(), Engine({"small": [failing(), failing(), failing(), Run(["hi"])]}))
    await way.go()
    assert way.pauses == [RETRY.seconds(number, 1.0) for number in (1, 2, 3)]
    assert way.pauses == sorted(set(way.pauses))


async def test_evidence_that_is_tried_again_is_evidence_still() -> None:
    laddered = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))
    engine = Engine({"small": [Run(["s"], SURE)], "large": [failing(), Run(["l"], SURE)]})
    way = Way(laddered, engine, chance=lambda: 0.0)
    await way.go()
    assert [attempt.cause for attempt in way.state.attempts] == [
        Cause.FIRST,
        Cause.EVIDENCE,
        Cause.EVIDENCE,
    ]


async def test_time_in_the_line_is_the_requests() -> None:
    way = Way(small(), Engine({"small": [Run(["hi"])]}))
    tier, until = way.state.context.route.top_tier, way.clock() + LEFT
    held = [
        await way.fleet.place(tier, Priority.INTERACTIVE, avoid=(), until=until) for _ in range(8)
    ]
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.fleet.snapshot()[0].waiting:
        await asyncio.sleep(0)
    way.now += 3.0
    held[0].give_back()
    await answering
    assert way.state.queued_seconds == 3.0


@pytest.mark.parametrize(
    ("lease", "cancel", "longer"),
    [
        ("", Cancel.ABORT, LAST_WORDS_SECONDS),
        ("lease", Cancel.ABORT, BEYOND_DEADLINE_SECONDS),
        ("", Cancel.DRAIN, BEYOND_DEADLINE_SECONDS),
    ],
)
async def test_a_run_outlives_the_deadline_where_it_must_drain_or_others_wait(
    lease: str, cancel: Cancel, longer: float
) -> None:
    way = Way(small(cancel=cancel), Engine({"small": [Run(["hi"])]}), cache=Cache(lease=lease))
    await way.go()
    (request,) = way.engine.asked
    assert request.deadline_seconds == LEFT + longer


async def test_who_leaves_before_the_first_text_leaves_the_decision_made_so_far() -> None:
    run = Run(["hi"])

    async def silent(timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    run.read = silent  # type: ignore[method-assign]
    way = Way(small(), Engine({"small": [run]}), cache=Cache(lease=""))
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.engine.started:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    answering.cancel()
    await asyncio.wait((answering,))
    await way.rest()
    assert (way.decision.tier, way.decision.replica) == ("small", "small")
    assert not way.state.committed


async def test_what_came_before_a_replica_was_lost_is_the_answer_and_its_baseline() -> None:
    way = Way(small(), Engine({"small": [Run(["one ", "two ", ReplicaFailed("no", lost=True)])]}))
    with pytest.raises(Unavailable) as raised:
        await way.go()
    assert raised.value.reason == "REPLICA_LOST"
    assert raised.value.retry_after_seconds == 1.0
    assert way.state.answer.text == "one two "
    assert way.state.baseline_micro_usd == way.state.context.route.top_tier.price.of(2, 8)


async def test_each_turn_and_its_prompt_is_load_of_its_tier() -> None:
    laddered = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, -0.5)))
    way = Way(
        laddered, Engine({"small": [Run(["s"], -2.0)], "large": [failing(), Run(["l"], SURE)]})
    )
    await way.go()
    for name in ("small", "large"):
        totals = way.load.totals(name)
        assert (totals.arrivals, totals.prompt_tokens) == (1, 2)
    assert way.metrics.escalations.labels("chat", "small")._value.get() == 1


class Slow(Run):
    """Takes ten seconds for each chunk."""

    way: Way

    async def read(self, timeout_seconds: float) -> Piece:
        self.way.now += 10.0
        return await super().read(timeout_seconds)


async def test_the_pace_of_a_tier_is_that_of_its_answers() -> None:
    run = Slow(["12345"])
    way = run.way = Way(small(), Engine({"small": [run]}))
    await way.go()
    assert way.runner.paces.tokens("small", 4.0, 100) == 2  # two seconds a token


@pytest.mark.parametrize(("seconds", "tokens"), [(6.0, 3), (None, 4)])
async def test_what_was_made_is_guessed_by_the_replicas_time_or_else_by_ours(
    seconds: float | None, tokens: int
) -> None:
    run = Run(["hi"])
    run.figures = EngineFigures(engine_seconds=seconds)

    async def silent(timeout_seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    run.read = silent  # type: ignore[method-assign]
    way = Way(small(), Engine({"small": [run]}), cache=Cache(lease=""), streaming=False)
    way.runner.paces.note("small", 40.0, 20)  # two seconds a token
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.engine.started:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    way.now += 8.0
    answering.cancel()
    await asyncio.wait((answering,))
    await way.rest()
    (attempt,) = way.state.attempts
    assert (attempt.output_tokens, attempt.estimated) == (tokens, True)
    assert attempt.ending is Ending.LEFT


class Paced(Run):
    """Each chunk comes half a second after the one before, whoever reads."""

    way: Way

    async def read(self, timeout_seconds: float) -> Piece:
        piece = await super().read(timeout_seconds)
        self.heard_at = 0.5 + (
            self.way.state.context.arrived if self.heard_at is None else self.heard_at
        )
        self.way.now = max(self.way.now, self.heard_at)
        return piece


class SlowReader(Listener):
    """Takes nine seconds to read whatever is written to it."""

    way: Way

    async def _write(self, event: str) -> None:
        await super()._write(event)
        self.way.now += 9.0


async def test_the_time_a_caller_takes_to_read_is_not_the_tiers() -> None:
    run, listener = Paced(["one ", "two ", "three"]), SlowReader()
    way = run.way = listener.way = Way(small(), Engine({"small": [run]}))
    assert "".join(await way.go(listener)) == "startedone two three"
    way.now += 2.0
    assert way.load.slow_run_seconds("small", way.now) == 1.5
    between = way.load.totals("small").between_tokens
    assert between.index(1) == bucket_of(1.0 / 12)
    assert way.runner.paces.tokens("small", 1.5, 64) == 13


async def test_evidence_takes_no_place_of_its_tenants_share() -> None:
    class Busy(Run):
        async def read(self, timeout_seconds: float) -> Piece:
            await asyncio.Event().wait()
            raise AssertionError

    tiers = ladder("small", "large", tenant_share=0.125)  # one of eight
    laddered = route("chat", *tiers, quality=quality(Rung(1.0, -0.5)))
    engine = Engine(
        {"small": [Run(["s"], SURE), Run(["s"], -2.0)], "large": [Busy([]), Run(["l"], SURE)]}
    )
    draws = iter([0.0, 1.0])
    way = Way(laddered, engine, chance=lambda: next(draws, 1.0))
    await way.answer(Listener())
    while engine.order != ["small", "large"]:
        await asyncio.sleep(0)
    listener = Listener()
    await asyncio.wait_for(way.answer(listener, way.begin()), 1.0)  # far less than it may wait
    assert listener.events == ["started", "l"]
    for task in way.spawned:
        task.cancel()
    await way.rest()
