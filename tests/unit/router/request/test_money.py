"""Money is true: each token an engine makes is charged to exactly one request, whoever left early.

The engine here counts what it makes by itself; what the ledger would say is held against that.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, InternalError, ServiceError, Unavailable
from services.router.ledger.request_record import record_of
from services.router.policy.calibration import Rung
from services.router.policy.certainty import Measure
from services.router.policy.routes import CachePolicy, Cancel, EvidencePolicy, Hold, Limits, Route
from services.router.ports import EngineRequest, ReplicaFailed
from services.router.request.context import RequestState
from tests.making.counting import CountingEngine, CountingRun, SharingCache
from tests.making.policies import calibrated, ladder, quality, route
from tests.making.walking import Listener, Way

SURE, UNSURE = -0.125, -2.0
CHECKED = Rung(1.0, -0.5)


def asking(content: str = "hi", stop: str = "") -> pb.GenerateRequest:
    request = pb.GenerateRequest(route="chat")
    request.prompt.messages.add(role=pb.ROLE_USER, content=content)
    if stop:
        request.sampling.stop.append(stop)
    return request


def chat(cancel: Cancel = Cancel.ABORT, **changes: Any) -> Route:
    """Always the large tier, shared by those who ask the same."""
    return route("chat", *ladder("large", cancel=cancel), **changes)


def laddered(cancel: Cancel = Cancel.ABORT, hold: Hold = Hold.ANSWER, share: float = 0.0) -> Route:
    measure = Measure.FIRST_K if hold is Hold.TOKENS else Measure.MEAN
    asked = quality(
        calibration=calibrated(CHECKED, measure=measure),
        hold=hold,
        evidence=EvidencePolicy(share=share, share_until_calibrated=share, most_running=100),
    )
    return route("chat", *ladder("small", "large", cancel=cancel), quality=asked)


def scene(
    told: Route,
    text: str = "a long answer",
    *,
    sure: float = SURE,
    says: bool = True,
    streaming: bool = True,
    chance: float = 1.0,
) -> tuple[Way, CountingEngine]:
    engine = CountingEngine(lambda _: {"text": text, "sure": sure, "dies_at": None, "says": says})
    way = Way(
        told,
        engine,  # type: ignore[arg-type]
        cache=SharingCache(),  # type: ignore[arg-type]
        streaming=streaming,
        chance=lambda: chance,
    )
    return way, engine


def wait(way: Way) -> None:
    way.now += 30.0


def check(way: Way, runs: list[CountingRun]) -> None:
    """What the ledger says is what the engine made, and nothing stays behind."""
    attempts = [attempt for state in way.settled for attempt in state.attempts]
    assert sorted(id(attempt.call) for attempt in attempts) == sorted(map(id, runs))
    for attempt in attempts:
        assert attempt.output_tokens == attempt.call.made  # type: ignore[union-attr]
        assert attempt.ending is not None
        assert attempt.ended_at is not None
    records = [record_of(state, 0.0) for state in way.settled]
    assert sum(one.output_tokens for record in records for one in record.attempts) == sum(
        run.made for run in runs
    )
    prices = {tier.name: tier.price for tier in way.state.context.route.ladder}
    for record in records:
        assert record.micro_usd == sum(
            prices[one.tier].of(one.prompt_tokens, one.output_tokens) for one in record.attempts
        )
        assert sum(one.committed for one in record.attempts) <= 1
    assert way.in_flight() == 0
    assert all(run.over for run in runs)


async def leave(way: Way, state: RequestState, turns: int) -> None:
    """Goes on a request's way, and hangs up after so many turns of the loop."""
    task = asyncio.create_task(way.answer(Listener(), state))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_leader_who_leaves_pays_for_the_run_that_goes_on_for_its_follower(
    *, streaming: bool
) -> None:
    way, engine = scene(chat(), streaming=streaming)
    leader, follower = way.begin(), way.begin()
    leading = asyncio.create_task(way.answer(Listener(), leader))
    for _ in range(6):
        await asyncio.sleep(0)
    following = asyncio.create_task(way.answer(Listener(), follower))
    await asyncio.sleep(0)
    leading.cancel()
    await asyncio.wait((leading, following))
    await way.rest()
    price = way.state.context.route.top_tier.price
    (run,) = engine.runs
    assert leader.micro_usd == price.of(2, run.made) == price.of(2, len("a long answer"))
    assert (follower.micro_usd, follower.answer.output_tokens) == (0, run.made)
    assert [attempt.ending for attempt in leader.attempts] == ["outlived"]
    # What the leader would have cost alone ends where it left: its run is no saving of anybody.
    assert leader.baseline_micro_usd <= leader.micro_usd
    assert follower.baseline_micro_usd == price.of(2, run.made)
    check(way, engine.runs)


async def test_a_run_that_must_drain_is_charged_to_its_end() -> None:
    way, engine = scene(
        chat(cancel=Cancel.DRAIN, cache=CachePolicy(use=False, ttl_seconds=1.0, wait_seconds=1.0))
    )
    await leave(way, way.state, 6)
    before = engine.runs[0].made
    assert way.settled == []  # its record waits for the run
    await way.rest()
    assert engine.runs[0].made == len("a long answer") > before
    check(way, engine.runs)


@pytest.mark.parametrize("says", [True, False])
async def test_a_whole_answer_that_is_cancelled_costs_what_was_made(*, says: bool) -> None:
    way, engine = scene(chat(), streaming=False, says=says)
    await leave(way, way.state, 10)
    await way.rest()
    (attempt,), (run,) = way.state.attempts, engine.runs
    assert run.made > 0
    assert attempt.estimated is not says
    record = record_of(way.state, 0.0)
    assert record.estimated is not says
    assert record.attempts[0].prompt_tokens == 2
    if says:
        check(way, engine.runs)


async def test_what_no_engine_says_is_estimated_from_the_tiers_pace() -> None:
    way, engine = scene(chat(), "x" * 40, streaming=False, says=False)
    way.runner.paces.note("large", 40.0, 20)  # two seconds a token
    task = asyncio.create_task(way.answer(Listener(), way.state))
    while not engine.runs:
        await asyncio.sleep(0)
    way.now += 30.0
    task.cancel()
    await asyncio.wait((task,))
    await way.rest()
    (attempt,) = way.state.attempts
    assert (attempt.output_tokens, attempt.estimated) == (15, True)


async def test_a_run_that_dies_at_once_for_nobody_has_no_tokens() -> None:
    way, engine = scene(chat(), streaming=False)
    engine.script = lambda _: {"text": "abc", "sure": SURE, "dies_at": 0, "says": True}
    leader, follower = way.begin(), way.begin()
    leading = asyncio.create_task(way.answer(Listener(), leader))
    await asyncio.sleep(0)
    following = asyncio.create_task(way.answer(Listener(), follower))
    leading.cancel()
    await asyncio.wait((leading, following))
    await way.rest()
    check(way, engine.runs)
    assert {attempt.ending for attempt in leader.attempts} == {"failed"}


@pytest.mark.parametrize(
    ("failure", "tokens", "estimated"),
    [
        (ReplicaFailed("the connection broke", lost=True), 15, True),
        (ReplicaFailed("it fell silent", lost=True, silent=True), 0, True),
        (InternalError("a step failed"), 15, True),
        (ReplicaFailed("full", lost=False), 0, False),
        (ReplicaFailed("not ready", lost=True, refused=True), 0, False),
        (BadRequest("too odd"), 0, False),
    ],
)
async def test_a_failed_attempt_costs_what_its_engine_may_have_made(
    failure: Exception, tokens: int, *, estimated: bool
) -> None:
    way, engine = scene(chat(), streaming=False)
    way.runner.paces.note("large", 40.0, 20)  # two seconds a token

    def script(_: EngineRequest) -> dict[str, Any]:
        told = {"text": "x" * 40, "sure": None, "dies_at": None, "says": False}
        return told if engine.runs else {**told, "fails": failure, "meanwhile": lambda: wait(way)}

    engine.script = script
    with suppress(ServiceError):
        await way.go()
    attempt = way.state.attempts[0]
    assert (attempt.output_tokens, attempt.estimated) == (tokens, estimated)
    assert attempt.prompt_tokens == (2 if tokens else 0)


async def test_waiting_for_the_last_word_is_not_charged() -> None:
    way, engine = scene(chat(), "x" * 40, streaming=False, says=False)
    way.runner.paces.note("large", 40.0, 20)  # two seconds a token

    engine.script = lambda _: {
        "text": "x" * 40,
        "sure": None,
        "dies_at": None,
        "says": False,
        "meanwhile": lambda: wait(way),
    }
    await leave(way, way.state, 10)
    await way.rest()
    assert [attempt.output_tokens for attempt in way.state.attempts] == [0]


@pytest.mark.parametrize(
    ("affords", "dies_at", "status"),
    [(40, 12, "OK"), (4, 1, "UNAVAILABLE")],  # a shorter answer in the end, or none
)
async def test_retries_stay_within_the_routes_money(
    affords: int, dies_at: int, status: str
) -> None:
    budget = ladder("large")[0].price.of(2, affords)
    way, engine = scene(chat(limits=Limits(micro_usd=budget)))
    engine.script = lambda _: {"text": "x" * 40, "sure": SURE, "dies_at": dies_at, "says": True}
    way.state = way.begin(asking(stop="zzz"), streaming=False)
    try:
        await way.go()
        found = "OK"
    except Unavailable as error:
        found = error.code.name
    assert found == status
    assert len(way.state.attempts) > 1
    assert way.state.micro_usd <= budget
    check(way, engine.runs)


async def test_nobody_saves_by_hanging_up() -> None:
    way, _ = scene(chat(), streaming=False)
    await leave(way, way.state, 4)
    await way.rest()
    assert not way.state.committed
    assert way.state.baseline_micro_usd == 0


async def test_a_summary_says_that_evidence_may_still_be_charged() -> None:
    way, _ = scene(laddered(share=1.0), chance=0.0)
    await way.answer(Listener())
    assert way.state.estimated
    await way.rest()
    assert not way.state.estimated


async def test_a_tier_whose_lower_one_failed_is_a_retry() -> None:
    way, engine = scene(laddered())
    engine.script = lambda request: {
        "text": "abc",
        "sure": SURE,
        "dies_at": 0 if request.tier.name == "small" else None,
        "says": True,
    }
    await way.go()
    assert {attempt.cause for attempt in way.state.attempts[1:]} == {"retry"}
    assert way.state.attempts[-1].ending == "stood"


async def test_both_tiers_of_a_ladder_that_is_cancelled_are_charged() -> None:
    way, engine = scene(laddered(), sure=UNSURE, streaming=False)
    task = asyncio.create_task(way.answer(Listener(), way.state))
    while len(engine.runs) < 2 or engine.runs[1].made < 4:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await way.rest()
    small, large = way.state.context.route.ladder
    made = [run.made for run in engine.runs]
    assert way.state.micro_usd == small.price.of(2, made[0]) + large.price.of(2, made[1])
    assert [attempt.ending for attempt in way.state.attempts] == ["unsure", "left"]
    check(way, engine.runs)


async def test_an_answer_that_a_stop_text_ends_costs_the_same_streamed_and_whole() -> None:
    costs = set()
    for streaming in (True, False):
        way, engine = scene(chat(), "one two three four five", streaming=streaming)
        way.state = way.begin(asking(stop="two"), streaming=streaming)
        await way.go()
        assert way.state.answer.text == "one "
        assert engine.runs[0].made < len("one two three four five")  # ended from our side
        costs.add(way.state.micro_usd)
        check(way, engine.runs)
    assert len(costs) == 1


async def test_an_empty_answer_is_shared_and_stored() -> None:
    way, engine = scene(chat(), "stop and more")
    states = [way.begin(asking(stop="stop")) for _ in range(8)]
    await asyncio.gather(*(way.answer(Listener(), state) for state in states))
    await way.answer(Listener(), late := way.begin(asking(stop="stop")))
    await way.rest()
    assert len(engine.runs) == 1
    assert {state.answer.text for state in (*states, late)} == {""}
    assert late.micro_usd == 0
    check(way, engine.runs)


async def test_a_refused_prompt_has_no_tokens() -> None:
    told = chat(limits=Limits(micro_usd=1))
    way, _ = scene(told)
    way.state = way.begin(asking("a prompt that costs more than one micro-USD, to be sure"))
    with pytest.raises(BadRequest, match="micro-USD"):
        await way.go()
    record = record_of(way.state, 0.0)
    assert (record.prompt_tokens, record.micro_usd, record.attempts) == (0, 0, ())


async def test_evidence_is_charged_to_the_request_that_was_drawn() -> None:
    way, engine = scene(laddered(share=1.0), chance=0.0)
    await way.go()
    assert [attempt.cause for attempt in way.state.attempts] == ["first", "evidence"]
    small, large = way.state.context.route.ladder
    made = len("a long answer")
    assert way.state.micro_usd == small.price.of(2, made) + large.price.of(2, made)
    check(way, engine.runs)


async def test_tokens_of_a_stored_answer_are_all_of_them() -> None:
    way, engine = scene(chat(), "one two three")
    first = way.begin(asking(stop="three"))
    await way.answer(Listener(), first)
    await way.rest()
    (answer,) = way.cache.answers.values()  # type: ignore[attr-defined]
    assert sum(tokens for _, tokens in answer.pieces) == answer.output_tokens
    assert answer.output_tokens == engine.runs[0].made


# --- histories -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One request of a history.

    Attributes:
        question: by number; equal ones may share an answer.
        after: turns of the loop before it comes.
        leaves: turns after which its caller hangs up; None stays.
        streaming: it wants pieces.
        stops: a stop text ends its answer.
    """

    question: int
    after: int
    leaves: int | None
    streaming: bool
    stops: bool


asks = st.builds(
    Ask,
    question=st.integers(0, 2),
    after=st.integers(0, 30),
    leaves=st.none() | st.integers(1, 40),
    streaming=st.booleans(),
    stops=st.booleans(),
)
behaviours = st.fixed_dictionaries(
    {
        "text": st.text(alphabet="abc", min_size=1, max_size=24),
        "sure": st.sampled_from([SURE, UNSURE]),
        "dies_at": st.none() | st.none() | st.integers(0, 12),
        "says": st.just(value=True),
    }
)
routes = st.one_of(
    st.builds(chat, st.sampled_from(Cancel)),
    st.builds(
        laddered, st.sampled_from(Cancel), st.sampled_from(Hold), st.sampled_from([0.0, 1.0])
    ),
)


@settings(max_examples=300)
@given(
    told=routes,
    history=st.lists(asks, min_size=1, max_size=8),
    runs=st.lists(behaviours, min_size=1, max_size=6),
)
def test_the_ledger_is_what_the_engine_made_whatever_happens(
    told: Route, history: list[Ask], runs: list[dict[str, Any]]
) -> None:
    async def play() -> None:
        started = 0

        def script(_: EngineRequest) -> dict[str, Any]:
            nonlocal started
            started += 1
            return runs[started % len(runs)]

        engine = CountingEngine(script)
        way = Way(told, engine, cache=SharingCache(), chance=lambda: 0.5)  # type: ignore[arg-type]

        async def one(ask: Ask) -> None:
            for _ in range(ask.after):
                await asyncio.sleep(0)
            stop = "bb" if ask.stops else ""
            state = way.begin(asking(f"q{ask.question}", stop), streaming=ask.streaming)
            task = asyncio.create_task(way.answer(Listener(), state))
            if ask.leaves is not None:
                for _ in range(ask.leaves):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()

        await asyncio.gather(*map(one, history))
        await way.rest()
        assert len(way.settled) == len(history)
        check(way, engine.runs)
        assert not way.cache.leases  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(play(), 60))
