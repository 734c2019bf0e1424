"""From what callers say to the contract's messages."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from pennyweight.questions import (
    JsonSchema,
    Message,
    OneOf,
    Options,
    Passage,
    Prompt,
    Regex,
    Validator,
)
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.suggestions import hint_of
from pennyweight.wire import duration_of

Request = TypeVar("Request", pb.GenerateRequest, pb.CompleteRequest, pb.ExplainRequest)

OPTIONS = frozenset(Options.__annotations__)
SAMPLING = ("max_output_tokens", "temperature", "top_p", "top_k", "seed", "stop")


def request_of(kind: type[Request], route: str, prompt: Prompt, options: Options) -> Request:
    """Builds a request message; all three kinds have the same fields.

    Raises:
        ValueError: a word that is not in the contract, or a value it cannot hold.
        TypeError: an option that there is not.
    """
    for name in options.keys() - OPTIONS:
        raise TypeError(f"{name!r} is no option. {hint_of(name, sorted(OPTIONS))}")
    sampling = {name: value for name, value in options.items() if name in SAMPLING}
    return kind(
        route=route,
        prompt=_prompt(prompt, options),
        sampling=pb.Sampling(**sampling),  # type: ignore[arg-type]
        terms=_terms(options),
    )


def outcome_of(
    route: str,
    handle: str,
    *,
    resolved: bool | None,
    rating: float | None,
    corrected_answer: str | None,
) -> pb.RecordOutcomeRequest:
    """What became of an answer; None stays absent."""
    return pb.RecordOutcomeRequest(
        route=route,
        handle=handle,
        resolved=resolved,
        rating=rating,
        corrected_answer=corrected_answer,
    )


def lever_change_of(
    route: str,
    lever: str,
    state: str,
    *,
    author: str,
    reason: str,
    expires_after_seconds: float | None,
) -> pb.SetLeverRequest:
    """A lever that is to be halted or released.

    Raises:
        ValueError: a state that is not in the contract, or a time that is no duration.
    """
    request = pb.SetLeverRequest(route=route, lever=lever, author=author, reason=reason)
    request.state = _value(pb.LeverState.DESCRIPTOR, "LEVER_STATE", state)  # type: ignore[assignment]
    if expires_after_seconds is not None:
        request.expires_after.CopyFrom(duration_of(expires_after_seconds))
    return request


def _prompt(prompt: Prompt, options: Options) -> pb.Prompt:
    conversation = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    asked = pb.Prompt(
        messages=[
            pb.Message(
                role=_value(pb.Role.DESCRIPTOR, "ROLE", message.role),  # type: ignore[arg-type]
                content=message.content,
            )
            for message in conversation
        ]
    )
    if "json_schema" in options and "regex" in options:
        raise ValueError("json_schema and regex exclude each other")
    if "json_schema" in options:
        asked.response_format.json_schema = _document(options["json_schema"])
    elif "regex" in options:
        asked.response_format.regex = options["regex"]
    context = options.get("context", ())
    if isinstance(context, str):
        raise ValueError("context must be a list of passages, got one text")  # noqa: TRY004
    asked.context.extend(_passage(passage) for passage in context)
    return asked


def _terms(options: Options) -> pb.Terms:
    terms = pb.Terms(
        idempotency_key=options.get("idempotency_key", ""),
        attributes=options.get("attributes", {}),
        validators=[_validator(validator) for validator in options.get("validators", ())],
    )
    if "priority" in options:
        terms.priority = _value(pb.PriorityClass.DESCRIPTOR, "PRIORITY_CLASS", options["priority"])  # type: ignore[assignment]
    if "cache_use" in options:
        terms.cache_use = _value(pb.CacheUse.DESCRIPTOR, "CACHE_USE", options["cache_use"])  # type: ignore[assignment]
    if "task_type" in options:
        terms.signals.task_type = options["task_type"]
    if "retrieval_confidence" in options:
        terms.signals.retrieval_confidence = options["retrieval_confidence"]
    return terms


def _passage(passage: str | Passage) -> pb.Passage:
    if isinstance(passage, str):
        return pb.Passage(text=passage)
    return pb.Passage(text=passage.text, relevance=passage.relevance)


def _validator(validator: Validator) -> pb.Validator:
    match validator:
        case JsonSchema(schema):
            return pb.Validator(json_schema=_document(schema))
        case Regex(pattern):
            return pb.Validator(regex=pattern)
        case OneOf(str() as value):
            raise ValueError(f"one of must be a list of texts, got {value!r}")
        case OneOf(values):
            return pb.Validator(one_of=pb.Choices(values=values))
    raise ValueError(f"{validator!r} is no validator")


def _document(schema: str | Mapping[str, Any]) -> str:
    if isinstance(schema, str):
        return schema
    try:
        return json.dumps(dict(schema), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"a JSON schema must be JSON: {error}") from error


def _value(kind: EnumDescriptor, prefix: str, word: str) -> int:
    names = {name.removeprefix(f"{prefix}_").lower(): name for name in kind.values_by_name}
    del names["unspecified"]  # what is left out
    if word not in names:
        what = prefix.lower().replace("_", " ")
        raise ValueError(f"{word!r} is no {what}. {hint_of(word, list(names))}")
    return kind.values_by_name[names[word]].number
