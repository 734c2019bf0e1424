"""Routes, decisions and summaries as messages."""

from pennyweight.router.v1 import router_pb2 as pb
from services.common.durations import set_seconds, set_time
from services.common.refusal import Refusal
from services.router.fleet.fleet import Fleet
from services.router.policy.decision import CacheOutcome, Candidate, Decision, Reason, Verdict
from services.router.policy.routes import Quality, Route, Tier
from services.router.ports import Finish
from services.router.request.context import RequestState

FINISH = {Finish.STOP: pb.FINISH_REASON_STOP, Finish.LENGTH: pb.FINISH_REASON_LENGTH}
REASONS = {reason: pb.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
VERDICTS = {verdict: pb.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
OUTCOMES = {
    outcome: pb.CacheOutcome.Value(f"CACHE_OUTCOME_{outcome.name}") for outcome in CacheOutcome
}


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
        candidates=[_candidate(candidate) for candidate in decision.candidates],
        calibration_version=decision.calibration_version,
        evidence_propensity=decision.propensity,
        halted_levers=decision.halted,
    )


def _candidate(candidate: Candidate) -> pb.Candidate:
    return pb.Candidate(
        tier=candidate.tier,
        verdict=VERDICTS[candidate.verdict],
        predicted_gain=candidate.predicted_gain,
        skip_above_gain=candidate.skip_above_gain,
        certainty=candidate.certainty,
        accept_at_certainty=candidate.accept_at_certainty,
    )


def refusal_message(refusal: Refusal, *, operator: bool) -> pb.PolicyRefusal:
    """Why changed policy files are not in force; others than operators hear only since when."""
    message = pb.PolicyRefusal()
    set_time(message.since, refusal.since)
    if operator:
        message.file = refusal.file
        message.problems.extend(
            pb.PolicyProblem(
                line=problem.line, key=problem.key, rule=problem.rule, value=problem.value
            )
            for problem in refusal.problems
        )
    return message


def route_message(route: Route, fleet: Fleet, *, operator: bool) -> pb.Route:
    """A route as callers see it; operators hear of pools too."""
    message = pb.Route(
        name=route.name,
        description=route.description,
        ladder=[_tier(tier, fleet, operator=operator) for tier in route.ladder],
        fixed_tier=route.fixed_tier.name if route.fixed_tier is not None else "",
        default_output_tokens=route.output_tokens.default,
        max_output_tokens=route.output_tokens.most,
        quality=_quality(route.quality) if route.quality is not None else None,
    )
    set_seconds(message.default_deadline, route.deadline.default_seconds)
    return message


def _quality(quality: Quality) -> pb.RouteQuality:
    message = pb.RouteQuality(tolerance=quality.tolerance)
    calibration = quality.calibration
    if calibration is not None:
        message.calibration_version = calibration.version
        if calibration.certificate.certified:
            message.certified_bound = calibration.certificate.bound
            message.expected_escalation_rate = calibration.certificate.escalation_rate
            message.expected_saving = calibration.certificate.saving
    return message


def _tier(tier: Tier, fleet: Fleet, *, operator: bool) -> pb.Tier:
    return pb.Tier(
        name=tier.name,
        model=tier.model,
        precision=tier.precision,
        prompt_micro_usd_per_million=tier.price.prompt,
        output_micro_usd_per_million=tier.price.output,
        max_sequence_tokens=tier.max_sequence_tokens,
        ready_replicas=fleet.ready(tier.name),
        trouble=fleet.trouble(tier.name, pools=operator),
    )


def add_charges(decision: pb.Decision, state: RequestState) -> None:
    """Writes into a decision what each tier has been charged so far."""
    if decision.candidates:  # none was weighed for a stored answer
        for candidate, charge in zip(decision.candidates, state.charges, strict=True):
            candidate.micro_usd = charge


def summary_message(state: RequestState, decision: pb.Decision, now: float) -> pb.Summary:
    """What an answer took; `decision` is how its caller was told of it, if that was before.

    What the tiers cost is known only now, and becomes part of the decision.
    """
    context, answer = state.context, state.answer
    add_charges(decision, state)
    summary = pb.Summary(
        handle=context.handle,
        decision=decision,
        finish_reason=FINISH[answer.finish],
        usage=pb.Usage(
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            reused_prompt_tokens=answer.figures.reused_prompt_tokens,
        ),
        cost=pb.Cost(
            micro_usd=state.micro_usd,
            baseline_micro_usd=state.baseline_micro_usd,
            estimated=state.estimated,
        ),
    )
    timings = summary.timings
    set_seconds(timings.total, now - context.arrived)
    if answer.first_text_at is not None:
        set_seconds(timings.first_text, answer.first_text_at - context.arrived)
    if state.attempts:
        set_seconds(timings.queued, state.queued_seconds)
    if (engine := state.engine_seconds) is not None:
        set_seconds(timings.engine, engine)
    return summary
