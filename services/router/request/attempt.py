"""One try of one tier on one replica: its place there, its answer so far, and what it took.

Retry, escalation and evidence are each an attempt, as hedge and replay will be. It ends exactly
once, with its tokens, its price and its verdict; what it is to do stands in `plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from services.common.errors import InternalError, ServiceError
from services.router.fleet.place import Place
from services.router.policy.certainty import Certainty, certainty_of
from services.router.policy.patience import usual
from services.router.ports import EngineCall, EngineFigures, Finish, Piece, ReplicaFailed
from services.router.request.plan import Cause, HoldBack, Plan


class Ending(StrEnum):
    """What became of an attempt; values are the ledger's verdicts."""

    STOOD = "stood"
    UNSURE = "unsure"
    INVALID = "invalid"
    FAILED = "failed"
    LEFT = "left"
    OUTLIVED = "outlived"
    EVIDENCE = "evidence"


@dataclass(slots=True)
class Answer:
    """What has come of an answer. Times are seconds of the router's clock.

    Attributes:
        prompt_tokens: of the prompt, as its tier reads it.
        output_tokens: of the answer.
        pieces: text and the tokens it stands for, as they came.
        finish: why it ended.
        figures: what its replica measured.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    pieces: list[tuple[str, int]] = field(default_factory=list)
    finish: Finish = Finish.STOP
    figures: EngineFigures = field(default_factory=EngineFigures)
    first_text_at: float | None = None
    last_text_at: float = 0.0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join([text for text, _ in self.pieces])

    def note(self, text: str, tokens: int, now: float) -> None:
        """Takes the next text, never empty, and the tokens it stands for."""
        if self.first_text_at is None:
            self.first_text_at = now
        self.last_text_at = max(self.last_text_at, now)  # some of what was held back came before
        self.pieces.append((text, tokens))


@dataclass(slots=True, eq=False)
class Attempt:
    """One try.

    Attributes:
        plan: what it is to do.
        cause: why it was made: the plan's, or because the one before failed.
        place: its room on a replica, until it ends or goes on elsewhere.
        began: when it was started there.
        hold: what is kept back; None once the answer stands, or where nothing is.
        answer: as it came.
        call: to the engine; None until it is started.
        complete: the answer is whole, though the replica may still be at work.
        ending: what became of it; None until that is known.
        has_log_probs: its engine tells them, as `Capabilities` says.
        over: the replica took no work for it, or has said that nothing more comes of it.
        left_at: when nobody wanted it any more; None where it ran as far as it could.
        valid: its answer has the wanted form.
        committed: something of it was told to the caller.
        guessed_tokens: that it has made by estimate, where the replica did not say.
        ended_at: when nothing of it ran any more.
        heard_at: when its replica said something last; None where it has not.
        movable: another one may still be made in its place.
        trusting: nothing was held against its replica when it began.
    """

    plan: Plan
    cause: Cause
    place: Place
    began: float
    hold: HoldBack | None = None
    answer: Answer = field(default_factory=Answer)
    call: EngineCall | None = None
    complete: bool = False
    ending: Ending | None = None
    has_log_probs: bool | None = None
    over: bool = False
    valid: bool = True
    committed: bool = False
    left_at: float | None = None
    guessed_tokens: int = 0
    ended_at: float | None = None
    heard_at: float | None = None
    movable: bool = True
    trusting: bool = True

    @property
    def replica(self) -> str:
        """Id of the replica it runs on."""
        return self.place.replica.id

    @property
    def output_tokens(self) -> int:
        """Tokens that the engine has made for it, sent or not, as far as is known."""
        return max(self.call.output_tokens if self.call else 0, self.guessed_tokens)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens that the engine has read for it; 0 where it refused the work."""
        idle = self.call is None or (self.ending is Ending.FAILED and not self.output_tokens)
        return 0 if idle else len(self.plan.prompt.tokens)

    @property
    def micro_usd(self) -> int:
        """What that costs at the tier's price."""
        return self.plan.step.tier.price.of(self.prompt_tokens, self.output_tokens)

    @property
    def estimated(self) -> bool:
        """Whether the engine has not said how far it came."""
        return self.call is not None and not self.call.final and not self.over

    @property
    def heard(self) -> bool:
        """Whether its replica has said anything, be it in answer to the wish to stop."""
        call = self.call
        if call is None:
            return True  # it was asked for nothing
        said = call.final or call.output_tokens > 0 or call.figures.engine_seconds is not None
        return said or self.heard_at is not None

    @property
    def engine_seconds(self) -> float | None:
        """As the replica measured; None where it did not say."""
        return self.call.figures.engine_seconds if self.call is not None else None

    def patience(self) -> float:
        """How long a silence of the replica is usual now, in seconds."""
        plan = self.plan
        return usual(
            plan.step.tier,
            streams=plan.streams,
            most=plan.max_output_tokens,
            begun=self.answer.output_tokens > 0,
        )

    def leave(self, now: float) -> None:
        """Nobody wants it any more."""
        self.ending, self.left_at = Ending.LEFT, now

    def fail(self, error: ReplicaFailed | ServiceError, now: float) -> None:
        """Its replica or its engine gave it up."""
        self.ending = Ending.FAILED
        if isinstance(error, ReplicaFailed):
            self.over = error.refused
            self.left_at = self.began if error.silent else now
        else:
            self.over = not isinstance(error, InternalError)
            self.left_at = now

    def take(self, piece: Piece, now: float) -> None:
        """Notes what has come, as of when it did: who reads slowly may take it later, at `now`."""
        answer, call = self.answer, self.call
        if call is not None and call.heard_at is not None:
            now = call.heard_at
        self.heard_at = now
        answer.output_tokens += piece.tokens
        if self.hold is not None:
            self.hold.pieces.append((piece.text, piece.tokens))
        elif piece.text:
            answer.note(piece.text, piece.tokens, now)
        if piece.ended and call is not None:
            self.complete = True
            answer.finish, answer.figures = call.finish_reason, call.figures

    def release(self, now: float) -> Piece:
        """Lets go of what was held back, as its answer stands; returns it as one piece."""
        hold, self.hold = self.hold, None
        pieces = hold.pieces if hold is not None else []
        for text, tokens in pieces:
            if text:
                self.answer.note(text, tokens, now)
        text = "".join([text for text, _ in pieces])
        return Piece(text, sum([tokens for _, tokens in pieces]), self.complete)

    @property
    def text(self) -> str:
        """What has come, held back or not."""
        return self.hold.text if self.hold is not None else self.answer.text

    def certainty(self, first_k: int) -> Certainty | None:
        """How sure the model was of what has come; None where that is not known.

        `first_k` is how many tokens `Certainty.first_k` looks at.
        """
        tokens = self.answer.output_tokens
        log_probs: Sequence[float] | None = None
        if self.call is not None and tokens:
            log_probs = self.call.log_probs(tokens)
        if log_probs is None:
            return None
        return certainty_of(log_probs, first_k, reported=self.has_log_probs)
