"""ListLevers and SetLever: who may, what is refused, and what callers see."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from pennyweight.router.v1 import router_pb2 as pb
from services.common.credentials import Identity, Role
from services.common.errors import BadRequest, Forbidden, NotFound, Unavailable
from services.router.levers.board import SharedLeverBoard
from services.router.metrics import Metrics
from services.router.policy.calibration import Rung
from services.router.policy.routes import Trimming
from services.router.routes.in_force import InForce
from services.router.wire.levers import LeverCalls
from tests.making.memory_state import MemoryState
from tests.making.policies import calibrated, compiled, ladder, quality, route

NOW = 1_700_000_000.0

CALLER = Identity("acme", Role.CALLER)
STRANGER = Identity("umbrella", Role.CALLER)
OPERATOR = Identity("house", Role.OPERATOR)
SERVICE = Identity("development", Role.SERVICE)

CHAT = route("chat", *ladder("small", "large"), quality=quality(Rung(1.0, None)))
BRIEF = route("brief", *ladder("small", "large"), trimming=Trimming(white_space=True))
THEIRS = route("theirs", *ladder("small"), tenants=frozenset({"acme"}))


class Desk:
    """The calls, as the servicer makes them."""

    def __init__(self) -> None:
        self.state, self.now = MemoryState(), NOW
        self.in_force = InForce(compiled(CHAT, BRIEF, THEIRS))
        self.levers = SharedLeverBoard(
            state=self.state,
            in_force=self.in_force,
            metrics=Metrics(CollectorRegistry()),
            clock=lambda: self.now,
            wall=lambda: self.now,
        )
        self.calls = LeverCalls(self.levers, self.in_force)

    async def list(self, who: Identity = OPERATOR, route: str = "") -> dict[str, pb.Lever]:
        request = pb.ListLeversRequest(route=route)
        response = await self.calls.list_levers(request, who)
        assert response.policy_version == "test"
        return {f"{lever.route}/{lever.name}": lever for lever in response.levers}

    async def set(self, who: Identity = OPERATOR, **changes: Any) -> pb.Lever:
        fields: dict[str, Any] = {
            "route": "chat",
            "lever": "tier:small",
            "state": pb.LEVER_STATE_HALTED,
            "author": "ann",
            "reason": "looks wrong",
        }
        request = pb.SetLeverRequest(**(fields | changes))
        return (await self.calls.set_lever(request, who)).lever


@pytest.fixture
async def desk() -> Desk:
    one = Desk()
    await one.levers.refresh()
    return one


async def test_callers_see_the_levers_of_routes_they_may_use(desk: Desk) -> None:
    open_to_all = ["brief/cache", "brief/tier:small", "brief/trimming"]
    open_to_all += ["chat/cache", "chat/tier:small"]
    assert list(await desk.list(STRANGER)) == open_to_all
    assert list(await desk.list(CALLER)) == [*open_to_all, "theirs/cache"]
    assert list(await desk.list(OPERATOR)) == [*open_to_all, "theirs/cache"]
    assert list(await desk.list(CALLER, "theirs")) == ["theirs/cache"]


@pytest.mark.parametrize("name", ["theirs", "none", "Chat"])
async def test_routes_of_others_are_as_unknown_as_those_there_are_not(
    desk: Desk, name: str
) -> None:
    with pytest.raises(NotFound) as caught:
        await desk.list(STRANGER, name)
    assert caught.value.reason == "ROUTE_UNKNOWN"
    assert str(caught.value) == f"no route named {name!r}"


async def test_a_lever_that_nobody_touched_is_on_and_watched(desk: Desk) -> None:
    lever = (await desk.list())["chat/tier:small"]
    assert lever.state == pb.LEVER_STATE_ON
    assert (lever.author, lever.reason) == ("", "")
    assert not lever.HasField("since")
    assert not lever.HasField("expires")
    assert lever.watch.samples == 0
    assert lever.watch.allowed_loss == pytest.approx(0.02)
    assert lever.watch.run_length == 100_000


async def test_the_watch_is_told(desk: Desk) -> None:
    for loss in (1.0, 0.0):
        await desk.levers.judged(CHAT, {"tier:small": loss}, 1.0)
    watch = (await desk.list())["chat/tier:small"].watch
    assert watch.samples == 2
    assert watch.mean_loss == pytest.approx(0.5)
    assert 0 < watch.evidence < 0.001


async def test_what_the_watch_allows_is_told_by_its_parts(desk: Desk) -> None:
    found = replace(calibrated(Rung(1.0, None)), level=0.059)
    chat = route("chat", *ladder("small", "large"), quality=quality(calibration=found))
    desk.in_force.adopt(compiled(chat))
    watch = (await desk.list())["chat/tier:small"].watch
    assert (watch.level, watch.allowed_loss) == (pytest.approx(0.059), pytest.approx(0.079))
    assert watch.allowed_worse_share == pytest.approx(0.079)  # its judge finds nothing better


async def test_the_watch_on_all_levers_together_is_told(desk: Desk) -> None:
    async def totals() -> list[pb.RouteWatch]:
        request = pb.ListLeversRequest()
        return list((await desk.calls.list_levers(request, OPERATOR)).totals)

    await desk.levers.judged(CHAT, {"tier:small": 0.5}, 1.0)
    (total,) = await totals()
    assert (total.route, total.watch.samples, total.watch.mean_loss) == ("chat", 1, 0.5)
    desk.state.away, desk.now = True, NOW + 3
    await desk.levers.refresh()
    (total,) = await totals()
    assert not total.HasField("watch")


async def test_a_route_that_asks_nothing_of_its_answers_has_no_watch(desk: Desk) -> None:
    assert not (await desk.list())["brief/trimming"].HasField("watch")


async def test_the_guardrails_halt_is_told(desk: Desk) -> None:
    for _ in range(60):
        await desk.levers.judged(CHAT, {"tier:small": 1.0}, 1.0)
    lever = (await desk.list())["chat/tier:small"]
    assert lever.state == pb.LEVER_STATE_HALTED
    assert lever.author == "guardrail"
    assert lever.reason.startswith("Halted: ")
    assert lever.since.seconds == NOW
    assert lever.watch.evidence >= 1


@pytest.mark.parametrize("who", [OPERATOR, SERVICE])
async def test_operators_and_services_halt_and_release(desk: Desk, who: Identity) -> None:
    halted = await desk.set(who, expires_after=Duration(seconds=90, nanos=500_000_000))
    assert halted.state == pb.LEVER_STATE_HALTED
    assert (halted.author, halted.reason) == ("ann", "looks wrong")
    assert halted.since.ToMilliseconds() == NOW * 1000
    assert halted.expires.ToMilliseconds() == NOW * 1000 + 90_500
    assert (await desk.list())["chat/tier:small"] == halted
    assert set(desk.levers.halted(CHAT)) == {"tier:small"}
    desk.now += 1
    on = await desk.set(who, state=pb.LEVER_STATE_ON, author="bob", reason="was fine")
    assert (on.state, on.author, on.reason) == (pb.LEVER_STATE_ON, "bob", "was fine")
    assert on.since.ToMilliseconds() == (NOW + 1) * 1000
    assert not on.HasField("expires")
    assert not desk.levers.halted(CHAT)


async def test_moments_are_said_as_closely_as_they_are_known(desk: Desk) -> None:
    desk.now += 2**-12  # a quarter of a millisecond
    halted = await desk.set(OPERATOR, expires_after=Duration(seconds=90))
    assert (halted.since.seconds, halted.since.nanos) == (NOW, 244_141)
    assert (halted.expires.seconds, halted.expires.nanos) == (NOW + 90, 244_141)


async def test_an_operator_sets_levers_of_every_route(desk: Desk) -> None:
    lever = await desk.set(OPERATOR, route="theirs", lever="cache")
    assert lever.state == pb.LEVER_STATE_HALTED


async def test_callers_set_nothing(desk: Desk) -> None:
    with pytest.raises(Forbidden) as caught:
        await desk.set(CALLER, route="theirs", lever="cache", author="")
    assert caught.value.reason == "OPERATORS_ONLY"
    assert desk.state.kept_records == {}


async def test_all_that_is_wrong_is_told_at_once(desk: Desk) -> None:
    request = pb.SetLeverRequest(expires_after=Duration())
    with pytest.raises(BadRequest) as caught:
        await desk.calls.set_lever(request, OPERATOR)
    names = [violation.name for violation in caught.value.violations]
    assert names == ["route", "lever", "state", "author", "reason", "expires_after"]


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"state": pb.LEVER_STATE_UNKNOWN}, "state"),
        ({"state": 17}, "state"),
        ({"author": " "}, "author"),
        ({"author": "x" * 65}, "author"),
        ({"author": "ann\x1b[2J"}, "author"),
        ({"author": "guardrail"}, "author"),
        ({"author": "calibration"}, "author"),
        ({"reason": "\n"}, "reason"),
        ({"reason": "x" * 257}, "reason"),
        ({"expires_after": Duration(seconds=0)}, "expires_after"),
        ({"expires_after": Duration(seconds=-5)}, "expires_after"),
        ({"expires_after": Duration(seconds=365 * 86_400 + 1)}, "expires_after"),
        ({"expires_after": Duration(seconds=5), "state": pb.LEVER_STATE_ON}, "expires_after"),
    ],
)
async def test_what_breaks_a_rule_is_refused(desk: Desk, wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await desk.set(**wrong)
    assert [violation.name for violation in caught.value.violations] == [name]
    assert desk.state.kept_records == {}


async def test_the_longest_of_everything_is_taken(desk: Desk) -> None:
    year = Duration(seconds=365 * 86_400)
    lever = await desk.set(author="x" * 64, reason="é" * 256, expires_after=year)
    assert lever.expires.seconds == NOW + 365 * 86_400


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"route": "none"}, "ROUTE_UNKNOWN"),
        ({"lever": "tier:large"}, "LEVER_UNKNOWN"),
        ({"lever": "trimming"}, "LEVER_UNKNOWN"),
    ],
)
async def test_what_there_is_not_cannot_be_set(
    desk: Desk, changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(NotFound) as caught:
        await desk.set(**changes)
    assert caught.value.reason == reason
    assert desk.state.kept_records == {}


async def test_while_the_state_is_away_levers_are_unknown_and_cannot_be_set(desk: Desk) -> None:
    await desk.set()
    desk.state.away, desk.now = True, NOW + 3
    await desk.levers.refresh()
    listed = await desk.list()
    halted = listed.pop("chat/tier:small")  # whatever the others say now, here it is
    assert (halted.state, halted.author) == (pb.LEVER_STATE_HALTED, "ann")
    assert halted.HasField("since")
    assert not halted.HasField("watch")
    for lever in listed.values():
        assert lever.state == pb.LEVER_STATE_UNKNOWN
        assert lever.author == ""
        assert "cannot be reached" in lever.reason
        assert not lever.HasField("watch")
    assert set(desk.levers.halted(CHAT)) == {"tier:small", "cache"}
    with pytest.raises(Unavailable):
        await desk.set(state=pb.LEVER_STATE_ON)
    desk.state.away = False
    await desk.levers.refresh()
    assert set(desk.levers.halted(CHAT)) == {"tier:small"}


async def test_a_halt_while_the_state_is_away_is_told_as_what_it_is(desk: Desk) -> None:
    desk.state.away, desk.now = True, NOW + 3
    await desk.levers.refresh()
    set_now = await desk.set()
    listed = (await desk.list())["chat/tier:small"]
    for lever in (set_now, listed):
        assert (lever.state, lever.unsaved, lever.author) == (pb.LEVER_STATE_HALTED, True, "ann")


async def test_a_halt_that_others_do_not_know_yet_says_so(desk: Desk) -> None:
    desk.state.refuses_writes = True
    assert (await desk.set()).unsaved
    assert (await desk.list())["chat/tier:small"].unsaved
    with pytest.raises(Unavailable):
        await desk.set(state=pb.LEVER_STATE_ON)
    desk.state.refuses_writes = False
    assert not (await desk.set()).unsaved


@pytest.mark.parametrize("state", [pb.LEVER_STATE_HALTED, pb.LEVER_STATE_ON])
async def test_the_log_says_whose_key_set_a_lever(desk: Desk, state: pb.LeverState) -> None:
    who = Identity("house", Role.OPERATOR, key_id="9f86d081")
    with capture_logs() as logs:
        await desk.set(who, state=state, author="somebody else")
    (line,) = (line for line in logs if line["event"] == "a lever was set")
    assert (line["tenant"], line["key"]) == ("house", "9f86d081")
    assert (line["route"], line["lever"]) == ("chat", "tier:small")
    assert line["halted"] is (state == pb.LEVER_STATE_HALTED)
    assert line["author"] == "somebody else"
