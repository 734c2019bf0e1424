"""What callers say: messages, passages, checks of answers, and wishes beside the prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `system` comes first and at most once; the last is `user`."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | Sequence[Message]
"""One user message, or a conversation."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved piece of text.

    `relevance`: how relevant the retrieval found it, higher is more. None in any passage of a
    request: the words that each shares with the last message count.
    """

    text: str
    relevance: float | None = None


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that this schema (draft 2020-12) accepts; as text or as a mapping."""

    schema: str | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer, without white space around it, matches this expression (RE2 syntax)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The answer, without white space around it, is one of these."""

    values: Sequence[str]


Validator = JsonSchema | Regex | OneOf
"""A check of an answer's text."""


class Options(TypedDict, total=False):
    """What a caller may wish for beside route and prompt. Left out: the route's default.

    Attributes:
        max_output_tokens: most tokens of the answer, 1 to the route's cap.
        temperature: 0 to 2; 0 is greedy and makes the answer cacheable.
        top_p: nucleus sampling, above 0 and at most 1.
        top_k: number of most likely tokens drawn from, 1 to 1024.
        seed: seed of the draw.
        stop: texts that end the answer and are not part of it; at most 8.
        json_schema: a JSON Schema document, as text or as a mapping, that the answer validates
            against.
        regex: a regular expression that the whole answer matches; excludes `json_schema`.
        context: passages that were retrieved for the last message, put before it; at most 256.
        task_type: the caller's name for the kind of task, such as ``refund``.
        retrieval_confidence: how sure the caller's retrieval was, from 0 to 1.
        validators: checks that the answer of a lower tier must pass, or the next tier answers; at
            most 8.
        priority: who waits: nobody, a job, a person (the default), the business.
        attributes: labels for cost attribution, written to the ledger; at most 16.
        idempotency_key: written to the ledger, the same for each retry. Left out: a random one.
        cache_use: ``bypass`` neither reads nor writes; ``refresh`` does not read but writes.
        timeout_seconds: time for the whole call, retries included. Left out: the client's.
    """

    max_output_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: Sequence[str]
    json_schema: str | Mapping[str, Any]
    regex: str
    context: Sequence[str | Passage]
    task_type: str
    retrieval_confidence: float
    validators: Sequence[Validator]
    priority: Literal["background", "batch", "interactive", "critical"]
    attributes: Mapping[str, str]
    idempotency_key: str
    cache_use: Literal["bypass", "refresh"]
    timeout_seconds: float
