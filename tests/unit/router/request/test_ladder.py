"""Requests on a ladder: who answers, what is held back, what it costs, what evidence it leaves."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import orjson
import pytest

from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import BadRequest, Overloaded, Unavailable
from services.router.policy.calibration import SKIPPED, Rung
from services.router.policy.certainty import Measure
from services.router.policy.decision import CacheOutcome, Reason, Verdict
from services.router.policy.difficulty import DifficultyModel
from services.router.policy.routes import (
    Cancel,
    EvidencePolicy,
    Hold,
    JudgeKind,
    Judging,
    Limits,
    Route,
    Tier,
    Trimming,
)
from services.router.ports import Finish, Piece, ReplicaFailed, Written
from services.router.request.plan import Cause
from tests.making.policies import calibrated, ladder, quality, route
from tests.making.walking import Board, Cache, Engine, Listener, Run, Same, Way

SURE, UNSURE = -0.125, -2.0
CHECKED = Rung(1.0, -0.5)
ALWAYS, NEVER = (lambda: 0.0), (lambda: 1.0)


def chat(*rungs: Rung, names: tuple[str, ...] = ("small", "large"), **changes: Any) -> Route:
    wanted = changes.pop("quality", None) or quality(*rungs)
    return route("chat", *ladder(*names), quality=wanted, **changes)


def runs(**scripts: list[Run]) -> Engine:
    return Engine(dict(scripts))


def both(sure: float | None = SURE, small: str = "small says", large: str = "large says") -> Engine:
    return runs(small=[Run([small], sure)], large=[Run([large], SURE)])


async def test_a_sure_answer_of_the_cheap_tier_stands() -> None:
    way = Way(chat(CHECKED), both(SURE))
    assert await way.go() == ["started", "small says"]
    assert way.engine.order == ["small"]
    assert way.decision.reason is Reason.CALIBRATED
    assert way.decision.explanation == (
        "small was sure of its answer (certainty -0.12, at least -0.50 is asked)."
    )
    small, large = way.decision.candidates
    assert (small.verdict, small.certainty) == (Verdict.CHOSEN, SURE)
    assert (small.accept_at_certainty, way.state.charges) == (-0.5, [way.state.micro_usd, 0])
    assert large.verdict is Verdict.NOT_REACHED
    assert way.decision.calibration_version == "2026-11-01-abc"
    assert [one.tier for one in way.cache.stored] == ["small"]
    assert way.in_flight() == 0


async def test_an_unsure_answer_is_never_told_and_the_next_tier_answers() -> None:
    way = Way(chat(CHECKED), both(UNSURE))
    assert await way.go() == ["started", "large says"]
    assert way.state.answer.text == "large says"
    assert way.decision.reason is Reason.ESCALATED
    assert way.decision.explanation == (
        "large answers: small was not sure of its answer (certainty -2.00, at least -0.50 is "
        "asked)."
    )
    small, large = way.decision.candidates
    assert (small.verdict, large.verdict) == (Verdict.UNSURE, Verdict.CHOSEN)
    assert [one.tier for one in way.cache.stored] == ["large"]
    assert way.cache.stored[0].pieces == (("large says", 10),)
    assert way.in_flight() == 0


async def test_both_runs_are_paid_for_and_the_baseline_is_the_top_tier_alone() -> None:
    chat_route = chat(CHECKED)
    way = Way(chat_route, both(UNSURE))
    await way.go()
    small, large = (tier.price.of(2, 10) for tier in chat_route.ladder)
    assert way.state.micro_usd == small + large
    assert way.state.baseline_micro_usd == large
    assert way.state.charges == [small, large]
    assert (way.state.answer.prompt_tokens, way.state.answer.output_tokens) == (2, 10)


@pytest.mark.parametrize("sure", [None, 0.0, math.nan, 0.5])
async def test_unknown_certainty_is_never_certain(sure: float | None) -> None:
    way = Way(chat(CHECKED), both(sure))
    assert await way.go() == ["started", "large says"]
    assert "how sure small was of its answer is not known" in way.decision.explanation


async def test_a_rung_that_asks_for_no_certainty_takes_any_answer() -> None:
    way = Way(chat(Rung(1.0, None)), both(None))
    assert await way.go() == ["started", "small says"]
    assert not way.engine.asked[0].log_probs


async def test_without_a_calibration_the_top_tier_answers() -> None:
    way = Way(chat(quality=quality()), both())
    assert await way.go() == ["started", "large says"]
    assert way.decision.reason is Reason.UNCALIBRATED
    assert way.decision.calibration_version == ""
    assert [one.verdict for one in way.decision.candidates] == [Verdict.UNUSED, Verdict.CHOSEN]
    assert way.cache.accepted == ["large"]


async def test_thresholds_that_could_not_be_certified_send_all_to_the_top_tier() -> None:
    way = Way(chat(SKIPPED), both())
    await way.go()
    assert way.decision.reason is Reason.UNCALIBRATED
    assert "could not be certified" in way.decision.explanation


def predicting(gain: float) -> DifficultyModel:
    return DifficultyModel({}, {}, 0.0, ((0.0, gain),))


@pytest.mark.parametrize(("gain", "tier"), [(0.2, "large"), (0.05, "small")])
async def test_a_tier_is_skipped_outright_where_the_top_one_would_gain_much(
    gain: float, tier: str
) -> None:
    calibration = calibrated(Rung(0.1, -0.5), before=predicting(gain))
    way = Way(chat(quality=quality(calibration=calibration)), both())
    await way.go()
    assert way.engine.order == [tier]
    first = way.decision.candidates[0]
    assert (first.predicted_gain, first.skip_above_gain) == (gain, 0.1)
    if tier == "large":
        assert way.decision.reason is Reason.SKIPPED
        assert "predicted to gain 20.0 points and 10.0 are let through" in way.decision.explanation


async def test_three_tiers_are_climbed_one_by_one() -> None:
    chat_route = chat(CHECKED, CHECKED, names=("tiny", "small", "large"))
    engine = runs(tiny=[Run(["t"], UNSURE)], small=[Run(["s"], SURE)], large=[])
    way = Way(chat_route, engine)
    assert await way.go() == ["started", "s"]
    assert way.engine.order == ["tiny", "small"]
    assert way.decision.reason is Reason.ESCALATED
    verdicts = [one.verdict for one in way.decision.candidates]
    assert verdicts == [Verdict.UNSURE, Verdict.CHOSEN, Verdict.NOT_REACHED]


# --- what is held back ---------------------------------------------------------------------------


async def test_the_whole_answer_is_held_before_a_stream_begins() -> None:
    engine = runs(small=[Run(["one ", "two"], SURE)])
    way = Way(chat(CHECKED), engine)
    assert await way.go() == ["started", "one two"]
    assert engine.asked[0].streaming is False


def first_tokens(**changes: Any) -> Route:
    calibration = calibrated(CHECKED, measure=Measure.FIRST_K)
    return chat(quality=quality(calibration=calibration, hold=Hold.TOKENS), **changes)


async def test_the_first_tokens_are_held_and_the_rest_streams() -> None:
    engine = runs(small=[Run(["on", "e ", "two ", "three"], SURE)])
    way = Way(first_tokens(), engine)
    assert await way.go() == ["started", "one ", "two ", "three"]
    assert engine.asked[0].streaming is True
    (stored,) = way.cache.stored
    assert "".join(text for text, _ in stored.pieces) == "one two three"


@pytest.mark.parametrize("cancel", list(Cancel))
async def test_unsure_first_tokens_end_the_run_at_once(cancel: Cancel) -> None:
    small = Run(["on", "e ", "two ", "three"], UNSURE)
    tiers = ladder("small", "large", cancel=cancel)
    chat_route = route("chat", *tiers, quality=first_tokens().quality)
    way = Way(chat_route, runs(small=[small], large=[Run(["large"], SURE)]))
    assert await way.go() == ["started", "large"]
    assert small.cancelled == (cancel is Cancel.ABORT)
    assert small.finished == (cancel is Cancel.DRAIN)  # read to its end and thrown away
    made = len("one two three") if cancel is Cancel.DRAIN else len("one ")
    assert way.state.charges[0] == tiers[0].price.of(2, made)


async def test_an_answer_shorter_than_the_held_tokens_is_judged_at_its_end() -> None:
    way = Way(first_tokens(), runs(small=[Run(["ok"], SURE)]))
    assert await way.go() == ["started", "ok"]


def wanting(*values: str, **asked: Any) -> pb.GenerateRequest:
    request = pb.GenerateRequest(**asked)
    request.prompt.messages.add(role=pb.ROLE_USER, content="hi")
    if values:
        request.terms.validators.add().one_of.values.extend(values)
    return request


async def test_an_answer_without_the_wanted_form_escalates_however_sure() -> None:
    way = Way(chat(CHECKED), both(SURE), request=wanting("yes", "no"))
    assert await way.go() == ["started", "large says"]
    assert way.decision.candidates[0].verdict is Verdict.INVALID
    assert "did not have the wanted form" in way.decision.explanation


async def test_a_callers_check_holds_the_whole_answer_where_first_tokens_would_do() -> None:
    engine = runs(small=[Run(["ye", "sterday"], SURE)], large=[Run(["yes"], SURE)])
    way = Way(first_tokens(), engine, request=wanting("yes", "no"))
    assert await way.go() == ["started", "yes"]


async def test_a_held_run_that_is_lost_is_tried_elsewhere_from_the_start() -> None:
    lost = Run(["hal", ReplicaFailed("gone", lost=False)], SURE)
    way = Way(chat(CHECKED), runs(small=[lost, Run(["whole"], SURE)]))
    assert await way.go() == ["started", "whole"]
    assert way.state.answer.output_tokens == 5


async def test_a_tier_no_replica_of_which_answers_is_passed_over() -> None:
    dead = [Run([ReplicaFailed("gone", lost=False)]) for _ in range(9)]
    way = Way(chat(CHECKED), runs(small=dead, large=[Run(["large"], SURE)]))
    assert await way.go() == ["started", "large"]
    assert way.engine.order == ["small", "small", "small", "large"]
    assert way.decision.reason is Reason.UNAVAILABLE
    assert way.decision.candidates[0].verdict is Verdict.UNAVAILABLE


async def test_the_top_tiers_failure_is_the_callers() -> None:
    chat_route = chat(CHECKED)
    way = Way(chat_route, both())
    way.fleet.update([])

    async def full(*_: object) -> None:
        raise Overloaded("full", reason="QUEUE_FULL")

    way.fleet.on_place = full
    with pytest.raises(Overloaded):
        await way.go()
    assert way.cache.abandoned == ["lease"]


async def test_a_caller_who_leaves_a_held_run_leaves_its_answer_only_if_it_stands() -> None:
    for sure, stored in ((SURE, ["small"]), (UNSURE, [])):
        gate = asyncio.Event()
        small = Run(["small"], sure)

        async def read(
            timeout_seconds: float, run: Run = small, gate: asyncio.Event = gate
        ) -> Piece:
            await gate.wait()
            return await Run.read(run, timeout_seconds)

        small.read = read  # type: ignore[method-assign]
        way = Way(chat(CHECKED), runs(small=[small]))
        task = asyncio.create_task(way.answer(Listener()))
        while not small.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        gate.set()
        await asyncio.gather(*way.spawned)
        assert [one.tier for one in way.cache.stored] == stored
        assert way.cache.abandoned == ([] if stored else ["lease"])
        assert way.in_flight() == 0


# --- levers and limits ---------------------------------------------------------------------------


async def test_a_halted_tier_is_out_of_use_and_its_stored_answers_too() -> None:
    way = Way(chat(CHECKED), both(), board=Board({"tier:small"}))
    assert await way.go() == ["started", "large says"]
    assert way.decision.reason is Reason.HALTED
    assert way.decision.explanation == "large answers: the lever of small is halted."
    assert way.decision.halted == ("tier:small",)
    assert way.cache.accepted == ["large"]


async def test_a_fixed_tier_that_is_halted_falls_to_the_next_one() -> None:
    chat_route = route("chat", *ladder("small", "large"))
    way = Way(chat_route, both(), board=Board({"tier:small"}))
    assert await way.go() == ["started", "large says"]
    assert way.decision.reason is Reason.HALTED
    free = Way(chat_route, both())
    assert await free.go() == ["started", "small says"]
    assert free.decision.reason is Reason.FIXED_TIER


async def test_a_halted_cache_is_neither_read_nor_written() -> None:
    way = Way(chat(CHECKED), both(), board=Board({"cache"}))
    await way.go()
    assert (way.cache.accepted, way.cache.stored) == ([], [])
    assert way.decision.cache is CacheOutcome.NOT_ASKED


async def test_money_that_does_not_cover_both_runs_skips_the_cheap_one() -> None:
    chat_route = chat(CHECKED)
    small, large = (tier.price.of(2, 64) for tier in chat_route.ladder)
    for most, order in ((small + large, ["small"]), (small + large - 1, ["large"])):
        way = Way(chat(CHECKED, limits=Limits(micro_usd=most)), both())
        await way.go()
        assert way.engine.order == order
    assert way.decision.reason is Reason.LIMITED


async def test_money_caps_the_top_tiers_answer() -> None:
    price = ladder("small", "large")[1].price
    way = Way(chat(quality=quality(), limits=Limits(micro_usd=price.of(2, 5))), both())
    await way.go()
    assert way.engine.asked[0].max_output_tokens == 5


async def test_a_prompt_that_money_does_not_pay_for_is_refused() -> None:
    way = Way(chat(quality=quality(), limits=Limits(micro_usd=1)), both())
    with pytest.raises(BadRequest, match="micro-USD"):
        await way.go()


async def test_no_time_for_two_tiers_goes_straight_to_the_top() -> None:
    way = Way(chat(CHECKED), both())
    for tier in ("small", "large"):
        way.load.add(tier, way.state.context.arrived, first_text=16.0, decode_seconds=0.0, tokens=1)
    await way.go()
    assert way.engine.order == ["large"]
    assert way.decision.reason is Reason.LIMITED


async def test_waits_in_line_leave_out_no_tier() -> None:
    way = Way(chat(CHECKED), runs(small=[Run(["s"], SURE)], large=[]))
    for tier in ("small", "large"):
        arrived = way.state.context.arrived
        way.load.add(tier, arrived, first_text=16.0, decode_seconds=0.0, tokens=1, ran=0.1)
    assert await way.go() == ["started", "s"]


async def test_a_prompt_too_long_for_the_cheap_tier_goes_on_to_a_roomier_one() -> None:
    small, large = ladder("small", "large")
    tight = type(small)(**{**vars(small), "max_sequence_tokens": 3})
    chat_route = route("chat", tight, large, quality=quality(CHECKED))
    way = Way(chat_route, both())
    await way.go()
    assert way.engine.order == ["large"]


async def test_trimming_shortens_what_models_get_and_its_answers_are_stored_apart() -> None:
    request = wanting()
    request.prompt.messages[0].content = "a     b"
    chat_route = chat(quality=quality(), trimming=Trimming(white_space=True))
    way = Way(chat_route, both(), request=request)
    await way.go()
    assert bytes(way.engine.asked[0].prompt.tokens) == b"a b"
    assert way.state.context.checked.asked.messages[0].content == "a     b"
    assert way.cache.asked == ["a b", "a b"]
    assert (way.state.answer.prompt_tokens, way.state.baseline_prompt_tokens) == (3, 7)
    assert way.state.micro_usd == chat_route.top_tier.price.of(3, 10)
    assert way.state.baseline_micro_usd == chat_route.top_tier.price.of(7, 10)
    halted = Way(chat_route, both(), request=request, board=Board({"trimming"}))
    await halted.go()
    assert bytes(halted.engine.asked[0].prompt.tokens) == b"a     b"
    assert halted.cache.asked == ["a     b", "a     b"]


# --- paired evidence -----------------------------------------------------------------------------


async def test_a_drawn_request_is_answered_by_every_tier_behind_the_callers_back() -> None:
    way = Way(chat(CHECKED), both(SURE), chance=ALWAYS)
    assert await way.go() == ["started", "small says"]
    assert way.engine.order == ["small", "large"]
    assert way.engine.asked[1].log_probs
    (pair,) = way.shelf.records
    assert (pair["kind"], pair["answered"], pair["propensity"]) == ("pair", "small", 0.05)
    assert [one["quality"] for one in pair["tiers"]] == [0.0, 1.0]
    assert pair["tiers"][0]["certainty"] == {"mean": SURE, "minimum": SURE, "first_k": SURE}
    assert pair["tiers"][1]["micro_usd"] == pair["shadow_micro_usd"]
    assert pair["digests"] == ["<small says>", "<large says>"]
    assert pair["text"] is None
    assert "says" not in str({key: value for key, value in pair.items() if key != "digests"})
    assert way.board.samples == [({"tier:small": 1.0}, 1.0)]
    assert way.state.micro_usd == sum(tier["micro_usd"] for tier in pair["tiers"])
    assert [attempt.cause for attempt in way.ended] == [Cause.FIRST, Cause.EVIDENCE]


async def test_an_escalated_request_needs_no_shadow_run_and_lost_nothing() -> None:
    way = Way(chat(CHECKED), both(UNSURE), chance=ALWAYS)
    await way.go()
    assert way.engine.order == ["small", "large"]
    (pair,) = way.shelf.records
    assert (pair["answered"], pair["shadow_micro_usd"]) == ("large", 0)
    assert way.board.samples == [({"tier:small": 0.0}, 1.0)]


async def test_evidence_grows_while_a_route_is_uncalibrated_or_halted() -> None:
    way = Way(chat(quality=quality()), both(), chance=ALWAYS)
    await way.go()
    (pair,) = way.shelf.records
    assert (pair["propensity"], len(pair["tiers"])) == (0.2, 2)
    assert way.board.samples == [({}, 0.25)]
    halted = Way(chat(CHECKED), both(), chance=ALWAYS, board=Board({"tier:small"}))
    await halted.go()
    assert halted.shelf.records[0]["propensity"] == 0.2


async def test_a_request_that_is_not_drawn_leaves_no_pair() -> None:
    way = Way(chat(CHECKED), both(), chance=NEVER)
    await way.go()
    assert (way.engine.order, way.shelf.records) == (["small"], [])
    edge = Way(chat(CHECKED), both(), chance=lambda: 0.05)
    await edge.go()
    assert edge.shelf.records == []


def stored(text: str) -> Written:
    return Written(((text, len(text)),), Finish.STOP, 2, len(text), "small", "small", "int8", "v")


async def test_a_drawn_stored_answer_is_compared_with_the_top_tiers() -> None:
    way = Way(chat(CHECKED), both(), chance=ALWAYS, cache=Cache(answer=stored("old news")))
    assert await way.go() == ["started", "old news"]
    assert way.engine.order == ["large"]
    (pair,) = way.shelf.records
    assert (pair["kind"], pair["qualities"]) == ("cached_pair", [0.0, 1.0])
    assert [one["quality"] for one in pair["tiers"]] == [1.0]
    assert way.board.samples == [({"cache": 1.0}, 1.0)]


@pytest.mark.parametrize(("writer", "tells"), [("small", "yes"), ("large", "old news")])
async def test_a_stored_answer_of_a_lower_tier_must_have_the_wanted_form(
    writer: str, tells: str
) -> None:
    answer = replace(stored("old news"), tier=writer)
    engine = runs(small=[Run(["yes"], SURE)])
    way = Way(chat(CHECKED), engine, cache=Cache(answer=answer), request=wanting("yes", "no"))
    assert await way.go() == ["started", tells]
    outcome = CacheOutcome.EXACT if writer == "large" else CacheOutcome.MISS
    assert way.decision.cache is outcome


async def test_trimming_is_compared_with_the_whole_prompt_on_the_top_tier() -> None:
    request = wanting()
    request.prompt.messages[0].content = "a     b"
    engine = runs(small=[Run(["x"], SURE)], large=[Run(["trimmed"], SURE), Run(["whole"], SURE)])
    chat_route = chat(CHECKED, trimming=Trimming(white_space=True))
    way = Way(chat_route, engine, request=request, chance=ALWAYS)
    await way.go()
    assert engine.order == ["small", "large", "large"]
    assert bytes(engine.asked[2].prompt.tokens) == b"a     b"
    assert way.board.samples == [({"tier:small": 0.0, "trimming": 1.0}, 1.0)]
    assert way.judge.asked == [("x", "trimmed", "whole")]


async def test_a_silent_judge_leaves_the_pair_unjudged() -> None:
    way = Way(chat(CHECKED), both(), chance=ALWAYS, judge=Same(silent=True))
    await way.go()
    (pair,) = way.shelf.records
    assert [one["quality"] for one in pair["tiers"]] == [None, None]
    assert way.board.samples == []


async def test_a_pair_may_wait_for_its_outcome() -> None:
    evidence = EvidencePolicy(judge=Judging(kind=JudgeKind.OUTCOME))
    chat_route = chat(quality=quality(CHECKED, evidence=evidence))
    way = Way(chat_route, both(), chance=ALWAYS, judge=Same(silent=True))
    await way.go()
    assert orjson.loads(way.shelf.values["pair:1"]) == {
        "route": "chat",
        "calibration": "2026-11-01-abc",
        "answered": 0,
        "digests": ["<small says>", "<large says>"],
        "weight": 1.0,
        "losses_of": {"tier:small": [1, 0]},
    }
    assert way.shelf.settled == [("chat", "1")]


async def test_texts_are_kept_only_where_the_route_wants_them() -> None:
    chat_route = chat(quality=quality(CHECKED, evidence=EvidencePolicy(keep_text=True)))
    way = Way(chat_route, both(), chance=ALWAYS)
    await way.go()
    assert way.shelf.records[0]["text"] == {
        "messages": [{"role": "user", "content": "hi"}],
        "answers": ["small says", "large says"],
    }


async def test_a_pair_that_finds_no_room_is_given_up_and_nobody_notices() -> None:
    way = Way(chat(CHECKED), runs(small=[Run(["s"], SURE)], large=[]), chance=ALWAYS)

    async def busy(tier: Tier, *_: object) -> None:
        if tier.name == "large":
            raise Unavailable("no room", reason="NO_REPLICA")

    way.fleet.on_place = busy
    assert await way.go() == ["started", "s"]
    assert way.shelf.records == []
    assert way.metrics.pairs.labels("chat", "failed")._value.get() == 1
    assert way.in_flight() == 0


async def test_pairs_are_bounded_and_end_at_a_stop() -> None:
    evidence = EvidencePolicy(most_running=1)
    chat_route = chat(quality=quality(CHECKED, evidence=evidence))
    way = Way(chat_route, both(), chance=ALWAYS)
    never = asyncio.Event()

    async def waits(*_: object) -> None:
        await never.wait()

    await way.answer(Listener())
    way.fleet.on_place = waits
    for _ in range(3):
        await asyncio.sleep(0)
    way.pairs.gather(way.state)
    assert way.metrics.pairs.labels("chat", "left_out")._value.get() == 1
    way.pairs.stop()
    await asyncio.wait_for(asyncio.gather(*way.spawned), 5)
    assert way.metrics.pairs.labels("chat", "failed")._value.get() == 1


async def test_explaining_finds_a_stored_answer_as_a_request_would() -> None:
    chat_route = chat(CHECKED, limits=Limits(micro_usd=1))  # pays for no tier
    way = Way(chat_route, both(), cache=Cache(answer=stored("old news")))
    assert await way.path.explain(way.state) == 0
    assert (way.decision.reason, way.decision.tier) == (Reason.CACHED, "small")
    assert way.state.answer.prompt_tokens == 2


async def test_explaining_runs_nothing_and_names_the_first_turn() -> None:
    way = Way(chat(CHECKED), both(), chance=ALWAYS)
    chat_route = chat(CHECKED)
    most = await way.path.explain(way.state)
    assert way.engine.order == []
    assert most == sum(tier.price.of(2, 64) for tier in chat_route.ladder)
    assert way.decision.tier == "small"
    assert way.decision.propensity == 0.05
    assert way.decision.candidates[0].verdict is Verdict.CHOSEN
