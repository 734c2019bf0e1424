"""What callers get back, as plain frozen dataclasses.

Money is whole micro-USD (a millionth of a dollar), time is seconds, quality is from 0 to 1.
`reason`, `cache`, `verdict`, `state` and `finish_reason` are the contract's enum names in lower
case without their prefix: ``fixed_tier``, ``exact``, ``stop``. A name this version does not know
yet is its number.
"""

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tier of the ladder as the decision weighed it.

    Attributes:
        tier: its name.
        verdict: what became of it: ``chosen``, ``skipped``, ``unsure``, ``invalid``, ``halted``,
            ``limited``, ``unused``, ``not_reached`` or ``unavailable``.
        predicted_gain: quality that the top tier was predicted to gain over it, from -1 to 1; None
            where it was not predicted.
        skip_above_gain: it is skipped above this gain; None where it never is.
        certainty: of its answer, a log-probability of at most 0; None where it did not run, or did
            not say.
        accept_at_certainty: its answer stands at this certainty or above; None where any will do,
            or where it cannot run.
        micro_usd: paid for its run.
    """

    tier: str
    verdict: str
    predicted_gain: float | None = None
    skip_above_gain: float | None = None
    certainty: float | None = None
    accept_at_certainty: float | None = None
    micro_usd: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided and why; `explanation` says it in one sentence.

    `tier`, `model` and `precision` are those of the answer, also when it comes from the cache;
    `replica` is empty then. `fleet_stale`: the last known fleet was used. `candidates`: every tier
    of the ladder, cheapest first. `calibration_version` is empty where no calibration decided.
    `evidence_propensity`: probability with which such a request is answered by every tier in the
    background, as evidence. `halted_levers`: those of the route that are halted now.
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
    candidates: tuple[Candidate, ...] = ()
    calibration_version: str = ""
    evidence_propensity: float = 0.0
    halted_levers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `reused_prompt_tokens` is None where the replica does not say."""

    prompt_tokens: int
    output_tokens: int
    reused_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What was paid, and what the route's top tier without a cache would have cost.

    `estimated`: some of what was paid is an estimate, or may still grow, as a replica has not said
    how far it came, or works on for this request; the ledger has what was charged in the end.
    """

    micro_usd: int
    baseline_micro_usd: int
    estimated: bool = False

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
    """One rung of a ladder; prices are micro-USD per million tokens.

    `trouble`: why no replica serves it, and for operators which pools serve no tier; empty where
    all is well.
    """

    name: str
    model: str
    precision: str
    prompt_micro_usd_per_million: int
    output_micro_usd_per_million: int
    max_sequence_tokens: int
    ready_replicas: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class RouteQuality:
    """What a route asks of its answers, and what is certified; None where nothing is.

    Attributes:
        tolerance: most quality that may be lost on average against the top tier.
        calibration_version: of the calibration in force; empty where the top tier answers all.
        certified_bound: upper confidence limit of the loss.
        expected_escalation_rate: share of requests that will reach the top tier.
        expected_saving: share of the top tier's cost that is saved, evidence paid for.
    """

    tolerance: float
    calibration_version: str = ""
    certified_bound: float | None = None
    expected_escalation_rate: float | None = None
    expected_saving: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A use of the system with its own policy; the ladder is sorted cheapest first.

    `fixed_tier` answers every request; where it is empty, `quality` says how a tier is chosen.
    """

    name: str
    description: str
    ladder: tuple[Tier, ...]
    fixed_tier: str
    default_output_tokens: int
    max_output_tokens: int
    default_deadline_seconds: float
    quality: RouteQuality | None = None


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """A value of a policy file that breaks a rule.

    Attributes:
        rule: what is wrong, in words that say what would be valid.
        line: in the file, from 1; 0: none in particular.
        key: place of the value: keys and positions, with dots between them; empty: no single one.
        value: what stands there, shortened; empty: nothing, or the rule says it.
    """

    rule: str
    line: int = 0
    key: str = ""
    value: str = ""

    def __str__(self) -> str:
        """The problem as one sentence: place, rule, value."""
        line = f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        got = f", got {self.value}" if self.value else ""
        return f"{line}{key}{self.rule}{got}"


@dataclass(frozen=True, slots=True)
class PolicyRefusal:
    """A change of policy files that is not in force: what was in force before stays.

    `since`: when the files began to say something else than what is in force, in UTC. `file` and
    `problems` say what is wrong; they are empty for who is no operator.
    """

    since: dt.datetime
    file: str = ""
    problems: tuple[PolicyProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteList:
    """The routes a caller may use, by name, and the version of the policies in force.

    `refusal`: why a later change of the policy files is not in force; None: they are as they are.
    """

    routes: tuple[Route, ...]
    policy_version: str
    refusal: PolicyRefusal | None = None


@dataclass(frozen=True, slots=True)
class LeverWatch:
    """Where the guardrail's watch on a lever stands.

    Attributes:
        samples: judged so far.
        mean_loss: of those against the safer setting, from -1 to 1.
        allowed_loss: mean loss up to which the lever stays on: what was promised, and `level`.
        evidence: for a halt, as a share of what halts the lever; 1 or more is a halt.
        run_length: samples between false halts, on average and at least.
        level: the part of `allowed_loss` that the judge saw at calibration though all was well, as
            it speaks other terms than the certificate; 0 where they speak the same.
        worse_share: share of the samples whose answer was worse.
        allowed_worse_share: up to which the lever stays on; None where it is not watched.
    """

    samples: int
    mean_loss: float
    allowed_loss: float
    evidence: float
    run_length: float
    level: float = 0.0
    worse_share: float = 0.0
    allowed_worse_share: float | None = None


@dataclass(frozen=True, slots=True)
class Lever:
    """One way of saving of one route.

    Attributes:
        route: whose it is.
        name: ``tier:<name>``, ``precision:<name>``, ``trimming`` or ``cache``.
        state: ``on``, ``halted``, or ``unknown``, as what routers share cannot be reached: it
            counts as halted there.
        author: who set it last: a person's name or ``guardrail``; empty where nobody did.
        reason: why, in their words.
        since: when, in UTC; None where nobody set it.
        expires: when a halt ends by itself, in UTC; None where it stays.
        watch: the guardrail's; None where nothing watches this lever.
        unsaved: only the router that was asked knows of the halt, until it can be written to what
            routers share; it is lost if that router restarts before.
    """

    route: str
    name: str
    state: str
    author: str = ""
    reason: str = ""
    since: dt.datetime | None = None
    expires: dt.datetime | None = None
    watch: LeverWatch | None = None
    unsaved: bool = False


@dataclass(frozen=True, slots=True)
class RouteWatch:
    """Where the watch on what all levers of a route lose together stands.

    Attributes:
        route: whose they are.
        watch: the guardrail's; None while the router cannot tell.
    """

    route: str
    watch: LeverWatch | None


@dataclass(frozen=True, slots=True)
class LeverList:
    """Levers by route and name, and the version of the policies in force.

    Attributes:
        levers: by route and name.
        policy_version: of the policies in force.
        totals: of each listed route with several levers, by route.
    """

    levers: tuple[Lever, ...]
    policy_version: str
    totals: tuple[RouteWatch, ...] = ()
