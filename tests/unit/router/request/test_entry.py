"""The door: how long a request may take, and whether it is drawn as evidence."""

from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import DeadlineExceeded
from services.router.policy.calibration import Rung
from services.router.policy.routes import Deadline, EvidencePolicy, Limits, Route
from services.router.request.context import RequestState
from services.router.request.entry import Entry
from services.router.wire.requests import check
from tests.making.policies import compiled, ladder, quality, route, tier
from tests.making.walking import Board, Letters

ARRIVED = 1000.0
EVIDENCE = EvidencePolicy(share=0.25, share_until_calibrated=0.75)


def enter(
    asked: Route, *, left: float | None = 20.0, off: tuple[str, ...] = (), chance: float = 0.5
) -> RequestState:
    request = pb.GenerateRequest(route=asked.name)
    request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
    version = compiled(asked, texts={tier.tokenizer: Letters() for tier in asked.ladder})
    entry = Entry(
        levers=Board(off),
        sign=lambda *signed: "/".join(map(str, signed[1:])),
        settled=lambda _: None,
        chance=lambda: chance,
        clock=lambda: ARRIVED,
        wall=lambda: 1_700_000_000.9,
    )
    checked = check(request, "acme", version, longest=1000)
    return entry.enter(checked, "acme", arrived=ARRIVED, left=left, streaming=True)


def timed(most: float | None = None, **deadline: float) -> Route:
    given = {"default_seconds": 30.0} | deadline
    return route("chat", tier("small"), limits=Limits(seconds=most), deadline=Deadline(**given))


@pytest.mark.parametrize(
    ("asked", "left", "seconds", "is_ours"),
    [
        pytest.param(timed(), 20.0, 20.0, False, id="the caller's"),
        pytest.param(timed(), None, 30.0, True, id="the route's where the caller has none"),
        pytest.param(timed(5.0), 20.0, 5.0, True, id="the limit where the caller has longer"),
        pytest.param(timed(5.0), None, 5.0, True, id="the limit where nobody says"),
        pytest.param(timed(5.0), 4.0, 4.0, False, id="the caller's below the limit"),
        pytest.param(timed(), 3600.0, 300.0, True, id="five minutes where nobody says"),
        pytest.param(
            timed(longest_seconds=45.0), 60.0, 45.0, True, id="the route's where it is shorter"
        ),
        pytest.param(
            timed(default_seconds=900.0), 3600.0, 900.0, True, id="never less than the default"
        ),
        pytest.param(timed(900.0), 3600.0, 300.0, True, id="the shorter of both limits"),
    ],
)
def test_a_request_may_take_what_its_caller_and_its_route_allow(
    asked: Route, left: float | None, seconds: float, *, is_ours: bool
) -> None:
    context = enter(asked, left=left).context
    assert (context.until, context.until_is_ours) == (ARRIVED + seconds, is_ours)


def test_less_time_than_the_route_needs_is_refused_at_the_door() -> None:
    assert enter(timed(shortest_seconds=2.0), left=2.0).context.until == ARRIVED + 2.0
    with pytest.raises(DeadlineExceeded, match=r"1\.500 s are left; chat needs at least 2 s") as it:
        enter(timed(shortest_seconds=2.0), left=1.5)
    assert it.value.reason == "DEADLINE_TOO_SHORT"


def certified(*rungs: Rung) -> Route:
    asked = quality(*rungs, evidence=EVIDENCE)
    return route("chat", *ladder("small", "large"), quality=asked)


@pytest.mark.parametrize(
    ("asked", "off", "propensity"),
    [
        pytest.param(timed(), (), 0.0, id="no quality is asked"),
        pytest.param(certified(Rung(1.0, -0.5)), (), 0.25, id="calibrated"),
        pytest.param(certified(), (), 0.75, id="not calibrated"),
        pytest.param(certified(Rung(1.0, -0.5)), ("cache",), 0.75, id="a lever is halted"),
    ],
)
def test_how_many_are_drawn_depends_on_what_is_trusted(
    asked: Route, off: tuple[str, ...], propensity: float
) -> None:
    context = enter(asked, off=off).context
    assert (context.propensity, context.halted) == (propensity, off)
    assert enter(asked, off=off, chance=propensity).context.drawn is False
    if propensity:
        assert enter(asked, off=off, chance=propensity - 0.01).context.drawn is True


def test_a_handle_names_the_tenant_the_route_and_whole_seconds() -> None:
    first, second = enter(timed()).context, enter(timed()).context
    assert first.handle == "acme/chat/1700000000"
    assert first.request_id != second.request_id


def test_nothing_of_a_request_has_happened_at_the_door() -> None:
    state = enter(timed())
    nothing: tuple[Any, ...] = (None, [], False, 0)
    assert (state.decision, state.attempts, state.committed, state.micro_usd) == nothing
