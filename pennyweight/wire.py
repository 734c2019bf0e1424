"""Between the plain types of `pennyweight.answers` and the contract's messages."""

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf import duration_pb2
from google.protobuf.descriptor import EnumDescriptor

from pennyweight.answers import (
    Answer,
    Cost,
    Decision,
    Delta,
    Event,
    Explanation,
    Finished,
    Message,
    Options,
    Route,
    RouteList,
    Started,
    Tier,
    Timings,
    Usage,
)
from pennyweight.router.v1 import router_pb2 as pb

Prompt = str | Sequence[Message]
"""One user message, or a conversation."""

Request = TypeVar("Request", pb.GenerateRequest, pb.CompleteRequest, pb.ExplainRequest)

SAMPLING = ("max_output_tokens", "temperature", "top_p", "top_k", "seed", "stop")


def request_of(kind: type[Request], route: str, prompt: Prompt, options: Options) -> Request:
    """Builds a request message; all three kinds have the same fields.

    Raises:
        ValueError: a word that is not in the contract, or a number it cannot hold.
    """
    conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    asked = pb.Prompt(
        messages=[
            pb.Message(role=_value(pb.Role.DESCRIPTOR, "ROLE", one.role), content=one.content)  # type: ignore[arg-type]
            for one in conversation
        ]
    )
    if "json_schema" in options and "regex" in options:
        raise ValueError("json_schema and regex exclude each other")
    if "json_schema" in options:
        asked.response_format.json_schema = options["json_schema"]
    elif "regex" in options:
        asked.response_format.regex = options["regex"]
    terms = pb.Terms(
        idempotency_key=options.get("idempotency_key", ""),
        attributes=options.get("attributes", {}),
    )
    if "priority" in options:
        terms.priority = _value(pb.PriorityClass.DESCRIPTOR, "PRIORITY_CLASS", options["priority"])  # type: ignore[assignment]
    if "cache_use" in options:
        terms.cache_use = _value(pb.CacheUse.DESCRIPTOR, "CACHE_USE", options["cache_use"])  # type: ignore[assignment]
    sampling = {name: value for name, value in options.items() if name in SAMPLING}
    return kind(route=route, prompt=asked, sampling=pb.Sampling(**sampling), terms=terms)  # type: ignore[arg-type]


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
    return RouteList(tuple(_route(one) for one in message.routes), message.policy_version)


def name_of(kind: EnumDescriptor, prefix: str, number: int) -> str:
    """An enum value as its name in lower case without the prefix; its number if unknown."""
    try:
        return kind.values_by_number[number].name.removeprefix(f"{prefix}_").lower()
    except KeyError:
        return str(number)


def seconds_of(duration: duration_pb2.Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _value(kind: EnumDescriptor, prefix: str, word: str) -> int:
    try:
        return kind.values_by_name[f"{prefix}_{word.upper()}"].number
    except KeyError:
        raise ValueError(f"{word!r} is no {prefix.lower().replace('_', ' ')}") from None


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
    )


def _finished(message: pb.Summary) -> Finished:
    usage = message.usage
    reused = usage.reused_prompt_tokens if usage.HasField("reused_prompt_tokens") else None
    return Finished(
        handle=message.handle,
        decision=_decision(message.decision),
        finish_reason=name_of(pb.FinishReason.DESCRIPTOR, "FINISH_REASON", message.finish_reason),
        usage=Usage(usage.prompt_tokens, usage.output_tokens, reused),
        cost=Cost(message.cost.micro_usd, message.cost.baseline_micro_usd),
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
            )
            for tier in message.ladder
        ),
        fixed_tier=message.fixed_tier,
        default_output_tokens=message.default_output_tokens,
        max_output_tokens=message.max_output_tokens,
        default_deadline_seconds=seconds_of(message.default_deadline),
    )
