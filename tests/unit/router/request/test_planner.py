"""What one tier is to do: tokens that the money left pays for, and evidence in whatever room is."""

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router.policy.calibration import Rung
from services.router.policy.routes import Limits, Route
from services.router.ports import ReplicaFailed
from services.router.request.runner import MAX_TRIES_BELOW
from tests.making.policies import ladder, quality, route, tier
from tests.making.walking import Engine, Run, Way

SURE = -0.125
CHECKED = Rung(1.0, -0.5)
MOST = 64
"""Output tokens that a route of these tests gives."""


def laddered(**limits: int) -> Route:
    return route(
        "chat", *ladder("small", "large"), quality=quality(CHECKED), limits=Limits(**limits)
    )


async def test_lost_tries_of_a_lower_tier_leave_the_top_one_its_money() -> None:
    small, large = laddered().ladder
    budget = small.price.of(2, MOST) + large.price.of(2, MOST)  # pays for one run of each
    lost = [Run(["x" * 60, ReplicaFailed("gone", lost=True)], SURE) for _ in range(MAX_TRIES_BELOW)]
    engine = Engine({"small": lost, "large": [Run(["l"], SURE)]})
    way = Way(laddered(micro_usd=budget), engine)
    await way.go()
    assert engine.order == ["small", "large"]
    assert engine.asked[-1].max_output_tokens == MOST


async def test_no_evidence_runs_on_a_tier_that_the_prompt_leaves_no_room() -> None:
    cramped = tier("small", max_sequence_tokens=2)  # all of it are the prompt's
    told = route("chat", cramped, *ladder("small", "large")[1:], quality=quality(CHECKED))
    engine = Engine({"small": [Run(["s"], SURE)], "large": [Run(["l"], SURE)]})
    way = Way(told, engine, chance=lambda: 0.0)
    await way.go()
    assert engine.order == ["large"]
    assert way.metrics.pairs.labels("chat", "failed")._value.get() == 1


@pytest.mark.parametrize("stop", ["", "!"])
async def test_evidence_streams_only_where_a_stop_text_may_end_it(stop: str) -> None:
    request = pb.GenerateRequest(sampling=pb.Sampling(stop=[stop] if stop else []))
    request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
    engine = Engine({"small": [Run(["s"], SURE)], "large": [Run(["l"], SURE)]})
    way = Way(laddered(), engine, chance=lambda: 0.0, request=request)
    await way.go()
    assert [asked.tier.name for asked in engine.asked] == ["small", "large"]
    assert engine.asked[1].streaming is bool(stop)


async def test_evidence_is_no_part_of_what_the_ladder_cost() -> None:
    told = laddered()
    engine = Engine({"small": [Run(["s"], SURE)], "large": [Run(["l"], SURE)]})
    way = Way(told, engine, chance=lambda: 0.0)
    await way.go()
    assert way.state.charges == [told.ladder[0].price.of(2, 1), 0]
    assert way.state.micro_usd > sum(way.state.charges)


def test_costs_may_still_grow_while_something_runs_for_a_request() -> None:
    state = Way(laddered(), Engine({})).begin()
    assert not state.estimated
    state.stay()
    assert state.estimated
    state.leave()
    assert not state.estimated
