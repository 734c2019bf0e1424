"""Why an answer came as it did, what became of it, and levers, over real gRPC."""

import asyncio
import datetime as dt

import pytest
from google.protobuf.duration_pb2 import Duration

import pennyweight as pw
from pennyweight import Client
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import AlreadyExists, Unavailable
from tests.integration.client.scripted_router import DECISION, ESCALATED, Stage, events, lever

NOVEMBER = dt.datetime(2026, 11, 2, 10, tzinfo=dt.UTC)


async def test_signals_passages_and_validators_reach_the_request(stage: Stage) -> None:
    async with Client(stage.address) as client:
        async for _ in client.generate(
            "support-chat",
            "What does a transfer abroad cost?",
            context=["Transfers inside the country are free.", pw.Passage("Abroad: 3 EUR.", 0.75)],
            task_type="fees",
            retrieval_confidence=0.5,
            validators=[
                pw.JsonSchema({"type": "object"}),
                pw.JsonSchema('{"type": "string"}'),
                pw.Regex("[0-9]+ EUR"),
                pw.OneOf(["yes", "no"]),
            ],
        ):
            pass
    (request,) = stage.router.requests
    assert list(request.prompt.context) == [
        pb.Passage(text="Transfers inside the country are free."),
        pb.Passage(text="Abroad: 3 EUR.", relevance=0.75),
    ]
    assert request.terms.signals == pb.Signals(task_type="fees", retrieval_confidence=0.5)
    assert list(request.terms.validators) == [
        pb.Validator(json_schema='{"type": "object"}'),
        pb.Validator(json_schema='{"type": "string"}'),
        pb.Validator(regex="[0-9]+ EUR"),
        pb.Validator(one_of=pb.Choices(values=["yes", "no"])),
    ]


async def test_a_decision_says_how_every_tier_was_weighed(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.ExplainResponse(decision=ESCALATED)]
    async with Client(stage.address) as client:
        decision = (await client.explain("support-chat", "Hello")).decision
    assert decision.candidates == (
        pw.Candidate("small", "unsure", 0.031, 0.08, -0.71, -0.45, 3),
        pw.Candidate("large", "chosen"),
    )
    assert decision.calibration_version == "2026-11-02-1a2b"
    assert decision.evidence_propensity == 0.05
    assert decision.halted_levers == ("cache",)


async def test_a_decision_without_candidates_has_none(stage: Stage) -> None:
    stage.router.script = lambda _: events("Hello")
    async with Client(stage.address) as client:
        got = [event async for event in client.generate("support-chat", "Hello")]
    assert isinstance(got[0], pw.Started)
    assert got[0].decision.candidates == ()
    assert got[0].decision.calibration_version == DECISION.calibration_version == ""


async def test_a_route_says_what_is_certified(stage: Stage) -> None:
    certified = pb.RouteQuality(
        tolerance=0.02,
        calibration_version="v",
        certified_bound=0.018,
        expected_escalation_rate=0.0,
        expected_saving=0.41,
    )
    routes = [
        pb.Route(name="a", quality=certified),
        pb.Route(name="b", quality=pb.RouteQuality(tolerance=0.01)),
        pb.Route(name="c", fixed_tier="small"),
    ]
    stage.router.script = lambda _: [pb.ListRoutesResponse(routes=routes)]
    async with Client(stage.address) as client:
        listed = await client.list_routes()
    assert [route.quality for route in listed.routes] == [
        pw.RouteQuality(0.02, "v", 0.018, 0.0, 0.41),
        pw.RouteQuality(0.01),
        None,
    ]


async def test_an_outcome_is_told_as_it_is(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.RecordOutcomeResponse(request_id="r-1")]
    async with Client(stage.address) as client:
        assert await client.record_outcome("support-chat", "h-1", resolved=False) == "r-1"
        await client.record_outcome("support-chat", "h-1", rating=0.0, corrected_answer="Soon.")
    assert stage.router.requests == [
        pb.RecordOutcomeRequest(route="support-chat", handle="h-1", resolved=False),
        pb.RecordOutcomeRequest(
            route="support-chat", handle="h-1", rating=0.0, corrected_answer="Soon."
        ),
    ]
    assert not stage.router.requests[0].HasField("rating")


async def test_another_outcome_is_an_error_of_its_own(stage: Stage) -> None:
    stage.router.script = lambda _: [AlreadyExists("told before", reason="OUTCOME_TOLD")]
    async with Client(stage.address) as client:
        with pytest.raises(pw.AlreadyExists, match="told before"):
            await client.record_outcome("support-chat", "h-1", resolved=True)
    assert len(stage.router.requests) == 1


async def test_levers_are_listed_with_their_watch(stage: Stage) -> None:
    bare = pb.Lever(route="support-chat", name="cache", state=pb.LEVER_STATE_UNKNOWN)
    answer = pb.ListLeversResponse(levers=[lever(), bare], policy_version="v2")
    stage.router.script = lambda _: [answer]
    async with Client(stage.address) as client:
        listed = await client.levers("support-chat")
    assert listed.policy_version == "v2"
    assert listed.levers == (
        pw.Lever(
            route="support-chat",
            name="tier:small",
            state="halted",
            author="ada",
            reason="wrong answers about fees",
            since=NOVEMBER,
            expires=NOVEMBER + dt.timedelta(hours=2),
            watch=pw.LeverWatch(1204, 0.004, 0.02, 0.31, 100_000),
        ),
        pw.Lever("support-chat", "cache", "unknown"),
    )
    assert stage.router.requests == [pb.ListLeversRequest(route="support-chat")]


async def test_a_lever_is_halted_for_a_while_and_released(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.SetLeverResponse(lever=lever())]
    who = {"author": "ada", "reason": "fees"}
    async with Client(stage.address) as client:
        halted = await client.set_lever(
            "support-chat", "tier:small", "halted", **who, expires_after_seconds=90.5
        )
        await client.set_lever("support-chat", "tier:small", "on", **who)
        with pytest.raises(ValueError, match="'off' is no lever state"):
            await client.set_lever("support-chat", "cache", "off", **who)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="number of seconds"):
            await client.set_lever(
                "support-chat", "cache", "halted", **who, expires_after_seconds=float("inf")
            )
    assert halted.state == "halted"
    asked = {"route": "support-chat", "lever": "tier:small", **who}
    assert stage.router.requests == [
        pb.SetLeverRequest(
            **asked,
            state=pb.LEVER_STATE_HALTED,
            expires_after=Duration(seconds=90, nanos=500_000_000),
        ),
        pb.SetLeverRequest(**asked, state=pb.LEVER_STATE_ON),
    ]


async def test_levers_are_asked_for_again_while_the_router_starts(stage: Stage) -> None:
    stage.router.script = lambda _: (
        [Unavailable("starting")]
        if len(stage.router.requests) == 1
        else [pb.ListLeversResponse(levers=[lever()])]
    )
    async with Client(stage.address) as client:
        assert len((await client.levers()).levers) == 1


async def test_outcomes_and_levers_have_deadlines(stage: Stage) -> None:
    stage.router.script = lambda _: [asyncio.Event()]
    async with Client(stage.address, timeout_seconds=0.2) as client:
        calls = [
            client.levers(),
            client.record_outcome("r", "h", resolved=True),
            client.set_lever("r", "cache", "on", author="ada", reason="fees"),
        ]
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in ended] == [pw.DeadlineExceeded] * 3
