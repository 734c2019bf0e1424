"""Policy files that change while the router serves: in force whole, under running answers."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2
from services.router.routes import watch as policies
from tests.integration.router.world import HELLO, OPERATOR, Caller, World, asking, hello
from tests.integration.scripted_triton import Hold

Metadata = tuple[tuple[str, str], ...]
AS_OPERATOR: Metadata = (("authorization", f"Bearer {OPERATOR}"),)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LOOK_SECONDS", 0.01)


class Scene:
    """A world with a replica, whose files a test changes."""

    def __init__(self, world: World, caller: Caller) -> None:
        self.world = world
        self.caller = caller
        self.file: Path = world.settings["routes_file"]

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    async def decision(self) -> pb.Decision:
        """What would be decided now."""
        request = pb.ExplainRequest(route="chat", prompt=asking().prompt)
        told = await self.caller.stub.Explain(request, metadata=self.caller.metadata, timeout=20)
        return told.decision

    async def listed(self, key: Metadata = AS_OPERATOR) -> pb.ListRoutesResponse:
        """The routes, as who has this key is told of them."""
        found: pb.ListRoutesResponse = await self.caller.stub.ListRoutes(
            pb.ListRoutesRequest(), metadata=key, timeout=20
        )
        return found

    async def version(self) -> str:
        return str((await self.decision()).policy_version)

    async def leaves(self, version: str) -> None:
        """Waits until another version is in force."""

        async def left() -> bool:
            return await self.version() != version

        await self.world.eventually(left, wanted=True)

    async def refused(self, times: int) -> None:
        """Waits until so many changes were refused."""

        async def count() -> float:
            return await self.world.metric("policy_refusals_total")

        await self.world.eventually(count, wanted=times)


@pytest.fixture
async def scene(world: World, caller: Caller) -> Scene:
    await world.add("a")
    return Scene(world, caller)


async def test_a_route_is_added_while_the_router_serves(scene: Scene) -> None:
    before = await scene.version()
    assert (await scene.caller.refused(asking("added"))).reason == "ROUTE_UNKNOWN"
    scene.change("routes:\n", "routes:\n  added: {ladder: [small], fixed_tier: small}\n")
    await scene.leaves(before)
    told = await scene.caller.ask(asking("added"))
    assert told.text == HELLO
    kept: Path = scene.world.settings["policy_folder"] / "versions"
    for version, has_it in ((before, False), (told.decision.policy_version, True)):
        file = kept / version / "routes.yaml"
        await scene.world.eventually(partial(asyncio.to_thread, file.exists), wanted=True)
        assert ("added:" in file.read_text()) is has_it


async def test_bad_files_disturb_nobody_and_are_counted(scene: Scene) -> None:
    before, good = await scene.version(), scene.file.read_text()
    for number, wrong in enumerate((good.replace("[small]", "[smell]"), "tiers: {", ""), start=1):
        scene.file.write_text(wrong)
        await scene.refused(number)
        assert await scene.world.metric("policy_refused") == 1
        told = await scene.caller.ask()
        assert (told.text, told.decision.policy_version) == (HELLO, before)
    scene.file.write_text(good + "# better\n")
    await scene.leaves(before)
    assert await scene.world.metric("policy_refused") == 0
    after = await scene.version()
    assert await scene.world.metric("policy_version", version=after) == 1
    assert before not in await scene.world.metrics()


async def test_a_tier_gets_another_model_under_running_answers(scene: Scene) -> None:
    world, caller, go = scene.world, scene.caller, asyncio.Event()
    first, *others = hello()
    old = await world.add("old", "tight", script=[first, Hold(go), *others])
    before = await scene.version()
    streamed = caller.generate(asking("tight"))
    assert (await streamed.read()).started.decision.replica == "old"
    whole = asyncio.create_task(caller.whole(asking("tight")))
    new = await world.add("new", "top")
    scene.change("model: tight", "model: newer")
    told = scaler_pb2.Replica()
    told.CopyFrom(world.scaler.fleet["new"])
    told.tier, told.model = "tight", "newer"
    world.scaler.tell(told)
    await scene.leaves(before)
    answer = await caller.ask(asking("tight"))
    assert (answer.decision.replica, answer.decision.model) == ("new", "newer")
    assert answer.text == HELLO
    assert [one.model for one in new.received] == ["newer"]
    go.set()
    while not (response := await streamed.read()).HasField("finished"):
        pass
    for decision in (response.finished.summary.decision, (await whole).summary.decision):
        assert (decision.replica, decision.model) == ("old", "tight")
        assert decision.policy_version == before
    assert [one.model for one in old.received] == ["tight", "tight"]


async def test_files_that_a_calibration_does_not_fit_are_refused(scene: Scene) -> None:
    before = await scene.version()
    scene.change("model: small", "model: newer")  # routes are calibrated for the old one
    await scene.refused(1)
    assert await scene.version() == before
    for path in scene.file.parent.glob("*.json"):
        path.unlink()
    await scene.leaves(before)
    assert (await scene.decision()).model == "newer"


async def test_what_is_refused_is_listed_for_operators_until_it_is_mended(scene: Scene) -> None:
    assert not (await scene.listed()).HasField("refusal")
    good = scene.file.read_text()
    scene.change("max_sequence_tokens: 200", "max_sequence_tokens: 0xc8")
    await scene.refused(1)
    refusal = (await scene.listed()).refusal
    problem = refusal.problems[0]
    assert refusal.file == str(scene.file)
    assert problem.key.endswith(".max_sequence_tokens")
    assert good.splitlines()[problem.line - 1].count("max_sequence_tokens: 200")
    assert problem.rule == "must be a whole number in plain digits, such as 250"
    assert problem.value == "'0xc8'"
    hidden = (
        await scene.listed(scene.caller.metadata)
    ).refusal  # other tenants' routes are no caller's business
    assert hidden == pb.PolicyRefusal(since=refusal.since)
    scene.file.write_text("tiers: [")
    await scene.refused(2)
    assert (await scene.listed()).refusal.since == refusal.since
    scene.file.write_text(good)

    async def is_refused() -> bool:
        return (await scene.listed()).HasField("refusal")

    await scene.world.eventually(is_refused, wanted=False)


async def test_a_bomb_is_refused_and_routes_stay_listed(scene: Scene) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    scene.file.write_text("\n".join(lines))
    await scene.refused(1)
    found = await scene.listed()
    (problem,) = found.refusal.problems
    assert problem.rule == "more than 50,000 values, aliases unfolded"
    assert found.routes
