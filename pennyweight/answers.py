"""What callers say and get back, as plain frozen dataclasses.

Money is whole micro-USD (a millionth of a dollar), time is seconds. `reason`, `cache` and
`finish_reason` are the contract's enum names in lower case without their prefix: ``fixed_tier``,
``exact``, ``stop``. A name this version does not know yet is its number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `system` comes first and at most once; the last is `user`."""

    role: Literal["system", "user", "assistant"]
    content: str


class Options(TypedDict, total=False):
    """What a caller may wish for beside route and prompt. Left out: the route's default.

    Attributes:
        max_output_tokens: most tokens of the answer, 1 to the route's cap.
        temperature: 0 to 2; 0 is greedy and makes the answer cacheable.
        top_p: nucleus sampling, above 0 and at most 1.
        top_k: number of most likely tokens drawn from, 1 to 1024.
        seed: seed of the draw.
        stop: texts that end the answer and are not part of it; at most 8.
        json_schema: a JSON Schema document, as text, that the answer validates against.
        regex: a regular expression that the whole answer matches; excludes `json_schema`.
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
    json_schema: str
    regex: str
    priority: Literal["background", "batch", "interactive", "critical"]
    attributes: Mapping[str, str]
    idempotency_key: str
    cache_use: Literal["bypass", "refresh"]
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided and why; `explanation` says it in one sentence.

    `tier`, `model` and `precision` are those of the answer, also when it comes from the cache;
    `replica` is empty then. `fleet_stale`: the last known fleet was used.
    """

    route: str
    policy_version: str
    tier: str
    model: str
    precision: str
    replica: str
    reason: str
    explanation: str
    cache: str
    fleet_stale: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `reused_prompt_tokens` is None where the replica does not say."""

    prompt_tokens: int
    output_tokens: int
    reused_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What was paid, and what the route's top tier without a cache would have cost."""

    micro_usd: int
    baseline_micro_usd: int

    @property
    def saved_micro_usd(self) -> int:
        """Baseline less paid."""
        return self.baseline_micro_usd - self.micro_usd


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds as the router saw them. None: the step did not happen or was not measured."""

    first_text_seconds: float | None = None
    total_seconds: float | None = None
    queued_seconds: float | None = None
    engine_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a stream: the decision stands."""

    handle: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of text and the tokens it stands for."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of a stream: what the answer took. `handle` is the one `Started` carried."""

    handle: str
    decision: Decision
    finish_reason: str
    usage: Usage
    cost: Cost
    timings: Timings


Event = Started | Delta | Finished
"""One event of a stream."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and what it took."""

    text: str
    summary: Finished


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided now; `max_micro_usd` bounds the cost: every token up to the limit."""

    decision: Decision
    prompt_tokens: int
    max_micro_usd: int


@dataclass(frozen=True, slots=True)
class Tier:
    """One rung of a ladder; prices are micro-USD per million tokens."""

    name: str
    model: str
    precision: str
    prompt_micro_usd_per_million: int
    output_micro_usd_per_million: int
    max_sequence_tokens: int
    ready_replicas: int


@dataclass(frozen=True, slots=True)
class Route:
    """A use of the system with its own policy; the ladder is sorted cheapest first."""

    name: str
    description: str
    ladder: tuple[Tier, ...]
    fixed_tier: str
    default_output_tokens: int
    max_output_tokens: int
    default_deadline_seconds: float


@dataclass(frozen=True, slots=True)
class RouteList:
    """The routes a caller may use, by name, and the version of the policies in force."""

    routes: tuple[Route, ...]
    policy_version: str
