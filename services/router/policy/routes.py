"""Routes, tiers and prices as the policy files declare them, and the choice of a tier."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Cancel(StrEnum):
    """What happens to a running request whose caller has gone.

    ABORT cancels it on the replica. DRAIN lets it finish and throws the answer away: some engines
    crash when a request with log-probs is cancelled (TensorRT-LLM issue 10810).
    """

    ABORT = "abort"
    DRAIN = "drain"


@dataclass(frozen=True)
class Price:
    """Micro-USD per million tokens."""

    prompt: int
    output: int

    def of(self, prompt_tokens: int, output_tokens: int) -> int:
        """Micro-USD for these tokens, rounded up so that no answer looks free."""
        exact = prompt_tokens * self.prompt + output_tokens * self.output
        return -(-exact // 1_000_000)


@dataclass(frozen=True)
class Tier:
    """One rung of a ladder.

    Attributes:
        name: unique.
        model: model name on its replicas.
        precision: precision of its weights.
        tokenizer: folder with tokenizer.json and tokenizer_config.json.
        max_sequence_tokens: most tokens of prompt and answer together.
        cancel: what happens when the caller goes away.
        first_token_seconds: a replica silent for longer before the first token is given up.
        idle_seconds: a replica silent for longer between tokens is given up.
        queue_size: most requests that wait for a replica of this tier.
        queue_seconds: how long one of them waits at most.
        price: per million tokens.
    """

    name: str
    model: str
    precision: str
    tokenizer: str
    max_sequence_tokens: int
    cancel: Cancel
    first_token_seconds: float
    idle_seconds: float
    queue_size: int
    queue_seconds: float
    price: Price


@dataclass(frozen=True)
class CachePolicy:
    """How a route uses cached answers.

    Attributes:
        use: ask and fill the cache.
        ttl_seconds: how long an answer may serve.
        wait_seconds: how long a request waits for an identical one that is already running.
    """

    use: bool
    ttl_seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class Route:
    """A use of the system with its own policy.

    Attributes:
        name: unique.
        description: what it is for.
        ladder: tiers, cheapest first.
        fixed_tier: the tier that answers.
        default_output_tokens: when the request does not say.
        max_output_tokens: the most a request may ask for.
        default_deadline_seconds: when the caller sets none.
        shortest_deadline_seconds: a request with less time left is refused at once.
        cache: how cached answers are used.
        tenants: who may use the route; empty means everybody.
    """

    name: str
    description: str
    ladder: tuple[Tier, ...]
    fixed_tier: Tier
    default_output_tokens: int
    max_output_tokens: int
    default_deadline_seconds: float
    shortest_deadline_seconds: float
    cache: CachePolicy
    tenants: frozenset[str]

    @property
    def top_tier(self) -> Tier:
        """The tier that savings are measured against."""
        return self.ladder[-1]

    def admits(self, tenant: str) -> bool:
        """Whether the tenant may use this route."""
        return not self.tenants or tenant in self.tenants


@dataclass(frozen=True)
class Policies:
    """All routes of one version, in force together."""

    version: str
    routes: Mapping[str, Route]
    tiers: Mapping[str, Tier]


@dataclass(frozen=True)
class TierChoice:
    """The tier that answers, and the reason in one sentence."""

    tier: Tier
    explanation: str


def choose_tier(route: Route) -> TierChoice:
    """Chooses the tier for a request of the route: in this form, the one the policy names."""
    tier = route.fixed_tier
    return TierChoice(tier, f"The policy of {route.name} sends every request to {tier.name}.")
