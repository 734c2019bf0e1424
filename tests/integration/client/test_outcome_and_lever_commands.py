"""``pennyweight outcome`` and ``pennyweight lever``, against a scripted router."""

import getpass
import json
from pathlib import Path

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import Forbidden, NotFound
from tests.integration.client.running import pennyweight, rows_of
from tests.integration.client.scripted_router import Stage, lever

FEES = ("support-chat", "tier:small", "--reason", "fees")


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (("--resolved",), {"resolved": True}),
        (("--unresolved", "--rating", "-0.5"), {"resolved": False, "rating": -0.5}),
        (("--rating", "0"), {"rating": 0.0}),
        (("--corrected-answer", "Soon."), {"corrected_answer": "Soon."}),
    ],
)
async def test_an_outcome_is_told(
    said: tuple[str, ...], asked: dict[str, object], stage: Stage
) -> None:
    stage.router.script = lambda _: [pb.RecordOutcomeResponse(request_id="r-1")]
    ended = await pennyweight("outcome", "chat", "h-1", *said, "--address", stage.address)
    assert (ended.code, ended.out, ended.err) == (0, "Recorded for request r-1.\n", "")
    ended = await pennyweight("outcome", "chat", "h-1", *said, "--json", "--address", stage.address)
    assert json.loads(ended.out) == {"kind": "outcome", "request_id": "r-1"}
    assert stage.router.requests.pop() == stage.router.requests[0]
    assert stage.router.requests == [
        pb.RecordOutcomeRequest(route="chat", handle="h-1", **asked)  # type: ignore[arg-type]
    ]


async def test_a_corrected_answer_comes_from_a_file_too(stage: Stage, tmp_path: Path) -> None:
    stage.router.script = lambda _: [pb.RecordOutcomeResponse(request_id="r-1")]
    (tmp_path / "a.txt").write_text("Zwei\nTage", encoding="utf-8")
    told = ("outcome", "chat", "h-1", "--corrected-answer-file", str(tmp_path / "a.txt"))
    ended = await pennyweight(*told, "--address", stage.address)
    assert ended.code == 0
    assert stage.router.requests[0].corrected_answer == "Zwei\nTage"

    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    ended = await pennyweight(*told, "--address", stage.address)
    assert ended.code == 2
    assert "is not UTF-8 text" in ended.err

    ended = await pennyweight(*told, "--corrected-answer", "x", "--address", stage.address)
    assert ended.code == 2
    assert ended.err.endswith("not both.\n")
    assert len(stage.router.requests) == 1


@pytest.mark.parametrize("said", [(), ("--rating", "2"), ("--corrected-answer-file", "nowhere")])
async def test_an_outcome_that_says_nothing_or_too_much_is_wrong_usage(
    said: tuple[str, ...],
) -> None:
    ended = await pennyweight("outcome", "chat", "h-1", *said, "--address", "127.0.0.1:1")
    assert ended.code == 2


async def test_an_unknown_handle_is_said(stage: Stage) -> None:
    stage.router.script = lambda _: [NotFound("no such handle", reason="HANDLE_UNKNOWN")]
    ended = await pennyweight("outcome", "chat", "h", "--resolved", "--address", stage.address)
    assert (ended.code, ended.err) == (1, "no such handle\n")


async def test_levers_are_listed(stage: Stage) -> None:
    quiet = pb.Lever(route="support-chat", name="cache", state=pb.LEVER_STATE_ON)
    steering = lever(name="trimming", reason="[red]\x1b[2J")
    stage.router.script = lambda _: [
        pb.ListLeversResponse(levers=[lever(), quiet, steering], policy_version="v2")
    ]
    wide = {"PENNYWEIGHT_ADDRESS": stage.address, "COLUMNS": "250"}
    ended = await pennyweight("lever", "list", "--route", "support-chat", **wide)
    assert ended.code == 0, ended.err
    first, second, third = rows_of(ended.out)
    assert first == [
        "support-chat",
        "tier:small",
        "halted",
        "2026-11-02 10:00:00 UTC",
        "ada",
        "wrong answers about fees",
        "2026-11-02 12:00:00 UTC",
        "1,204 samples, loses 0.4 points of 2.0 points allowed, evidence 31%",
    ]
    assert second == ["support-chat", "cache", "on", "-", "-", "-", "-", "none"]
    assert third[5] == "[red][2J"
    assert "policy v2" in ended.out
    assert stage.router.requests == [pb.ListLeversRequest(route="support-chat")]


async def test_what_is_allowed_beyond_the_promise_is_told_apart(stage: Stage) -> None:
    watch = pb.LeverWatch(samples=454, mean_loss=0.145, allowed_loss=0.069, evidence=1, level=0.059)
    together = pb.RouteWatch(route="support-chat", watch=watch)
    stage.router.script = lambda _: [
        pb.ListLeversResponse(
            levers=[lever(watch=watch, unsaved=True)],
            totals=[together, pb.RouteWatch(route="unknown")],
        )
    ]
    wide = {"PENNYWEIGHT_ADDRESS": stage.address, "COLUMNS": "300"}
    first, second, third = rows_of((await pennyweight("lever", "list", **wide)).out)
    told = (
        "454 samples, loses 14.5 points of 6.9 points allowed (1.0 points promised, 5.9 points its "
        "judge saw at calibration), evidence 100%"
    )
    assert (first[2], first[-1]) == ("halted here alone", told)
    assert second == ["support-chat", "all together", *["-"] * 5, told]
    assert third == ["unknown", "all together", *["-"] * 6]
    told_json = await pennyweight("lever", "list", "--json", **wide)
    _, total, unknown = map(json.loads, told_json.out.splitlines())
    assert (total["kind"], total["route"], total["watch"]["level"]) == (
        "total",
        "support-chat",
        0.059,
    )
    assert unknown == {"kind": "total", "route": "unknown", "watch": None}


async def test_levers_that_nobody_knows_of_count_as_halted_and_say_so(stage: Stage) -> None:
    nobody = lever(name="cache", state=pb.LEVER_STATE_UNKNOWN, unsaved=True)
    stage.router.script = lambda _: [pb.ListLeversResponse(levers=[lever(unsaved=True), nobody])]
    wide = {"PENNYWEIGHT_ADDRESS": stage.address, "COLUMNS": "300"}
    ended = await pennyweight("lever", "list", **wide)
    first, second = rows_of(ended.out)
    assert (first[2], second[2]) == ("halted here alone", "unknown")
    said = " ".join(ended.err.split())
    assert "What routers share cannot be reached" in said
    assert "only this router knows" in said
    stage.router.script = lambda _: [pb.ListLeversResponse(levers=[lever()])]
    assert (await pennyweight("lever", "list", **wide)).err == ""


async def test_a_halt_that_only_one_router_knows_says_so(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.SetLeverResponse(lever=lever(unsaved=True))]
    ended = await pennyweight("lever", "halt", *FEES, "--address", stage.address)
    assert ended.code == 0
    assert ended.out.startswith("tier:small of support-chat is halted")
    assert ended.err.startswith("Only this router knows so far")


async def test_levers_as_json(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.ListLeversResponse(levers=[lever()])]
    ended = await pennyweight("lever", "list", "--json", "--address", stage.address)
    told = json.loads(ended.out)
    assert (told["kind"], told["since"]) == ("lever", "2026-11-02T10:00:00+00:00")
    assert told["watch"]["samples"] == 1204


async def test_a_lever_is_halted_for_a_while_in_the_users_name(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.SetLeverResponse(lever=lever())]
    ended = await pennyweight("lever", "halt", *FEES, "--for", "1d2.5h", "--address", stage.address)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "tier:small of support-chat is halted until 2026-11-02 12:00:00 UTC.\n"
    (request,) = stage.router.requests
    assert (request.route, request.lever, request.reason) == ("support-chat", "tier:small", "fees")
    assert request.state == pb.LEVER_STATE_HALTED
    assert request.author == getpass.getuser()
    assert request.expires_after.ToSeconds() == 26.5 * 3600


async def test_a_lever_is_halted_until_it_is_released(stage: Stage) -> None:
    halted = lever()
    halted.ClearField("expires")
    stage.router.script = lambda _: [pb.SetLeverResponse(lever=halted)]
    told = (*FEES, "--author", "ada", "--address", stage.address)
    assert (await pennyweight("lever", "halt", *told)).out.endswith("is halted.\n")
    await pennyweight("lever", "release", *told)
    ended = await pennyweight("lever", "halt", *told, "--json")
    assert json.loads(ended.out)["state"] == "halted"
    halt, release, _ = stage.router.requests
    assert not halt.HasField("expires_after")
    assert (release.state, release.author) == (pb.LEVER_STATE_ON, "ada")


@pytest.mark.parametrize("duration", ["", "2", "h", "2 h", "-2h", "2w", "2h30"])
async def test_a_time_that_is_none_is_wrong_usage(duration: str) -> None:
    ended = await pennyweight("lever", "halt", *FEES, "--for", duration)
    assert ended.code == 2
    assert "is no duration" in ended.err


async def test_a_key_that_may_not_halt_is_told_so(stage: Stage) -> None:
    stage.router.script = lambda _: [Forbidden("only operators set levers", reason="ROLE")]
    ended = await pennyweight("lever", "halt", *FEES, "--address", stage.address)
    assert (ended.code, ended.err) == (1, "only operators set levers\n")


@pytest.mark.parametrize("missing", [("lever", "halt", "r", "cache"), ("lever", "release", "r")])
async def test_a_halt_without_a_reason_is_wrong_usage(missing: tuple[str, ...]) -> None:
    assert (await pennyweight(*missing)).code == 2
