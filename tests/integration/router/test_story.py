"""A route's life: uncalibrated, calibrated on its own ledger, broken, halted, released."""

import asyncio
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router.calibrate.command import run as calibrate
from tests.integration.router.world import OPERATOR, PATIENCE, Caller, World, asking, tokens
from tests.integration.scripted_triton import Received, Say, Script

ROUTE, LEVER = "fresh", "tier:small"
PAIRS = 400
RIGHT = "the right answer"


class Small:
    """A tier whose answer is right where it is sure, and on most other questions too."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self, received: Received) -> Script:
        hard = sum(received.prompt) % 4 == 0
        text = "something else" if hard or self.broken else RIGHT
        return [Say(tokens(text), final=True, sure=-3.0 if hard else -0.1)]


class Scene:
    def __init__(self, world: World, caller: Caller, small: Small) -> None:
        self.world, self.caller, self.small = world, caller, small

    async def ask(self, count: int, start: int = 0) -> list[pb.Decision]:
        """Asks different questions; returns the decisions."""
        decisions = []
        for number in range(start, start + count, 20):
            some = range(number, min(number + 20, start + count))
            told = await asyncio.gather(
                *(self.caller.ask(asking(ROUTE, f"question {one}")) for one in some)
            )
            decisions += [one.decision for one in told]
        return decisions

    async def lever(self) -> pb.Lever:
        response = await self.caller.stub.ListLevers(
            pb.ListLeversRequest(route=ROUTE), metadata=self.caller.metadata, timeout=PATIENCE
        )
        return next(one for one in response.levers if one.name == LEVER)

    def pairs(self) -> int:
        return sum(one["kind"] == "pair" for one in self.world.written())


@pytest.fixture
async def scene(world: World) -> Scene:
    small = Small()
    await world.add("s", "small", script=small)
    await world.add("t", "top", script=[Say(tokens(RIGHT), final=True, sure=-0.1)])
    return Scene(world, await world.caller(), small)


async def test_a_route_is_calibrated_broken_halted_and_released(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    world, folder = scene.world, scene.world.folder
    decisions = await scene.ask(PAIRS)
    assert {one.reason for one in decisions} == {pb.REASON_UNCALIBRATED}
    await world.eventually(_of(scene.pairs), PAIRS)

    status = calibrate(
        ["--route", ROUTE, "--ledger", str(folder / "ledger"),
         "--routes-file", str(folder / "policies/routes.yaml"), "--evidence-share", "0.05"]
    )  # fmt: skip
    assert status == 0, capsys.readouterr().out

    async def reason() -> int:
        return int((await scene.ask(1, start=1))[0].reason)

    await world.eventually(reason, pb.REASON_CALIBRATED)
    decisions = await scene.ask(100, start=PAIRS)
    assert {one.tier for one in decisions} == {"small", "top"}
    cheap = sum(one.tier == "small" for one in decisions)
    assert 40 < cheap < 90
    assert (await scene.lever()).state == pb.LEVER_STATE_ON

    scene.small.broken = True
    await scene.ask(100, start=1000)  # pairs are judged a moment after their answers
    await world.eventually(reason, pb.REASON_HALTED)
    (decision,) = await scene.ask(1)
    assert list(decision.halted_levers) == [LEVER]
    lever = await scene.lever()
    assert (lever.state, lever.author) == (pb.LEVER_STATE_HALTED, "guardrail")
    assert lever.watch.evidence >= 1.0
    assert await world.metric("lever_halted", lever=LEVER, route=ROUTE) == 1

    scene.small.broken = False
    request = pb.SetLeverRequest(
        route=ROUTE, lever=LEVER, state=pb.LEVER_STATE_ON, author="ann", reason="mended"
    )
    operator = (("authorization", f"Bearer {OPERATOR}"),)
    await scene.caller.stub.SetLever(request, metadata=operator, timeout=PATIENCE)
    await world.eventually(reason, pb.REASON_CALIBRATED)
    assert (await scene.lever()).author == "ann"


def _of(count: Any) -> Any:
    async def look() -> int:
        return int(count())

    return look
