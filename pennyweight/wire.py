"""From the contract's messages to the plain types of `pennyweight.answers`; durations both ways."""

import datetime as dt

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor

from pennyweight.answers import (
    Answer,
    Candidate,
    Cost,
    Decision,
    Delta,
    Event,
    Explanation,
    Finished,
    Lever,
    LeverList,
    LeverWatch,
    PolicyProblem,
    PolicyRefusal,
    Route,
    RouteList,
    RouteQuality,
    RouteWatch,
    Started,
    Tier,
    Timings,
    Usage,
)
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2 as scaler_pb

NANOSECONDS = 1_000_000_000
MAX_DURATION_SECONDS = 315_576_000_000
"""What a `Duration` holds: 10,000 years."""


def event_of(message: pb.GenerateResponse) -> Event | None:
    """One event of a stream; None for a kind that this version does not know."""
    match message.WhichOneof("event"):
        case "started":
            return Started(message.started.handle, _decision(message.started.decision))
        case "delta":
            return Delta(message.delta.text, message.delta.tokens)
        case "finished":
            return _finished(message.finished.summary)
        case _:
            return None


def answer_of(message: pb.CompleteResponse) -> Answer:
    """A whole answer."""
    return Answer(message.text, _finished(message.summary))


def explanation_of(message: pb.ExplainResponse) -> Explanation:
    """What would be decided."""
    return Explanation(_decision(message.decision), message.prompt_tokens, message.max_micro_usd)


def routes_of(message: pb.ListRoutesResponse) -> RouteList:
    """The routes."""
    return RouteList(
        tuple(_route(route) for route in message.routes),
        message.policy_version,
        refusal_of(message.refusal) if message.HasField("refusal") else None,
    )


def refusal_of(message: pb.PolicyRefusal | scaler_pb.PolicyRefusal) -> PolicyRefusal:
    """Why policy files are not in force, as router and scaler say it."""
    return PolicyRefusal(
        since=time_of(message.since),
        file=message.file,
        problems=tuple(map(problem_of, message.problems)),
    )


def problem_of(message: pb.PolicyProblem | scaler_pb.PolicyProblem) -> PolicyProblem:
    """A value of a policy file, as router and scaler tell what is wrong with it."""
    return PolicyProblem(message.rule, message.line, message.key, message.value)


def levers_of(message: pb.ListLeversResponse) -> LeverList:
    """The levers."""
    return LeverList(
        levers=tuple(lever_of(lever) for lever in message.levers),
        policy_version=message.policy_version,
        totals=tuple(
            RouteWatch(one.route, _watch(one.watch) if one.HasField("watch") else None)
            for one in message.totals
        ),
    )


def lever_of(message: pb.Lever) -> Lever:
    """One lever."""
    return Lever(
        route=message.route,
        name=message.name,
        state=name_of(pb.LeverState.DESCRIPTOR, "LEVER_STATE", message.state),
        author=message.author,
        reason=message.reason,
        since=time_of(message.since) if message.HasField("since") else None,
        expires=time_of(message.expires) if message.HasField("expires") else None,
        watch=_watch(message.watch) if message.HasField("watch") else None,
        unsaved=message.unsaved,
    )


def name_of(kind: EnumDescriptor, prefix: str, number: int) -> str:
    """An enum value as its name in lower case without the prefix; its number if unknown."""
    try:
        return kind.values_by_number[number].name.removeprefix(f"{prefix}_").lower()
    except KeyError:
        return str(number)


def seconds_of(duration: duration_pb2.Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / NANOSECONDS


def duration_of(seconds: float) -> duration_pb2.Duration:
    """Seconds as a duration.

    Raises:
        ValueError: they are no number, or more than a duration holds.
    """
    if not abs(seconds) <= MAX_DURATION_SECONDS:  # no number is not, either
        raise ValueError(f"a duration must be a number of seconds, got {seconds}")
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * NANOSECONDS))
    return duration


def _decision(message: pb.Decision) -> Decision:
    return Decision(
        route=message.route,
        policy_version=message.policy_version,
        tier=message.tier,
        model=message.model,
        precision=message.precision,
        replica=message.replica,
        reason=name_of(pb.Reason.DESCRIPTOR, "REASON", message.reason),
        explanation=message.explanation,
        cache=name_of(pb.CacheOutcome.DESCRIPTOR, "CACHE_OUTCOME", message.cache),
        fleet_stale=message.fleet_stale,
        candidates=tuple(_candidate(candidate) for candidate in message.candidates),
        calibration_version=message.calibration_version,
        evidence_propensity=message.evidence_propensity,
        halted_levers=tuple(message.halted_levers),
    )


def _candidate(message: pb.Candidate) -> Candidate:
    return Candidate(
        tier=message.tier,
        verdict=name_of(pb.Verdict.DESCRIPTOR, "VERDICT", message.verdict),
        predicted_gain=_known(message, "predicted_gain"),
        skip_above_gain=_known(message, "skip_above_gain"),
        certainty=_known(message, "certainty"),
        accept_at_certainty=_known(message, "accept_at_certainty"),
        micro_usd=message.micro_usd,
    )


def _finished(message: pb.Summary) -> Finished:
    usage = message.usage
    reused = usage.reused_prompt_tokens if usage.HasField("reused_prompt_tokens") else None
    return Finished(
        handle=message.handle,
        decision=_decision(message.decision),
        finish_reason=name_of(pb.FinishReason.DESCRIPTOR, "FINISH_REASON", message.finish_reason),
        usage=Usage(usage.prompt_tokens, usage.output_tokens, reused),
        cost=Cost(
            micro_usd=message.cost.micro_usd,
            baseline_micro_usd=message.cost.baseline_micro_usd,
            estimated=message.cost.estimated,
        ),
        timings=_timings(message.timings),
    )


def _timings(message: pb.Timings) -> Timings:
    return Timings(
        first_text_seconds=seconds_of(message.first_text)
        if message.HasField("first_text")
        else None,
        total_seconds=seconds_of(message.total) if message.HasField("total") else None,
        queued_seconds=seconds_of(message.queued) if message.HasField("queued") else None,
        engine_seconds=seconds_of(message.engine) if message.HasField("engine") else None,
    )


def _route(message: pb.Route) -> Route:
    return Route(
        name=message.name,
        description=message.description,
        ladder=tuple(
            Tier(
                name=tier.name,
                model=tier.model,
                precision=tier.precision,
                prompt_micro_usd_per_million=tier.prompt_micro_usd_per_million,
                output_micro_usd_per_million=tier.output_micro_usd_per_million,
                max_sequence_tokens=tier.max_sequence_tokens,
                ready_replicas=tier.ready_replicas,
                trouble=tier.trouble,
            )
            for tier in message.ladder
        ),
        fixed_tier=message.fixed_tier,
        default_output_tokens=message.default_output_tokens,
        max_output_tokens=message.max_output_tokens,
        default_deadline_seconds=seconds_of(message.default_deadline),
        quality=_quality(message.quality) if message.HasField("quality") else None,
    )


def _quality(message: pb.RouteQuality) -> RouteQuality:
    return RouteQuality(
        tolerance=message.tolerance,
        calibration_version=message.calibration_version,
        certified_bound=_known(message, "certified_bound"),
        expected_escalation_rate=_known(message, "expected_escalation_rate"),
        expected_saving=_known(message, "expected_saving"),
    )


def _known(message: pb.Candidate | pb.RouteQuality, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]


def _watch(message: pb.LeverWatch) -> LeverWatch:
    return LeverWatch(
        samples=message.samples,
        mean_loss=message.mean_loss,
        allowed_loss=message.allowed_loss,
        evidence=message.evidence,
        run_length=message.run_length,
        level=message.level,
        worse_share=message.worse_share,
        allowed_worse_share=(
            message.allowed_worse_share if message.HasField("allowed_worse_share") else None
        ),
    )


def time_of(timestamp: timestamp_pb2.Timestamp) -> dt.datetime:
    """A moment, in UTC."""
    return timestamp.ToDatetime(tzinfo=dt.UTC)
