"""Tiers that no replica serves and replicas of no tier are told, once a change, and to whom."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from services.common.errors import Unavailable
from services.router.fleet.fleet import Fleet
from services.router.fleet.replica import Replica, State
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.wire.messages import route_message
from tests.making.policies import policies, route, tier

SMALL, LARGE = tier("small", model="s"), tier("large", model="l", queue_seconds=0.001)
CHAT = route("chat", SMALL, LARGE)


def fleet(*replicas: Replica, told: bool = True) -> Fleet:
    made = Fleet(policies(CHAT), Metrics(CollectorRegistry()), spawn=lambda work: work.close())
    if told:
        made.replace(replicas)
        made.set_stale(stale=False)
    return made


def replica(of: str, model: str, **changes: Any) -> Replica:
    pool = changes.pop("pool", f"{of}-cpu")
    fields = {"precision": "int8", "state": State.READY, "address": "a:1", "max_in_flight": 1}
    return Replica(
        **{"id": f"{pool}-1", "tier": of, "model": model, "pool": pool, **fields, **changes}
    )


@pytest.mark.parametrize(
    ("wrong", "serves"),
    [
        (replica("lage", "l", pool="large-cpu"), "lage (l int8)"),
        (replica("large", "l", pool="large-cpu", precision="int4"), "large (l int4)"),
        (replica("large", "x", pool="large-cpu"), "large (x int8)"),
    ],
)
def test_a_pool_that_serves_no_tier_is_told_beside_the_tier_without_one(
    wrong: Replica, serves: str
) -> None:
    seen = fleet(replica("small", "s"), wrong)
    assert seen.trouble("small", pools=True) == ""
    assert seen.trouble("large", pools=True) == (
        f"no replica serves it; pool large-cpu serves {serves}"
    )
    for operator, said in ((True, "pool large-cpu"), (False, "no replica serves it")):
        small, large = route_message(CHAT, seen, operator=operator).ladder
        assert (small.trouble, large.trouble.startswith("no replica serves it")) == ("", True)
        assert said in large.trouble
        assert ("pool" in large.trouble) is operator


def test_a_pool_of_no_tier_is_told_where_others_serve_the_tier_it_may_be_meant_for() -> None:
    spot = replica("lage", "l", pool="large-spot")
    seen = fleet(replica("small", "s"), replica("large", "l"), spot)
    assert seen.trouble("large", pools=True) == "pool large-spot serves lage (l int8)"
    assert seen.trouble("large", pools=False) == ""
    assert seen.trouble("small", pools=True) == ""


@pytest.mark.parametrize(
    ("state", "fine"), [(State.STARTING, True), (State.DRAINING, False), (State.GONE, False)]
)
def test_a_tier_is_served_by_what_is_or_will_be_ready(state: State, *, fine: bool) -> None:
    seen = fleet(replica("small", "s"), replica("large", "l", state=state))
    assert (seen.trouble("large", pools=True) == "") is fine


def test_what_ails_a_tier_is_logged_once_a_change() -> None:
    def good() -> list[Replica]:
        return [replica("small", "s"), replica("large", "l")]

    with capture_logs() as logs:
        seen = fleet(*good())
        typo = [good()[0], replica("lage", "l", id="new", pool="large-cpu")]
        for _ in range(3):
            seen.replace(typo)
            seen.set_stale(stale=True)
            seen.set_stale(stale=False)
        seen.replace(good())
    assert [(log["log_level"], log["tier"]) for log in logs] == [
        ("warning", "large"),
        ("info", "large"),
    ]
    assert logs[0]["trouble"] == "no replica serves it; pool large-cpu serves lage (l int8)"


def test_a_fleet_that_was_never_told_is_not_the_last_known_one() -> None:
    with capture_logs() as logs:
        seen = fleet(told=False)
    assert (seen.stale, seen.last_known, logs) == (True, False, [])
    assert "was not reached yet" in seen.trouble("small", pools=False)
    seen.set_stale(stale=False)
    assert not seen.last_known
    seen.set_stale(stale=True)
    assert seen.last_known


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.GONE, "large has no replica, and none came within"),
        (State.STARTING, "no replica of large was ready within"),
        (State.READY, "no replica of large had room within"),
    ],
)
async def test_who_waited_in_vain_is_told_for_what(state: State, said: str) -> None:
    seen = fleet(replica("large", "l", state=state, in_flight=1))
    with pytest.raises(Unavailable, match=said):
        await seen.place(LARGE, Priority.INTERACTIVE, avoid=(), until=seen._clock() + 60)
