"""Requests on a ladder when tiers fail, are slow, full or drained: what it costs, who answers."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import DeadlineExceeded, InternalError, Overloaded, Unavailable
from services.router.fleet.replica import WHOLE
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from services.router.policy.decision import Reason, Verdict
from services.router.policy.line import Priority
from services.router.policy.routes import Cancel, Hold, Limits, Route, Tier
from services.router.ports import Piece, ReplicaFailed
from services.router.request.plan import Cause
from services.router.request.runner import MAX_TRIES, MAX_TRIES_BELOW
from tests.making.policies import calibrated, ladder, quality, route
from tests.making.walking import Board, Engine, Listener, Run, Way

SURE, UNSURE = -0.125, -2.0
CHECKED = Rung(1.0, -0.5)
ALWAYS = lambda: 0.0  # noqa: E731 -- reads well where it is used


def chat(*rungs: Rung, names: tuple[str, ...] = ("small", "large"), **changes: Any) -> Route:
    return route("chat", *ladder(*names), quality=quality(*rungs, **changes))


def runs(**scripts: list[Run]) -> Engine:
    return Engine(dict(scripts))


def refuse(way: Way, tier_name: str, error: Exception) -> list[float]:
    """Has the fleet refuse places of a tier; returns until when each was waited for."""
    waited: list[float] = []

    async def refusing(tier: Tier, priority: Priority, until: float) -> None:
        if tier.name == tier_name:
            waited.append(until)
            raise error

    way.fleet.on_place = refusing
    return waited


async def test_what_a_refused_answer_cost_is_told_though_the_next_tier_fails() -> None:
    chat_route = chat(CHECKED)
    way = Way(chat_route, runs(small=[Run(["small says"], UNSURE)], large=[]))
    refuse(way, "large", Overloaded("full"))
    with pytest.raises(Overloaded):
        await way.go()
    assert way.state.micro_usd == chat_route.ladder[0].price.of(2, 10) > 0
    assert way.state.baseline_micro_usd == 0  # nobody was answered


async def test_a_retried_answer_that_nobody_was_told_is_no_baseline() -> None:
    small = [Run(["abc", ReplicaFailed("gone", lost=True)], SURE) for _ in range(MAX_TRIES_BELOW)]
    way = Way(chat(CHECKED), runs(small=small, large=[]))
    refuse(way, "large", Overloaded("full"))
    with pytest.raises(Overloaded):
        await way.go()
    assert len(way.state.attempts) == MAX_TRIES_BELOW
    assert way.state.baseline_micro_usd == 0


async def test_who_found_no_replica_that_answers_is_to_come_back_when_one_is_tried_again() -> None:
    lost = [Run([ReplicaFailed("gone", lost=True)], SURE) for _ in range(MAX_TRIES)]
    way = Way(route("chat", *ladder("small")), runs(small=lost))
    with pytest.raises(Unavailable) as raised:
        await way.go()
    assert len(way.engine.started) == MAX_TRIES
    assert raised.value.reason == "NO_REPLICA"
    rest = WHOLE.rest.cap_seconds
    assert 1.0 < (raised.value.retry_after_seconds or 0.0) <= rest


async def test_a_lower_tier_without_room_leaves_time_for_the_next_one() -> None:
    way = Way(chat(CHECKED), runs(small=[], large=[Run(["large"], SURE)]))
    waited = refuse(way, "small", DeadlineExceeded("the deadline passed in the line"))
    assert await way.go() == ["started", "large"]
    assert way.decision.reason is Reason.UNAVAILABLE
    context = way.state.context
    assert waited == [(context.arrived + context.until) / 2]


async def test_the_last_tier_is_waited_for_until_the_deadline() -> None:
    way = Way(route("chat", *ladder("small")), runs(small=[]))
    waited = refuse(way, "small", DeadlineExceeded("the deadline passed in the line"))
    with pytest.raises(DeadlineExceeded):
        await way.go()
    assert waited == [way.state.context.until]


@pytest.mark.parametrize("hold", list(Hold))
async def test_a_lower_tier_whose_engine_fails_gives_way(hold: Hold) -> None:
    calibration = calibrated(CHECKED, measure=Measure.FIRST_K)
    chat_route = route(
        "chat", *ladder("small", "large"), quality=quality(calibration=calibration, hold=hold)
    )
    broken = Run(["sm", InternalError("the engine failed")], SURE)
    way = Way(chat_route, runs(small=[broken], large=[Run(["large"], SURE)]))
    assert await way.go() == ["started", "large"]
    small, large = way.decision.candidates
    assert (small.verdict, large.verdict) == (Verdict.UNAVAILABLE, Verdict.CHOSEN)
    assert (way.state.answer.text, way.state.answer.output_tokens) == ("large", 5)
    assert way.cache.stored[0].output_tokens == 5
    assert way.in_flight() == 0


async def test_a_full_line_is_no_reason_for_a_dearer_tier() -> None:
    way = Way(chat(CHECKED), runs(small=[], large=[Run(["large"], SURE)]))
    refuse(way, "small", Overloaded("full"))
    with pytest.raises(Overloaded):
        await way.go()
    assert way.engine.order == []


async def test_a_shadow_run_that_was_paid_is_counted_though_its_pair_fails() -> None:
    chat_route = chat(CHECKED, CHECKED, names=("tiny", "small", "large"))
    engine = runs(tiny=[Run(["t"], SURE)], small=[Run(["small"], SURE)], large=[])
    way = Way(chat_route, engine, chance=ALWAYS)
    refuse(way, "large", Unavailable("no room"))
    assert await way.go() == ["started", "t"]
    assert way.shelf.records == []
    paid = [attempt.micro_usd for attempt in way.ended if attempt.cause is Cause.EVIDENCE]
    assert paid == [chat_route.ladder[1].price.of(2, 5)]
    assert way.state.micro_usd == chat_route.ladder[0].price.of(2, 1) + paid[0]


async def test_shadow_runs_say_nothing_about_how_long_callers_wait() -> None:
    way = Way(
        chat(CHECKED), runs(small=[Run(["s"], SURE)], large=[Run(["l"], SURE)]), chance=ALWAYS
    )
    await way.go()
    assert way.engine.order == ["small", "large"]
    now = way.clock() + 2.0
    assert way.load.slow_run_seconds("small", now) is not None
    assert way.load.slow_run_seconds("large", now) is None


async def test_each_tiers_time_is_its_own() -> None:
    small = Run(["small"], UNSURE)

    async def read(timeout_seconds: float) -> Piece:
        way.now += 20.0  # as if this run took so long
        return await Run.read(small, timeout_seconds)

    small.read = read  # type: ignore[method-assign]
    way = Way(chat(CHECKED), runs(small=[small], large=[Run(["large"], SURE)]))
    await way.go()
    now = way.clock() + 2.0
    assert way.load.totals("small").finished == 1  # it ran, though nothing of it was sent
    slow = way.load.slow_run_seconds("large", now)
    assert slow is not None
    assert slow < 10.0


async def test_a_refused_run_that_must_drain_keeps_its_place_until_it_has() -> None:
    gate = asyncio.Event()
    small = Run(["on", "e ", "two"], UNSURE)

    async def read(timeout_seconds: float) -> Piece:
        if small.output_tokens >= 4:
            await gate.wait()
        return await Run.read(small, timeout_seconds)

    small.read = read  # type: ignore[method-assign]
    calibration = calibrated(CHECKED, measure=Measure.FIRST_K)
    tiers = ladder("small", "large", cancel=Cancel.DRAIN)
    chat_route = route("chat", *tiers, quality=quality(calibration=calibration, hold=Hold.TOKENS))
    way = Way(chat_route, runs(small=[small], large=[Run(["large"], SURE)]))
    listener = Listener()
    await way.answer(listener)
    assert listener.events == ["started", "large"]
    assert [one.in_flight for one in way.replicas] == [1, 0]
    assert way.replicas[0].calls == {small}
    gate.set()
    await asyncio.gather(*way.spawned)
    assert small.finished
    assert way.in_flight() == 0


async def test_log_probs_of_some_tokens_alone_are_no_certainty() -> None:
    small = Run(["small"], SURE)
    small.log_probs = lambda most: None  # type: ignore[method-assign] # fewer than were asked for
    way = Way(chat(CHECKED), runs(small=[small], large=[Run(["large"], SURE)]))
    assert await way.go() == ["started", "large"]


async def test_a_replica_lost_after_the_held_tokens_were_told_ends_the_answer() -> None:
    lost = Run(["one ", "two ", ReplicaFailed("gone", lost=True)], SURE)
    calibration = calibrated(CHECKED, measure=Measure.FIRST_K)
    chat_route = route(
        "chat",
        *ladder("small", "large"),
        quality=quality(calibration=calibration, hold=Hold.TOKENS),
    )
    way, listener = Way(chat_route, runs(small=[lost], large=[Run(["large"], SURE)])), Listener()
    with pytest.raises(Unavailable) as raised:
        await way.go(listener)
    assert raised.value.reason == "REPLICA_LOST"
    assert listener.events == ["started", "one ", "two "]
    assert way.cache.abandoned == ["lease"]


async def test_past_the_deadline_no_other_tier_is_tried() -> None:
    way = Way(chat(CHECKED), runs(small=[], large=[Run(["large"], SURE)]))
    refuse(way, "small", DeadlineExceeded("the deadline passed in the line"))
    way.state = replace(way.state, context=replace(way.state.context, until=way.clock()))
    way.planner._allowed = lambda *_: True  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded):
        await way.go()
    assert way.engine.order == []


async def test_what_refused_answers_cost_is_taken_from_the_money() -> None:
    tiers = ladder("tiny", "small", "large")
    most = sum(one.price.of(2, 64) for one in tiers[1:])  # for small and large, not tiny as well
    chat_route = chat(CHECKED, CHECKED, names=("tiny", "small", "large"))
    engine = runs(
        tiny=[Run(["t" * 64], UNSURE)], small=[Run(["s"], SURE)], large=[Run(["l"], SURE)]
    )
    way = Way(replace(chat_route, limits=Limits(micro_usd=most)), engine)
    await way.go()
    assert engine.order == ["tiny", "large"]
    assert [one.verdict for one in way.decision.candidates] == [
        Verdict.UNSURE,
        Verdict.LIMITED,
        Verdict.CHOSEN,
    ]


async def test_a_fresh_answer_is_not_stored_while_the_cache_is_halted() -> None:
    request = pb.GenerateRequest(terms=pb.Terms(cache_use=pb.CACHE_USE_REFRESH))
    request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
    for off, stored in (((), 1), (("cache",), 0)):
        engine = runs(small=[Run(["s"], SURE)])
        way = Way(chat(CHECKED), engine, request=request, board=Board(off))
        await way.go()
        assert len(way.cache.stored) == stored
