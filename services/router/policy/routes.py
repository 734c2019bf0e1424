"""Routes, tiers and prices as the policy files declare them, and the choice of a tier."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.router.policy.calibration import Certificate, Judgement
from services.router.policy.drift import Bands


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

    def affords(self, micro_usd: int, prompt_tokens: int, most: int) -> int:
        """Output tokens that so much money pays for, at most `most`; negative: not the prompt."""
        left = micro_usd * 1_000_000 - prompt_tokens * self.prompt
        if left < 0:
            return -1
        return most if self.output == 0 else min(most, left // self.output)


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
        version: of the model's weights, as calibrations name it; empty where nobody counts.
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
    version: str = ""


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
    address: str = ""
    timeout_seconds: float = 10.0
    least_similarity: float = 0.0


@dataclass(frozen=True)
class EvidencePolicy:
    """How a route gathers paired evidence: requests that every tier answers, in the background.

    Attributes:
        share: of requests, while a calibration is in force and nothing is halted.
        share_until_calibrated: of requests, while there is none or a lever is halted.
        keep_text: the ledger's pairs carry prompt and answers.
        most_running: pairs that a router makes at once; more are left out and counted.
        seconds: a pair that is not complete by then is given up.
        judging: who says how good the answers are.
    """

    share: float = 0.05
    share_until_calibrated: float = 0.2
    keep_text: bool = False
    most_running: int = 4
    seconds: float = 60.0
    judging: Judging = field(default_factory=Judging)


@dataclass(frozen=True)
class Calibrated:
    """A calibration in force; see `calibrate.artefact` for the file it comes in.

    Attributes:
        version: names it in decisions.
        judgement: what decides.
        certificate: what was proved.
        bands: what traffic looked like.
        level: mean loss that was measured, in the terms of the judge that watches the route.
    """

    version: str
    judgement: Judgement
    certificate: Certificate
    bands: Bands
    level: float


@dataclass(frozen=True)
class Quality:
    """What a route asks of its answers, and how its tier is chosen for it.

    Attributes:
        tolerance: most quality that may be lost on average against the top tier, in (0, 1).
        confidence: probability with which a certificate is right, in (0, 1).
        hold: what is held back until a lower tier's answer stands.
        first_tokens: how many tokens `Hold.TOKENS` holds.
        run_length: judged samples between false halts of the guardrail, on average and at least.
        evidence: how it is gathered.
        calibration: the one in force; None sends every request to the top tier.
        artefact: path of the file that it comes from, for the calibrate command.
    """

    tolerance: float
    confidence: float = 0.95
    hold: Hold = Hold.ANSWER
    first_tokens: int = 8
    run_length: float = 100_000.0
    evidence: EvidencePolicy = field(default_factory=EvidencePolicy)
    calibration: Calibrated | None = None
    artefact: str = ""

    @property
    def first_k(self) -> int:
        """Tokens that `Certainty.first_k` looks at: those of the calibration in force."""
        calibration = self.calibration
        return calibration.judgement.first_k if calibration is not None else self.first_tokens


@dataclass(frozen=True)
class Limits:
    """What a request may take at most; None for no limit.

    Attributes:
        micro_usd: money, at the price list, for all tiers that it runs on together.
        seconds: time to the whole answer; a longer deadline of the caller's is cut to it.
    """

    micro_usd: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Trimming:
    """What is left out of prompts; a lever, off by default.

    Attributes:
        white_space: runs of blanks and of empty lines become one.
        history_turns: user turns that are kept, the last one included; None keeps all.
        passages: retrieved passages that are kept, the most relevant; None keeps all.
    """

    white_space: bool = False
    history_turns: int | None = None
    passages: int | None = None

    @property
    def on(self) -> bool:
        """Whether anything is left out at all."""
        return self != Trimming()


@dataclass(frozen=True)
class Route:
    """A use of the system with its own policy.

    Attributes:
        name: unique.
        description: what it is for.
        ladder: tiers, cheapest first.
        fixed_tier: the tier that answers every request; None where `quality` chooses.
        default_output_tokens: when the request does not say.
        max_output_tokens: the most a request may ask for.
        default_deadline_seconds: when the caller sets none.
        shortest_deadline_seconds: a request with less time left is refused at once.
        cache: how cached answers are used.
        tenants: who may use the route; empty means everybody.
        quality: how the tier is chosen; None where `fixed_tier` is.
        limits: what a request may take.
        trimming: what is left out of prompts.
    """

    name: str
    description: str
    ladder: tuple[Tier, ...]
    fixed_tier: Tier | None
    default_output_tokens: int
    max_output_tokens: int
    default_deadline_seconds: float
    shortest_deadline_seconds: float
    cache: CachePolicy
    tenants: frozenset[str]
    quality: Quality | None = None
    limits: Limits = field(default_factory=Limits)
    trimming: Trimming = field(default_factory=Trimming)

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
