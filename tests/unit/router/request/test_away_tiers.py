"""Tiers of which no replica can answer: passed over where another may answer, else waited for."""

import asyncio
from dataclasses import replace

import pytest

from services.common.errors import Unavailable
from services.router.fleet.replica import Replica, State
from services.router.policy.calibration import Rung
from services.router.policy.decision import Reason, Verdict
from services.router.policy.line import Priority
from services.router.policy.routes import Route, Tier
from tests.making.policies import ladder, quality, route
from tests.making.walking import Engine, Listener, Run, Way

SURE, UNSURE = -0.125, -2.0
CHECKED = Rung(1.0, -0.5)


def chat(*names: str, tenant_share: float = 1.0) -> Route:
    rungs = (CHECKED,) * (len(names) - 1)
    return route("chat", *ladder(*names, tenant_share=tenant_share), quality=quality(*rungs))


def runs(**scripts: list[Run]) -> Engine:
    return Engine(dict(scripts))


def change(way: Way, name: str, state: State) -> None:
    """The scaler tells another state of a tier's only replica."""
    way.fleet.update([told(way, name, state)])


def told(way: Way, name: str, state: State) -> Replica:
    (known,) = [one for one in way.replicas if one.id == name]
    return replace(known, state=state, calls=set())


def watch(way: Way) -> list[str]:
    """Notes of which tiers places are asked; who asks gets none."""
    asked: list[str] = []

    async def asking(tier: Tier, priority: Priority, until: float) -> None:
        asked.append(tier.name)

    way.fleet.on_place = asking
    return asked


AWAY = (State.STARTING, State.DRAINING, State.GONE)


@pytest.mark.parametrize("state", AWAY)
async def test_a_lower_tier_without_a_ready_replica_is_passed_over_at_once(state: State) -> None:
    way = Way(chat("small", "large"), runs(large=[Run(["large"], SURE)]))
    change(way, "small", state)
    asked = watch(way)
    assert await way.go() == ["started", "large"]
    assert asked == ["large"]
    assert way.decision.reason is Reason.UNAVAILABLE
    assert [one.verdict for one in way.decision.candidates] == [
        Verdict.UNAVAILABLE,
        Verdict.CHOSEN,
    ]
    assert "no replica of small could answer" in way.decision.explanation
    assert way.load.totals("small").arrivals == 1  # what would have run there counts for its size


async def test_a_lower_tier_whose_replicas_all_fail_is_passed_over_until_one_may_be_tried() -> None:
    way = Way(chat("small", "large"), runs(small=[Run(["s"], SURE)], large=[Run(["l"], SURE)]))
    way.fleet.failed(way.replicas[0])
    await way.go()
    assert way.engine.order == ["large"]
    way.now += 1.0
    way.state = way.begin()
    await way.go()
    assert way.engine.order == ["large", "small"]


async def test_what_is_explained_is_what_would_happen_and_no_load() -> None:
    way = Way(chat("small", "large"), runs())
    change(way, "small", State.DRAINING)
    await way.path.explain(way.state)
    assert (way.decision.tier, way.decision.reason) == ("large", Reason.UNAVAILABLE)
    assert way.load.totals("small").arrivals == 0


async def test_it_is_explained_that_no_replica_serves_the_tier() -> None:
    way = Way(chat("small", "large"), runs())
    way.fleet.set_stale(stale=False)
    await way.path.explain(way.state)
    assert "Tier small:" not in way.decision.explanation
    for name in ("small", "large"):
        change(way, name, State.GONE)
    await way.path.explain(way.state)
    assert way.decision.explanation.endswith(f" Tier {way.decision.tier}: no replica serves it.")


@pytest.mark.parametrize("state", AWAY)
async def test_where_no_tier_can_answer_the_lowest_is_waited_for(state: State) -> None:
    way = Way(chat("small", "large"), runs(small=[Run(["small"], SURE)]))
    for name in ("small", "large"):
        change(way, name, state)
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.fleet.snapshot()[0].waiting:
        await asyncio.sleep(0)
    assert not answering.done()
    way.fleet.update([told(way, "small", State.READY)])  # as at a wake
    await answering
    assert way.engine.order == ["small"]


@pytest.mark.parametrize("share", [1.0, 0.5])
async def test_who_waits_for_a_lower_tier_goes_on_when_another_wakes_first(share: float) -> None:
    told = chat("small", "large", tenant_share=share)
    way = Way(told, runs(large=[Run(["large"], SURE)]))
    for name in ("small", "large"):
        change(way, name, State.STARTING)
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.fleet.snapshot()[0].waiting:
        await asyncio.sleep(0)
    change(way, "large", State.READY)
    await asyncio.wait_for(answering, 1.0)  # far less than `queue_seconds`
    assert way.engine.order == ["large"]
    assert way.decision.reason is Reason.UNAVAILABLE


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("state", [State.DRAINING, State.GONE])
async def test_who_stands_in_line_goes_on_when_the_last_replica_goes(
    state: State, share: float
) -> None:
    told = chat("small", "large", tenant_share=share)
    way = Way(told, runs(large=[Run(["large"], SURE)]))
    small, until = way.state.context.route.ladder[0], way.clock() + 30.0
    held = [
        await way.fleet.place(small, Priority.INTERACTIVE, avoid=(), until=until, tenant=tenant)
        for tenant in "abcdefgh"
    ]
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.fleet.snapshot()[0].waiting:
        await asyncio.sleep(0)
    change(way, "small", state)
    await asyncio.wait_for(answering, 1.0)
    assert way.engine.order == ["large"]
    for place in held:
        place.give_back()


async def test_a_tier_in_the_middle_is_passed_over_on_the_way_up() -> None:
    way = Way(
        chat("tiny", "small", "large"), runs(tiny=[Run(["t"], UNSURE)], large=[Run(["l"], SURE)])
    )
    change(way, "small", State.GONE)
    await way.go()
    assert way.engine.order == ["tiny", "large"]
    assert [one.verdict for one in way.decision.candidates] == [
        Verdict.UNSURE,
        Verdict.UNAVAILABLE,
        Verdict.CHOSEN,
    ]


async def test_the_top_tier_is_never_passed_over_for_an_answer_that_was_not_sure() -> None:
    tiers = ladder("small", "large", queue_seconds=0.01)
    told = route("chat", *tiers, quality=quality(CHECKED))
    way = Way(told, runs(small=[Run(["small"], UNSURE)]))
    change(way, "large", State.GONE)
    listener = Listener()
    with pytest.raises(Unavailable) as raised:
        await way.go(listener)
    assert raised.value.reason == "NO_REPLICA"
    assert listener.events == []


async def test_a_fixed_tier_is_waited_for_as_no_other_may_answer() -> None:
    tiers = ladder("small", "large", queue_seconds=0.01)
    way = Way(route("chat", *tiers, fixed_tier=tiers[0]), runs(large=[Run(["l"], SURE)]))
    change(way, "small", State.GONE)
    with pytest.raises(Unavailable):
        await way.go()
    assert way.engine.order == []


async def test_who_waits_goes_on_when_a_replica_of_another_tier_is_well_again() -> None:
    way = Way(chat("small", "large"), runs(large=[Run(["large"], SURE)]))
    change(way, "small", State.STARTING)
    way.fleet.failed(way.replicas[1])
    answering = asyncio.create_task(way.answer(Listener()))
    while not way.fleet.snapshot()[0].waiting:
        await asyncio.sleep(0)
    way.fleet.succeeded(way.replicas[1])
    await asyncio.wait_for(answering, 1.0)
    assert way.engine.order == ["large"]
