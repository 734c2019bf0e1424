"""One request: what is fixed when it comes, and what becomes of it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.router.policy.cascade import Cascade
from services.router.policy.decision import CacheOutcome, Candidate, Decision, Reason
from services.router.policy.levers import TRIMMING
from services.router.policy.prompts import Message
from services.router.policy.routes import Route
from services.router.ports import Asked, MakeRecord, TooLong, Written
from services.router.request.attempt import Answer, Attempt
from services.router.request.checked import Checked
from services.router.request.plan import Cause


class Listener(Protocol):
    """Takes the answer as it comes; an exception from here means that the caller has gone."""

    async def started(self, decision: Decision) -> None:
        """The decision stands; text follows."""

    async def piece(self, text: str, tokens: int) -> None:
        """The next text, never empty, and the tokens it stands for."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks for what, and under which rules. Times are seconds of the router's clock.

    Attributes:
        arrived: when it came.
        until: when its deadline passes.
        until_is_ours: the caller set none, or a later one than the route grants.
        streaming: the caller takes the answer in pieces.
        halted: the route's levers that are halted, as they were when it came.
        propensity: probability with which it is drawn as evidence.
        drawn: it is.
    """

    request_id: str
    handle: str
    tenant: str
    checked: Checked
    arrived: float
    until: float
    streaming: bool
    until_is_ours: bool = False
    halted: Collection[str] = ()
    propensity: float = 0.0
    drawn: bool = False

    @property
    def route(self) -> Route:
        """The route it asks."""
        return self.checked.route

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as models get it."""
        shorter = self.checked.shorter
        if shorter is None or TRIMMING in self.halted:
            return self.checked.asked.messages
        return shorter

    @property
    def trimmed(self) -> bool:
        """Whether models get less than what was asked."""
        return self.messages is not self.checked.asked.messages

    @property
    def asked(self) -> Asked:
        """What models are asked; answers are stored under it, those to trimmed prompts apart."""
        asked = self.checked.asked
        return replace(asked, messages=self.messages) if self.trimmed else asked


@dataclass(slots=True, eq=False)
class RequestState:
    """What has become of a request; all money comes from its attempts.

    It is settled once it has ended and nothing runs for it any more: an attempt may outlive its
    caller, or drain, and evidence is gathered behind the caller's back.

    Attributes:
        settled: hears when that is.
        cascade: the way up the ladder; None until a tier is chosen.
        attempts: everything that ran for it, as it began.
        cache: what the cache had to say.
        decision: what was decided last.
        committed: the caller was told so; from here on the model does not change.
        answer: that the caller gets, or that of the last attempt.
        baseline_prompt_tokens: of the prompt before trimming, as the top tier reads it; 0 where
            nothing was left out.
        queued_seconds: waited for places.
        status: the gRPC code's name, once it has ended.
        ended_at: when that was.
        sequence: its place among the requests that the process has answered; 0 before that.
        baseline_micro_usd: what the top tier alone would have been charged for the answer, as far
            as it had come when the request ended; 0 where nobody was told anything of one.
        give_way: has others who ask the same wait no longer for this answer.
        further_records: made and kept with the request's own, once it is settled.
    """

    context: RequestContext
    settled: Callable[["RequestState"], None] = lambda _: None
    cascade: Cascade | None = None
    attempts: list[Attempt] = field(default_factory=list)
    cache: CacheOutcome = CacheOutcome.NOT_ASKED
    decision: Decision | None = None
    committed: bool = False
    answer: Answer = field(default_factory=Answer)
    baseline_prompt_tokens: int = 0
    queued_seconds: float = 0.0
    status: str = ""
    ended_at: float = 0.0
    sequence: int = 0
    baseline_micro_usd: int = 0
    give_way: Callable[[], None] = lambda: None
    further_records: list[MakeRecord] = field(default_factory=list)
    encoded: dict[object, Sequence[int] | TooLong] = field(default_factory=dict)
    _open: int = 1

    @property
    def micro_usd(self) -> int:
        """Charged so far, at the price list: for every attempt, whatever became of it."""
        return sum([attempt.micro_usd for attempt in self.attempts])

    @property
    def engine_seconds(self) -> float | None:
        """Engine time of all attempts, as their replicas measured; None where none did."""
        found = [attempt.engine_seconds for attempt in self.attempts]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if known else None

    @property
    def estimated(self) -> bool:
        """Whether some of that is not known exactly, or may still grow."""
        others = self._open if self.status else self._open - 1
        return others > 0 or any(attempt.estimated for attempt in self.attempts)

    @property
    def charges(self) -> list[int]:
        """What each tier was charged for attempts that came to an ending, in micro-USD.

        Evidence is no part of the decision, nor of these.
        """
        charges = [0] * len(self.context.route.ladder)
        for attempt in self.attempts:
            if attempt.ending is not None and attempt.cause is not Cause.EVIDENCE:
                charges[attempt.plan.step.rung] += attempt.micro_usd
        return charges

    def begin(self, attempt: Attempt) -> None:
        """Takes a new attempt; `leave` follows once nothing of it runs any more."""
        self.attempts.append(attempt)
        self._open += 1
        if attempt.cause is not Cause.EVIDENCE:
            self.answer = attempt.answer

    def decide(self, replica: str, *, fleet_stale: bool) -> Decision:
        """The decision that the tier whose turn it is answers on a replica; empty for none yet."""
        cascade = self.cascade
        assert cascade is not None  # noqa: S101 -- it was chosen by one
        tier = cascade.step().tier
        return self.decided(
            tier.name,
            tier.model,
            tier.precision,
            replica=replica,
            reason=cascade.reason(),
            explanation=cascade.explanation(),
            fleet_stale=fleet_stale,
            candidates=cascade.candidates(),
            calibration_version=cascade.calibration_version,
        )

    def decided(
        self,
        tier: str,
        model: str,
        precision: str,
        *,
        reason: Reason,
        explanation: str,
        fleet_stale: bool,
        replica: str = "",
        candidates: tuple[Candidate, ...] = (),
        calibration_version: str = "",
    ) -> Decision:
        """A decision with what is known of the request; arguments are those of `Decision`."""
        context = self.context
        return Decision(
            route=context.route.name,
            policy_version=context.checked.policy_version,
            tier=tier,
            model=model,
            precision=precision,
            replica=replica,
            reason=reason,
            explanation=explanation,
            cache=self.cache,
            fleet_stale=fleet_stale,
            candidates=candidates,
            calibration_version=calibration_version,
            propensity=context.propensity,
            halted=tuple(sorted(context.halted)),
        )

    def commit(self, decision: Decision, attempt: Attempt | None) -> None:
        """What the caller is told from here on cannot be taken back.

        Args:
            decision: that stands.
            attempt: whose answer it gets; None for a stored one.
        """
        if self.committed:
            raise AssertionError("an answer is committed to once")
        self.committed, self.decision = True, decision
        if attempt is not None:
            attempt.committed = True

    def replay(self, answer: Written) -> None:
        """A stored answer is the caller's."""
        self.answer = Answer(
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            finish=answer.finish,
        )

    def end(self, status: str, now: float) -> None:
        """The caller has its answer, or is gone; `leave` follows."""
        self.status, self.ended_at = status, now
        if not self.committed:  # nobody saves by hanging up
            return
        answer = self.answer
        self.baseline_micro_usd = self.context.route.top_tier.price.of(
            self.baseline_prompt_tokens or answer.prompt_tokens, answer.output_tokens
        )

    def stay(self) -> None:
        """Something begins that belongs to the request and may outlast it; `leave` follows."""
        self._open += 1

    def leave(self) -> None:
        """The request, an attempt or what it stayed for has ended; the last one settles it."""
        self._open -= 1
        if not self._open:
            self.settled(self)
