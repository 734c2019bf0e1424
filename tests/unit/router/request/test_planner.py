"""What one tier is to do: tokens that the money left pays for, and evidence in whatever room is."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest
from services.router.policy.calibration import Rung
from services.router.policy.decision import CacheOutcome, Verdict
from services.router.policy.prompts import Message
from services.router.policy.routes import Limits, Route, Trimming
from services.router.ports import Finish, ReplicaFailed, TooLong, Written
from services.router.request.runner import MAX_TRIES_BELOW
from tests.making.policies import ladder, quality, route, tier
from tests.making.walking import Cache, Engine, Letters, Listener, Run, Way

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


@pytest.mark.parametrize("spare", [0, 1])
async def test_the_cache_is_asked_about_no_prompt_that_fits_no_tier(spare: int) -> None:
    small, large = ladder("small", "large")
    sizes = {small.name: 9_000, large.name: 10_000}
    tiers = [tier(name, max_sequence_tokens=size) for name, size in sizes.items()]
    told = route("chat", *tiers, quality=quality(CHECKED))
    request = pb.GenerateRequest()
    request.prompt.messages.add(role=pb.ROLE_USER, content="x" * (10_000 - spare))
    stored = Written((("stored", 6),), Finish.STOP, 2, 6, "large", "large", "int8", "version")
    cache = Cache(answer=stored)
    way = Way(told, Engine({}), cache=cache, request=request)
    if spare:
        await way.answer(Listener())
        assert way.state.cache is CacheOutcome.EXACT
    else:
        with pytest.raises(BadRequest, match="large takes fewer than 10000 tokens, got at least"):
            await way.answer(Listener())
        assert cache.asked == []


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


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limit of each look at how many tokens a prompt has."""
    limits: list[int] = []
    inner = Letters.encode_below

    def encode_below(text: Letters, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
        limits.append(limit)
        return inner(text, messages, limit)

    monkeypatch.setattr(Letters, "encode_below", encode_below)
    return limits


def asking(letters: int) -> pb.GenerateRequest:
    request = pb.GenerateRequest()
    request.prompt.messages.add(role=pb.ROLE_USER, content="x" * letters)
    return request


@pytest.mark.parametrize(
    ("tokenizers", "limits"), [(("one", "one"), [512]), (("one", "another"), [40, 512])]
)
async def test_a_prompt_is_looked_at_once_for_each_tokenizer(
    looked: list[int], tokenizers: tuple[str, str], limits: list[int]
) -> None:
    small = tier("small", max_sequence_tokens=40, tokenizer=tokenizers[0])
    (large,) = (replace(one, tokenizer=tokenizers[1]) for one in ladder("s", "large")[1:])
    told = route("chat", small, large, quality=quality(CHECKED))
    engine = Engine({"large": [Run(["l"], SURE)]})
    way = Way(told, engine, request=asking(40))
    await way.go()
    assert engine.order == ["large"]
    assert [one.verdict for one in way.decision.candidates] == [Verdict.LIMITED, Verdict.CHOSEN]
    assert looked == limits


async def test_what_fits_no_tier_is_looked_at_once_and_refused(looked: list[int]) -> None:
    told = route("chat", *ladder("small", "large"), quality=quality(CHECKED))
    way = Way(told, Engine({}), request=asking(600))
    with pytest.raises(BadRequest, match="large takes fewer than 512 tokens, got at least 600"):
        await way.go()
    assert looked == [512]
    assert way.cache.abandoned == ["lease"]


async def test_a_trimmed_prompt_is_counted_against_as_much_of_the_whole_as_is_known(
    looked: list[int],
) -> None:
    request = asking(10)
    request.prompt.context.add(text="y" * 600, relevance=0.1)
    request.prompt.context.add(text="z" * 5, relevance=0.9)
    told = route(
        "chat", *ladder("small", "large"), quality=quality(), trimming=Trimming(passages=1)
    )
    way = Way(told, Engine({"large": [Run(["l"], SURE)]}), request=request)
    await way.go()
    assert way.state.answer.prompt_tokens == 17
    assert way.state.baseline_prompt_tokens == 619
    assert looked == [512, 512]


def test_costs_may_still_grow_while_something_runs_for_a_request() -> None:
    state = Way(laddered(), Engine({})).begin()
    assert not state.estimated
    state.stay()
    assert state.estimated
    state.leave()
    assert not state.estimated
