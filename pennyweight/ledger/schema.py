"""What a ledger's lines say: each line is one of these records, as a JSON object.

A folder holds lines of all kinds, told apart by `kind`. All are written with `SCHEMA`; the lines of
before carry no `schema` and differ in what `reader` makes up for. Fields are never renamed and
never change their meaning within a schema; new ones may come, so readers ignore what they do not
know. This module imports the standard library alone, and its records are serialised as they stand
by `orjson.dumps`. The page docs/ledger.md has the same fields for readers of the files.

Times are as `time_text` spells them. Money is whole micro-USD, at the prices in force when the
request ran. Durations are milliseconds. "Null" below is JSON's, Python's None.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SCHEMA = 2
"""Of the records below. 1 are lines without the field `schema`."""

CAUSES: Mapping[str, str] = {
    "first": "the request's first run",
    "retry": "the run before it failed before anything of it was sent",
    "escalation": "the answer of a lower tier did not stand",
    "evidence": "it ran for comparison alone, and nobody was sent its answer",
}
"""Why an attempt ran: the values of `AttemptRecord.cause`."""

VERDICTS: Mapping[str, str] = {
    "stood": "its answer is the request's",
    "unsure": "its tier was not certain enough of its answer",
    "invalid": "its answer had not the wanted form",
    "failed": "its replica failed or refused",
    "left": "the caller had gone, and it was ended",
    "outlived": "the caller had gone, and it ran to its end for others or because it had to drain",
    "evidence": "its answer was for comparison alone",
}
"""What became of an attempt: the values of `AttemptRecord.verdict`."""


def time_text(unix_seconds: float) -> str:
    """The ledger's one spelling of a time: ``2026-11-28T15:42:19.123Z``.

    It is RFC 3339, in UTC, to the millisecond; such texts sort as their times do.
    """
    text = dt.datetime.fromtimestamp(unix_seconds, dt.UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One run on one replica; every unit of engine work stands in exactly one.

    Attributes:
        tier: the tier that ran.
        model: the model it served.
        precision: of that model's weights.
        replica: the replica it ran on.
        cause: why it ran; one of the causes.
        verdict: what became of it; one of the verdicts.
        prompt_tokens: tokens that the engine read; 0 where it refused the request.
        output_tokens: tokens that the engine made, sent or not.
        engine_ms: engine time; null where the engine did not say.
        micro_usd: price of its tokens, by the tier's price.
        committed: something of it was sent to the caller, so it could not be taken back.
        estimated: its tokens are an estimate, as the engine could not be asked.
        began_ms: from the request's arrival to its start.
        took_ms: from its start to its end.
    """

    tier: str
    model: str
    precision: str
    replica: str
    cause: str
    verdict: str
    prompt_tokens: int
    output_tokens: int
    engine_ms: float | None
    micro_usd: int
    committed: bool
    estimated: bool
    began_ms: float
    took_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that was taken, answered or not, with everything that ran for it.

    It is written when its last attempt has ended, which may be a minute after the caller was
    answered. Requests refused before anything was decided leave no record.

    Attributes:
        kind: always ``request``.
        schema: always 2.
        time: when the request ended.
        request_id: name of the request; pairs and outcomes of it carry the same.
        sequence: its place among the requests that its process has answered, counted from 1. The
            name of the file says which process; a number that no line of it has was lost.
        handle: signed name that its caller got, and may send outcomes with.
        tenant: the tenant whose key it came with.
        route: the route it was sent to.
        priority: class of its priority: ``critical``, ``interactive``, ``batch`` or ``background``.
        idempotency_key: the caller's key, equal in retries of one call; empty where none was sent.
        attributes: labels that the caller sent, as team or feature; may be empty.
        status: name of the gRPC code it ended with; ``OK`` where it was answered, ``CANCELLED``
            where the caller hung up, or the router stopped before the answer was complete.
        policy_version: version of the policies that decided.
        calibration_version: version of the calibration that decided; empty where none did.
        tier: the tier that answered, or that wrote the stored answer; empty where none did.
        model: that tier's model; empty where none answered.
        precision: of that model's weights; empty where none answered.
        replica: the replica that answered; empty for a stored answer, and where none did.
        reason: why this tier, a `Reason` of the router's proto in small letters; empty where none
            answered.
        cache: what the cache had: ``not_asked``, ``miss``, ``exact``, ``shared`` or
            ``unavailable``.
        prompt_tokens: tokens of the prompt, as the answering tier read it.
        output_tokens: tokens of the answer, as far as it came.
        reused_prompt_tokens: tokens of the prompt that the replica had ready from before; null
            where it did not say.
        engine_ms: engine time of all attempts; null where no engine said.
        queued_ms: wait for a place on replicas.
        first_text_ms: from arrival to the first text sent; null where none was.
        total_ms: from arrival until the caller had its answer or was gone.
        micro_usd: what it is charged: the sum over its attempts, evidence included.
        baseline_micro_usd: what the same answer would have cost on the route's top tier, without a
            cache.
        estimated: some of its tokens are an estimate; the attempts say which.
        attempts: everything that ran for it, by when it began; empty for a stored answer.
    """

    kind: Literal["request"] = field(default="request", init=False)
    schema: int = field(default=SCHEMA, init=False)
    time: str
    request_id: str
    sequence: int
    handle: str
    tenant: str
    route: str
    priority: str
    idempotency_key: str
    attributes: Mapping[str, str]
    status: str
    policy_version: str
    calibration_version: str
    tier: str
    model: str
    precision: str
    replica: str
    reason: str
    cache: str
    prompt_tokens: int
    output_tokens: int
    reused_prompt_tokens: int | None
    engine_ms: float | None
    queued_ms: float
    first_text_ms: float | None
    total_ms: float
    micro_usd: int
    baseline_micro_usd: int
    estimated: bool
    attempts: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertaintyRecord:
    """How certain a model was of its answer, in log-probabilities; 0 is entirely certain.

    Attributes:
        mean: over the answer's tokens.
        minimum: of its least certain token.
        first_k: mean over its first tokens, as many as the pair's `first_k` says.
    """

    mean: float
    minimum: float
    first_k: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRecord:
    """What one tier made of a pair's request.

    Attributes:
        tier: name of the tier.
        model: the model it served.
        precision: of that model's weights.
        version: of that model's weights; empty where the policies give none.
        quality: quality of its answer, in [0, 1]; null where nobody judged it.
        certainty: certainty of its answer; null where unknown.
        valid: its answer has the form that the request wants.
        micro_usd: price of its run, which stands in the request's attempts.
        engine_ms: engine time of its run; null where the engine did not say.
    """

    tier: str
    model: str
    precision: str
    version: str
    quality: float | None
    certainty: CertaintyRecord | None
    valid: bool
    micro_usd: int
    engine_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A message of a conversation.

    Attributes:
        role: whose message it is, as ``user``.
        content: text of the message.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecord:
    """Texts of a pair; kept only where the route says `keep_text`.

    Attributes:
        messages: the request's, oldest first.
        answers: the answers that were compared, in the order of the pair's `digests`.
    """

    messages: tuple[MessageRecord, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRecord:
    """One request that several tiers answered: evidence for calibration and guardrail.

    Attributes:
        kind: ``pair``; ``cached_pair`` where the caller got a stored answer, which is compared
            with the top tier's.
        schema: always 2.
        time: when all of it had run and was judged, or could not be.
        request_id: the request's name, as in its own record.
        tenant: the request's.
        route: the request's.
        policy_version: version of the policies that decided.
        calibration_version: version of the calibration that decided; empty where none did.
        propensity: probability in (0, 1] with which such a request is drawn as evidence.
        uniform: the propensity depended on the time alone, and on nothing of the request.
        judge: kind of the judge: ``match``, ``similarity``, ``schema``, ``model`` or ``outcome``.
        answered: the tier whose answer the caller got; empty for a stored answer.
        question: keyed digest of the conversation and the wanted form, the same for all who ask it;
            empty where routers have no key file for it.
        features: hashed features of the prompt: [index, value] of those that are not 0.
        first_k: how many first tokens the certainties' `first_k` looks at; null where the route
            has no quality policy.
        tiers: the tiers that answered, cheapest first; of a ``cached_pair`` the top tier alone.
        qualities: quality of each answer that was compared, in the order of `digests`; null where
            nobody judged them.
        digests: keyed digests of the answers: of the stored one first, if there is one; then of
            each tier's; then, where the prompt had been trimmed, of the top tier's to all of it.
        trimmed: models got less of the prompt than the caller sent.
        shadow_micro_usd: price of the runs for evidence alone. It stands in the request's attempts
            and is charged there: never add it to the request's `micro_usd`.
        text: prompt and answers; null unless the route keeps them.
    """

    kind: Literal["pair", "cached_pair"]
    schema: int = field(default=SCHEMA, init=False)
    time: str
    request_id: str
    tenant: str
    route: str
    policy_version: str
    calibration_version: str
    propensity: float
    uniform: bool
    judge: str
    answered: str
    question: str
    features: tuple[tuple[int, float], ...]
    first_k: int | None
    tiers: tuple[TierRecord, ...]
    qualities: tuple[float, ...] | None
    digests: tuple[str, ...]
    trimmed: bool
    shadow_micro_usd: int
    text: TextRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRecord:
    """What a caller said of an answer. The first record of a request counts.

    Attributes:
        kind: always ``outcome``.
        schema: always 2.
        time: when it was said.
        request_id: the request's name, as in its own record.
        tenant: the request's.
        route: the request's.
        resolved: whether the answer did what it was asked for; null where that was not said.
        rating: from -1 to 1; null where none was given.
        corrected_digest: keyed digest of the answer it should have been, to compare with the
            pair's `digests`; null where none was given.
    """

    kind: Literal["outcome"] = field(default="outcome", init=False)
    schema: int = field(default=SCHEMA, init=False)
    time: str
    request_id: str
    tenant: str
    route: str
    resolved: bool | None
    rating: float | None
    corrected_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRecord:
    """What a router that was killed could not write; the next one to start makes it.

    Attributes:
        kind: always ``gap``.
        schema: always 2.
        time: when it was found.
        process: which process was killed, as in the names of its files.
        last_seen: when it last said how far it was; what it answered after that, up to half a
            second where the disk is slow, is in no record and in none of these counts, nor is what
            was under way when it was killed. Empty where it never could: then nobody knows how many
            requests are missing.
        requests: that it had answered by then; lines of it with a higher `sequence` were written
            after that.
        missing: of them, those whose record was not written by then; at least so many requests
            are missing.
    """

    kind: Literal["gap"] = field(default="gap", init=False)
    schema: int = field(default=SCHEMA, init=False)
    time: str
    process: str
    last_seen: str
    requests: int
    missing: int


LedgerRecord = RequestRecord | PairRecord | OutcomeRecord | GapRecord

KINDS: Mapping[str, type[LedgerRecord]] = {
    "request": RequestRecord,
    "pair": PairRecord,
    "cached_pair": PairRecord,
    "outcome": OutcomeRecord,
    "gap": GapRecord,
}
"""The record of each kind."""
