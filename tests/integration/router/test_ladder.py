"""Requests on a calibrated ladder, over the wire: what is told, held back, taken up again."""

import asyncio

import grpc
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from tests.integration.router.world import (
    HELLO,
    PATIENCE,
    Caller,
    World,
    asking,
    complete,
    hello,
    tokens,
    until,
)
from tests.integration.scripted_triton import Hold, Refuse, Say, ScriptedTriton

SURE, UNSURE = -0.25, -2.0
BETTER = "Hello from the top!"


class Scene:
    """A world with a replica of each tier."""

    def __init__(self, world: World, caller: Caller) -> None:
        self.world, self.caller = world, caller
        self.small: ScriptedTriton = world.replicas["s"]
        self.top: ScriptedTriton = world.replicas["t"]

    def small_is(self, sure: float) -> None:
        self.small.script = hello(sure=sure)


async def scene_of(world: World) -> Scene:
    await world.add("s", "small", script=hello(sure=SURE))
    await world.add("t", "top", script=[Say(tokens(BETTER), final=True, sure=-0.1)])
    return Scene(world, await world.caller())


@pytest.fixture
async def scene(world: World) -> Scene:
    return await scene_of(world)


@pytest.fixture
async def cached_scene(cached_world: World) -> Scene:
    return await scene_of(cached_world)


@pytest.mark.parametrize("route", ["laddered", "streamed"])
async def test_a_sure_cheap_answer_is_told_with_its_reason(scene: Scene, route: str) -> None:
    told = await scene.caller.ask(asking(route))
    assert told.text == HELLO
    decision = told.decision
    assert (decision.tier, decision.reason) == ("small", pb.REASON_CALIBRATED)
    assert decision.calibration_version.startswith("2026-11-01T00:00:00Z-")
    small, top = decision.candidates
    assert (small.verdict, top.verdict) == (pb.VERDICT_CHOSEN, pb.VERDICT_NOT_REACHED)
    assert (small.certainty, small.accept_at_certainty) == (SURE, -0.5)
    assert "was sure of its answer (certainty -0.25, at least -0.50 is asked)" in (
        decision.explanation
    )
    assert scene.top.received == []
    whole = await scene.caller.whole(complete(asking(route)))
    assert (whole.text, whole.summary.decision.tier) == (HELLO, "small")


@pytest.mark.parametrize("route", ["laddered", "streamed"])
async def test_nothing_of_an_unsure_answer_is_ever_told(scene: Scene, route: str) -> None:
    scene.small_is(UNSURE)
    told = await scene.caller.ask(asking(route))
    assert told.text == BETTER
    assert [one.text for one in told.pieces] == [BETTER]
    assert told.decision.reason == pb.REASON_ESCALATED
    assert told.decision.candidates[0].verdict == pb.VERDICT_UNSURE
    cost = told.summary.cost
    assert cost.micro_usd > cost.baseline_micro_usd > 0
    paid = [one.micro_usd for one in told.summary.decision.candidates]
    assert sum(paid) == cost.micro_usd
    (record,) = await scene.world.ledger(1)
    assert (record["kind"], record["tier"], record["reason"]) == ("request", "top", "escalated")
    made = [(one["tier"], one["verdict"], one["micro_usd"]) for one in record["attempts"]]
    assert made == [("small", "unsure", paid[0]), ("top", "stood", paid[1])]
    escalations = await scene.world.metric("escalations_total", route=route, tier="small")
    assert escalations == 1


async def test_held_tokens_end_an_unsure_run_on_its_replica(scene: Scene) -> None:
    held = Hold()
    start = tokens()
    scene.small.script = [Say(start[:4], sure=UNSURE), held, Say(start[4:], final=True)]
    told = await scene.caller.ask(asking("streamed"))
    assert told.text == BETTER
    await until(lambda: scene.small.received[0].cancelled_at)


async def test_held_tokens_stream_as_soon_as_they_stand(scene: Scene) -> None:
    held = Hold()
    start = tokens()
    scene.small.script = [Say(start[:4], sure=SURE), held, Say(start[4:], final=True, sure=SURE)]
    call = scene.caller.generate(asking("streamed"))
    events = [await asyncio.wait_for(call.read(), PATIENCE) for _ in range(2)]
    assert events[0].started.decision.tier == "small"
    assert HELLO.startswith(events[1].delta.text)
    held.until.set()
    text = events[1].delta.text
    while (event := await call.read()) is not grpc.aio.EOF:
        text += event.delta.text
    assert text == HELLO


async def test_all_zero_log_probs_are_unknown_and_escalate(scene: Scene) -> None:
    scene.small_is(0.0)
    told = await scene.caller.ask(asking("laddered"))
    assert told.text == BETTER
    assert not told.decision.candidates[0].HasField("certainty")


async def test_a_cheap_tier_that_keeps_failing_gives_way(scene: Scene) -> None:
    scene.small.script = [Refuse("Server is stopping, scheduler is shutting down")]
    told = await scene.caller.ask(asking("laddered"))
    assert (told.text, told.decision.reason) == (BETTER, pb.REASON_UNAVAILABLE)


async def test_a_caller_who_leaves_a_held_run_frees_its_replica(scene: Scene) -> None:
    scene.small.script = [Hold()]
    call = scene.caller.generate(asking("laddered"))
    await until(lambda: scene.small.received)
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call.read()
    await until(lambda: scene.small.received[0].cancelled_at)
    (record,) = await scene.world.ledger(1)
    assert (record["status"], record["tier"]) == ("CANCELLED", "small")


async def test_only_answers_that_stood_are_stored_and_their_tier_is_asked_for(
    cached_scene: Scene,
) -> None:
    scene = cached_scene
    scene.small_is(UNSURE)
    first = await scene.caller.ask(asking("laddered"))
    cache = scene.world.cache
    await scene.world.eventually(lambda: cache.count("stores_total", result="stored"), 1)
    again = await scene.caller.ask(asking("laddered"))
    assert (first.text, again.text) == (BETTER, BETTER)
    assert (again.decision.reason, again.decision.tier) == (pb.REASON_CACHED, "top")


async def test_validators_send_a_cheap_answer_without_the_form_up(scene: Scene) -> None:
    request = asking("laddered")
    request.terms.validators.add().one_of.values.append(BETTER)
    told = await scene.caller.ask(request)
    assert told.text == BETTER
    assert told.decision.candidates[0].verdict == pb.VERDICT_INVALID


async def test_explain_says_whose_turn_comes_first_and_runs_nothing(scene: Scene) -> None:
    request = asking("laddered")
    request = pb.ExplainRequest.FromString(request.SerializeToString())
    told = await scene.caller.stub.Explain(
        request, metadata=scene.caller.metadata, timeout=PATIENCE
    )
    assert told.decision.tier == "small"
    assert [one.verdict for one in told.decision.candidates] == [
        pb.VERDICT_CHOSEN,
        pb.VERDICT_NOT_REACHED,
    ]
    assert scene.small.received == []


async def test_a_drawn_request_leaves_a_judged_pair_in_the_ledger(scene: Scene) -> None:
    told = await scene.caller.ask(asking("paired"))
    assert told.text == HELLO
    assert told.decision.evidence_propensity == 1.0
    records = await scene.world.ledger(2)
    (pair,) = [one for one in records if one["kind"] == "pair"]
    (request,) = [one for one in records if one["kind"] == "request"]
    assert pair["request_id"] == request["request_id"]
    assert [one["tier"] for one in pair["tiers"]] == ["small", "top"]
    assert [one["quality"] for one in pair["tiers"]] == [0.0, 1.0]
    assert pair["tiers"][0]["certainty"]["mean"] == SURE
    assert pair["shadow_micro_usd"] > 0
    assert HELLO not in str(pair)
    assert await scene.world.metric("pairs_total", route="paired", what="judged") == 1


async def test_an_uncalibrated_route_answers_from_the_top_and_gathers_evidence(
    scene: Scene,
) -> None:
    told = await scene.caller.ask(asking("fresh"))
    assert (told.text, told.decision.reason) == (BETTER, pb.REASON_UNCALIBRATED)
    records = await scene.world.ledger(2)
    (pair,) = [one for one in records if one["kind"] == "pair"]
    assert [one["tier"] for one in pair["tiers"]] == ["small", "top"]
    assert scene.small.received[0].inputs["return_log_probs"]


async def test_a_shadow_run_that_must_drain_drains_when_the_router_stops(scene: Scene) -> None:
    held = Hold()
    careful = await scene.world.add("c", "careful", script=[held, Say(tokens(), final=True)])
    assert (await scene.caller.ask(asking("shadowed"))).text == BETTER
    await until(lambda: careful.received)
    stopping = asyncio.create_task(scene.world.stop())
    await scene.world.eventually(
        lambda: scene.world.metric("pairs_total", route="shadowed", what="failed"), 1
    )
    held.until.set()
    await stopping
    assert careful.stops == []
    assert careful.received[0].cancelled_at is None


async def test_routes_tell_what_is_certified(scene: Scene) -> None:
    listed = await scene.caller.stub.ListRoutes(
        pb.ListRoutesRequest(), metadata=scene.caller.metadata, timeout=PATIENCE
    )
    routes = {route.name: route for route in listed.routes}
    assert routes["laddered"].quality.certified_bound == 0.015
    assert routes["laddered"].fixed_tier == ""
    assert not routes["fresh"].quality.HasField("certified_bound")
    assert not routes["chat"].HasField("quality")
