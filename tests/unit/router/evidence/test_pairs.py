"""What evidence must not do, and what it must say: bounds, priority, stores, forms, money."""

import asyncio
from typing import Any

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from services.router.policy.line import Priority
from services.router.policy.routes import EvidencePolicy, Hold, Route, Tier
from services.router.ports import Piece
from tests.making.policies import calibrated, ladder, quality, route
from tests.making.walking import Engine, Listener, Run, Way

SURE, UNSURE = -0.125, -2.0
CHECKED = Rung(1.0, -0.5)


def always() -> float:
    return 0.0


def chat(rung: Rung = CHECKED, **changes: Any) -> Route:
    return route("chat", *ladder("small", "large"), quality=quality(rung, **changes))


def both(small: str = "small", large: str = "large") -> Engine:
    return Engine({"small": [Run([small], SURE)], "large": [Run([large], SURE)]})


def count(way: Way, what: str) -> float:
    counted: float = way.metrics.pairs.labels("chat", what)._value.get()
    return counted


async def test_shadow_runs_have_the_lowest_priority_and_store_nothing() -> None:
    way = Way(chat(), both(), chance=always)
    asked: list[tuple[str, Priority]] = []

    async def noting(tier: Tier, priority: Priority, until: float) -> None:
        asked.append((tier.name, priority))

    way.fleet.on_place = noting
    await way.go()
    assert asked == [("small", Priority.INTERACTIVE), ("large", Priority.BACKGROUND)]
    assert [one.tier for one in way.cache.stored] == ["small"]


async def test_room_for_pairs_comes_back_when_they_end() -> None:
    engine = Engine({name: [Run(["x"], SURE) for _ in range(3)] for name in ("small", "large")})
    way = Way(chat(evidence=EvidencePolicy(most_running=1)), engine, chance=always)
    await way.go()
    for _ in range(2):
        way.state.attempts.clear()
        way.pairs.gather(way.state)
        await asyncio.gather(*way.spawned)
    assert (count(way, "judged"), count(way, "left_out")) == (3, 0)


async def test_a_router_that_stops_begins_no_pair() -> None:
    way = Way(chat(), both(), chance=always)
    way.pairs.stop()
    await way.go()
    assert way.engine.order == ["small"]
    assert count(way, "left_out") == 1


async def test_a_pair_that_takes_too_long_is_given_up() -> None:
    large = Run(["large"], SURE)

    async def hangs(seconds: float) -> Piece:
        await asyncio.Event().wait()
        raise AssertionError

    large.read = hangs  # type: ignore[method-assign]
    engine = Engine({"small": [Run(["small"], SURE)], "large": [large]})
    way = Way(chat(evidence=EvidencePolicy(seconds=0.05)), engine, chance=always)
    await asyncio.wait_for(way.go(), 10)
    assert count(way, "failed") == 1
    assert large.cancelled
    assert way.in_flight() == 0


async def test_what_was_cut_short_is_asked_again_whole() -> None:
    calibration = calibrated(CHECKED, measure=Measure.FIRST_K)
    asked = route(
        "chat",
        *ladder("small", "large"),
        quality=quality(calibration=calibration, hold=Hold.TOKENS),
    )
    engine = Engine(
        {
            "small": [Run(["on", "e ", "two"], UNSURE), Run(["one two"], UNSURE)],
            "large": [Run(["large"], SURE)],
        }
    )
    way = Way(asked, engine, chance=always)
    await way.go()
    assert engine.order == ["small", "large", "small"]
    assert way.judge.asked == [("one two", "large")]


async def test_a_pair_says_which_answers_had_the_wanted_form() -> None:
    request = pb.GenerateRequest()
    request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
    request.terms.validators.add().one_of.values.append("yes")
    asked = route("chat", *ladder("small", "large"), quality=quality())
    way = Way(asked, both("perhaps", "yes"), chance=always, request=request)
    await way.go()
    (pair,) = way.shelf.records
    assert [one["valid"] for one in pair["tiers"]] == [False, True]


def request_of(text: str, **sampling: float) -> pb.GenerateRequest:
    request = pb.GenerateRequest()
    request.prompt.messages.add(role=pb.ROLE_SYSTEM, content="Be short.")
    request.prompt.messages.add(role=pb.ROLE_USER, content=text)
    for name, value in sampling.items():
        setattr(request.sampling, name, value)
    return request


async def test_a_pair_names_its_question_the_same_for_all_who_ask_it() -> None:
    named = []
    other_form = request_of("where is my card")
    other_form.prompt.response_format.regex = "yes|no"
    for request in (
        request_of("where is my card"),
        request_of("where is my card", temperature=0.7),
        other_form,
        request_of("where is my purse"),
    ):
        way = Way(chat(), both(), chance=always, request=request)
        await way.go()
        (pair,) = way.shelf.records
        named.append(pair["question"])
    assert named[0] == "<system\n\nBe short.\n\nuser\n\nwhere is my card>"  # `Way` digests so
    assert named[0] == named[1]
    assert len(set(named)) == 3


async def test_the_certainty_of_a_drawn_answer_is_known_though_nobody_asks_for_it() -> None:
    way = Way(chat(Rung(1.0, None)), both(), chance=always)
    await way.go()
    assert [run.asked.log_probs for _, run in way.engine.started] == [True, True]
    assert way.shelf.records[0]["tiers"][0]["certainty"]["mean"] == SURE


@pytest.mark.parametrize("blocks_at", [0, 1])
async def test_a_caller_who_leaves_leaves_no_evidence_but_what_it_cost(blocks_at: int) -> None:
    way = Way(chat(), both(), chance=always)
    await way.hang_up(Listener(blocks_at))
    assert way.engine.order == ["small"]
    assert way.state.micro_usd > 0


async def test_a_question_is_named_in_its_tenants_turn_among_long_texts() -> None:
    way = Way(chat(), both(), chance=always, request=request_of("where is my card"))
    work, asked = way.pairs._long_work.run, []

    async def noted(made: Any, size: int, **about: Any) -> Any:
        asked.append((about["tenant"], about["priority"], size))
        return await work(made, size, **about)

    way.pairs._long_work.run = noted  # type: ignore[method-assign]
    await way.go()
    (pair,) = way.shelf.records
    assert asked == [("acme", Priority.BATCH, len(pair["question"]) - len("<>"))]
