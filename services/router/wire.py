"""Decisions and summaries as messages."""

import time
from typing import Any

from pennyweight.router.v1 import router_pb2 as pb
from services.router.journey import Journey
from services.router.policy.decision import CacheOutcome, Decision, Reason
from services.router.ports import Finish

FINISH = {Finish.STOP: pb.FINISH_REASON_STOP, Finish.LENGTH: pb.FINISH_REASON_LENGTH}
REASONS = {one: pb.Reason.Value(f"REASON_{one.name}") for one in Reason}
OUTCOMES = {one: pb.CacheOutcome.Value(f"CACHE_OUTCOME_{one.name}") for one in CacheOutcome}


def decision_message(decision: Decision | None) -> pb.Decision:
    """A decision as callers see it."""
    if decision is None:
        return pb.Decision()
    return pb.Decision(
        route=decision.route,
        policy_version=decision.policy_version,
        tier=decision.tier,
        model=decision.model,
        precision=decision.precision,
        replica=decision.replica,
        reason=REASONS[decision.reason],
        explanation=decision.explanation,
        cache=OUTCOMES[decision.cache],
        fleet_stale=decision.fleet_stale,
    )


def summary_message(journey: Journey) -> pb.Summary:
    """What an answer took."""
    figures, decision = journey.figures, journey.decision
    summary = pb.Summary(
        handle=journey.handle,
        decision=decision_message(decision),
        finish_reason=FINISH[journey.finish],
        usage=pb.Usage(
            prompt_tokens=journey.prompt_tokens,
            output_tokens=journey.output_tokens,
            reused_prompt_tokens=figures.reused_prompt_tokens,
        ),
        cost=pb.Cost(micro_usd=journey.micro_usd, baseline_micro_usd=journey.baseline_micro_usd),
    )
    timings = summary.timings
    set_duration(timings.total, time.monotonic() - journey.arrived)
    if journey.first_text_at is not None:
        set_duration(timings.first_text, journey.first_text_at - journey.arrived)
    if decision is not None and decision.replica:
        set_duration(timings.queued, journey.queued_seconds)
    if figures.engine_seconds is not None:
        set_duration(timings.engine, figures.engine_seconds)
    return summary


def set_duration(message: Any, seconds: float) -> None:
    """Writes seconds, not negative, into a Duration."""
    message.seconds = whole = int(seconds)
    message.nanos = int((seconds - whole) * 1e9)
