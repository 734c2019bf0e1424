"""What one tier is to do for a request, and what is kept back of its answer."""

from dataclasses import dataclass, field
from enum import StrEnum

from services.router.policy.cascade import Step
from services.router.policy.line import Priority
from services.router.ports import Prompt


class Cause(StrEnum):
    """Why an attempt is made; values are the ledger's."""

    FIRST = "first"
    RETRY = "retry"
    ESCALATION = "escalation"
    EVIDENCE = "evidence"


@dataclass(slots=True)
class HoldBack:
    """What has come of an answer that may not be told yet.

    Attributes:
        first_tokens: how many tokens it is judged by; None for the whole answer.
        pieces: text and the tokens it stands for.
    """

    first_tokens: int | None
    pieces: list[tuple[str, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What has come."""
        return "".join([text for text, _ in self.pieces])

    def again(self) -> "HoldBack":
        """The same for another attempt, of which nothing has come."""
        return HoldBack(self.first_tokens)

    def is_ready(self, tokens: int, *, complete: bool) -> bool:
        """Whether enough has come to judge it."""
        return complete or (self.first_tokens is not None and tokens >= self.first_tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one tier is to do for a request.

    Attributes:
        step: the tier, and whether its answer must pass a check.
        prompt: as that tier gets it.
        max_output_tokens: most tokens it may add.
        began: when its turn came.
        until: when a place on a replica is no longer waited for.
        deadline: when nobody waits for the answer any more.
        cause: why.
        priority: standing in the line for a place.
        hold: how its answer is kept back; None where nothing is.
        streams: the replica is to send text as it is made.
    """

    step: Step
    prompt: Prompt
    max_output_tokens: int
    began: float
    until: float
    deadline: float
    cause: Cause
    priority: Priority
    hold: HoldBack | None
    streams: bool
