"""Routes, tiers and prices: what the policy files may say of them, and what it means.

The fields of these dataclasses are the keys of the files, and their annotations the rules that
`routes.files` holds each value to: a new key is a new field here. Where a key means something else
than what is written, such as a name that leads to a tier, the other keys are in a class of options;
`routes.schema` adds to it what is written, and its subclass here what that means. Nothing is
checked where these are made by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from services.common.config import Name, TenantName
from services.common.rules import spelled
from services.router.policy.calibration import Certificate, Judgement
from services.router.policy.drift import Bands

Version = Annotated[
    str,
    spelled(
        r"[A-Za-z0-9._-]{0,64}",
        "must be at most 64 letters, digits, '.', '_' and '-', in quotes if it is a number",
    ),
]
Address = Annotated[
    str,
    spelled(
        r"|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}",
        "must be host:port, such as judge.internal:50061",
    ),
]
Words = Annotated[str, Field(max_length=1000)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
MicroUsd = Annotated[int, Field(ge=0, le=10**12)]
"""Beyond a million dollars it is a slip: what is added up from it must fit a message's 64 bits."""

Kept = Annotated[int, Field(ge=1, le=10_000)]


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

    prompt: MicroUsd
    output: MicroUsd

    def of(self, prompt_tokens: int, output_tokens: int) -> int:
        """Micro-USD for these tokens, rounded up so that no answer looks free."""
        exact = prompt_tokens * self.prompt + output_tokens * self.output
        return -(-exact // 1_000_000)

    def affords(self, micro_usd: int, prompt_tokens: int, most: int) -> int:
        """Output tokens that so much money pays for, at most `most`; negative: not the prompt."""
        left = micro_usd * 1_000_000 - prompt_tokens * self.prompt
        if left < 0:
            return -1
        return most if self.output == 0 else min(most, left // self.output)


@dataclass(frozen=True, kw_only=True)
class TierOptions:
    """What the routes file says of a tier.

    Attributes:
        model: model name on its replicas.
        precision: precision of its weights.
        tokenizer: folder with tokenizer.json and tokenizer_config.json.
        max_sequence_tokens: most tokens of prompt and answer together.
        cancel: what happens when the caller goes away.
        first_token_seconds: a replica silent for longer before the first token is given up.
        idle_seconds: a replica silent for longer between tokens is given up.
        silent_share: share of the time a request has left that a replica may stay silent while
            another one, or another tier, could still answer; 1 leaves it to the seconds above.
        queue_size: most requests that wait for a replica of this tier.
        queue_seconds: how long one of them waits at most.
        tenant_share: of its places and of its queue that one tenant may have, even when nobody
            else asks; while others wait, tenants take turns.
        version: of the model's weights, as calibrations name it; empty where nobody counts.
    """

    model: Name
    precision: Name
    tokenizer: FilePath
    max_sequence_tokens: Tokens
    version: Version = ""
    cancel: Cancel = Cancel.ABORT
    first_token_seconds: Seconds = 20.0
    idle_seconds: Seconds = 10.0
    silent_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    queue_size: Annotated[int, Field(ge=0, le=100_000)] = 256
    queue_seconds: Seconds = 15.0
    tenant_share: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, kw_only=True)
class Tier(TierOptions):
    """One rung of a ladder; its tokenizer's folder is absolute.

    Attributes:
        name: unique.
        price: per million tokens.
    """

    name: str
    price: Price


@dataclass(frozen=True)
class CachePolicy:
    """How a route uses cached answers.

    Attributes:
        use: ask and fill the cache.
        ttl_seconds: how long an answer may serve.
        wait_seconds: how long a request waits for an identical one that is already running.
    """

    use: bool = False
    ttl_seconds: Annotated[float, Field(ge=1, le=90 * 86400)] = 3600.0
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0


class Hold(StrEnum):
    """What is held back until a lower tier's answer stands: nothing sent is ever taken back.

    ANSWER holds the whole answer, and judges all of it. TOKENS holds the first tokens, judges them
    alone, and then streams.
    """

    ANSWER = "answer"
    TOKENS = "tokens"


class JudgeKind(StrEnum):
    """Who says how good an answer is.

    MATCH: the top tier's answer, compared without regard to case, white space and punctuation.
    SIMILARITY: the same, by the cosine of hashed n-gram vectors.
    SCHEMA: whether an answer has the form that the request asked for.
    MODEL: a judge behind gRPC (`pennyweight.judge.v1`).
    OUTCOME: what callers record later.
    """

    MATCH = "match"
    SIMILARITY = "similarity"
    SCHEMA = "schema"
    MODEL = "model"
    OUTCOME = "outcome"


@dataclass(frozen=True)
class Judging:
    """Who judges paired answers.

    Attributes:
        kind: who.
        address: host:port of a `MODEL` judge; empty elsewhere.
        timeout_seconds: how long a `MODEL` judge may take.
        least_similarity: `SIMILARITY` below it counts as 0, at or above it as it is.
    """

    kind: JudgeKind = JudgeKind.MATCH
    address: Address = ""
    timeout_seconds: Seconds = 10.0
    least_similarity: Share = 0.0


@dataclass(frozen=True)
class EvidencePolicy:
    """How a route gathers paired evidence: requests that every tier answers, in the background.

    Attributes:
        share: of requests, while a calibration is in force and nothing is halted.
        share_until_calibrated: of requests, while there is none or a lever is halted.
        keep_text: the ledger's pairs carry prompt and answers.
        most_running: pairs that a router makes at once; more are left out and counted.
        seconds: a pair that is not complete by then is given up.
        judge: who says how good the answers are.
    """

    share: Share = 0.05
    share_until_calibrated: Share = 0.2
    keep_text: bool = False
    most_running: Annotated[int, Field(ge=1, le=1000)] = 4
    seconds: Seconds = 60.0
    judge: Judging = Judging()


@dataclass(frozen=True)
class Calibrated:
    """A calibration in force; see `routes.artefact_file` for the file it comes in.

    Attributes:
        version: names it in decisions.
        judgement: what decides.
        certificate: what was proved.
        bands: what traffic looked like.
        level: mean loss that the judge who watches the route saw, where it speaks other terms than
            the certificate, as one that compares answers does beside labels; None where they are
            the same, and the certificate's bound holds for what it sees.
        spare: share of worse answers minus mean loss, as that judge saw it; None for unknown.
        until: when its youngest evidence was gathered, seconds since 1970; -inf for unknown. A halt
            of the guardrail that is younger outlasts it.
    """

    version: str
    judgement: Judgement
    certificate: Certificate
    bands: Bands
    until: float
    level: float | None = None
    spare: float | None = None


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    """What the routes file says of a route's quality, its calibration apart.

    Attributes:
        tolerance: most quality that may be lost on average against the top tier, in (0, 1).
        confidence: probability with which a certificate is right, in (0, 1).
        hold: what is held back until a lower tier's answer stands.
        first_tokens: how many tokens `Hold.TOKENS` holds.
        run_length: judged samples between false halts of the guardrail, on average and at least.
        evidence: how it is gathered.
    """

    tolerance: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    hold: Hold = Hold.ANSWER
    first_tokens: Annotated[int, Field(ge=1, le=256)] = 8
    run_length: Annotated[float, Field(gt=1, le=1e12)] = 100_000.0
    evidence: EvidencePolicy = EvidencePolicy()


@dataclass(frozen=True, kw_only=True)
class Quality(QualityOptions):
    """What a route asks of its answers, and how its tier is chosen for it.

    Attributes:
        calibration: the one in force; None sends every request to the top tier.
        artefact: path of the file that it comes from, for the calibrate command.
    """

    calibration: Calibrated | None = None
    artefact: str = ""

    @property
    def first_k(self) -> int:
        """Tokens that `Certainty.first_k` looks at: those of the calibration in force."""
        calibration = self.calibration
        return calibration.judgement.first_k if calibration is not None else self.first_tokens


@dataclass(frozen=True)
class Limits:
    """What a request may take at most.

    Attributes:
        micro_usd: money, at the price list, for all tiers that it runs on together; None for no
            limit.
        seconds: time to the whole answer; a longer deadline of the caller's is cut to it. None:
            see `Route.most_seconds`.
    """

    micro_usd: Annotated[int, Field(ge=1, le=10**12)] | None = None
    seconds: Seconds | None = None


@dataclass(frozen=True)
class Trimming:
    """What is left out of prompts; a lever, off by default.

    Attributes:
        white_space: runs of blanks and of empty lines become one.
        history_turns: user turns that are kept, the last one included; None keeps all.
        passages: retrieved passages that are kept, the most relevant; None keeps all.
    """

    white_space: bool = False
    history_turns: Kept | None = None
    passages: Kept | None = None

    @property
    def on(self) -> bool:
        """Whether anything is left out at all."""
        return self != Trimming()


@dataclass(frozen=True)
class OutputTokens:
    """Output tokens of a request: when it does not say, and the most it may ask for."""

    default: Tokens = 256
    most: Tokens = 1024


@dataclass(frozen=True)
class Deadline:
    """Time to the whole answer.

    Attributes:
        default_seconds: when the caller sets none.
        longest_seconds: a longer one of the caller's is cut to it; never below the default.
        shortest_seconds: a request with less time left is refused at once.
    """

    default_seconds: Seconds = 60.0
    longest_seconds: Seconds = 300.0
    shortest_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.005


@dataclass(frozen=True, kw_only=True)
class RouteOptions:
    """What the routes file says of a route, its tiers and its quality apart.

    Attributes:
        description: what it is for.
        output_tokens: how many a request may ask for.
        deadline: how long a request may take.
        cache: how cached answers are used.
        limits: what a request may take.
        trimming: what is left out of prompts.
        tenants: who may use the route; empty means everybody.
    """

    description: Words = ""
    output_tokens: OutputTokens = OutputTokens()
    deadline: Deadline = Deadline()
    cache: CachePolicy = CachePolicy()
    limits: Limits = Limits()
    trimming: Trimming = Trimming()
    tenants: frozenset[TenantName] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Route(RouteOptions):
    """A use of the system with its own policy.

    Attributes:
        name: unique.
        ladder: tiers, cheapest first.
        fixed_tier: the tier that answers every request; None where `quality` chooses.
        quality: how the tier is chosen; None where `fixed_tier` is.
    """

    name: str
    ladder: tuple[Tier, ...]
    fixed_tier: Tier | None = None
    quality: Quality | None = None

    @property
    def top_tier(self) -> Tier:
        """The tier that savings are measured against."""
        return self.ladder[-1]

    @property
    def most_seconds(self) -> float:
        """Longest that a request may take, whatever its caller wants."""
        longest = max(self.deadline.longest_seconds, self.deadline.default_seconds)
        return longest if self.limits.seconds is None else min(self.limits.seconds, longest)

    def admits(self, tenant: str) -> bool:
        """Whether the tenant may use this route."""
        return not self.tenants or tenant in self.tenants


@dataclass(frozen=True)
class Policies:
    """All routes of one version, in force together."""

    version: str
    routes: Mapping[str, Route]
    tiers: Mapping[str, Tier]
