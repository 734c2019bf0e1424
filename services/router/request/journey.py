"""What is known of one request on its way, and who hears its answer."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from services.router.policy.cascade import Cascade
from services.router.policy.certainty import Certainty
from services.router.policy.decision import CacheOutcome, Decision
from services.router.policy.levers import TRIMMING
from services.router.policy.routes import Tier
from services.router.ports import Asked, EngineFigures, Finish, Message
from services.router.wire.requests import Checked


class Listener(Protocol):
    """Takes the answer as it comes; an exception from here means that the caller has gone."""

    async def started(self, decision: Decision) -> None:
        """The decision stands; text follows."""

    async def piece(self, text: str, tokens: int) -> None:
        """The next text, never empty, and the tokens it stands for."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one tier made of the request.

    Attributes:
        rung: its number on the ladder.
        text: its answer; as far as it came.
        complete: it came to its end.
        certainty: of the answer, where it was asked for and is known.
        valid: it has the wanted form.
        micro_usd: what it cost.
        engine_seconds: as the replica measured; None where it did not say.
    """

    rung: int
    text: str
    complete: bool
    certainty: Certainty | None
    valid: bool
    micro_usd: int
    engine_seconds: float | None


@dataclass(slots=True)
class Journey:
    """What is known of one request on its way. Times are monotonic seconds.

    Attributes:
        until: when the caller's deadline passes.
        until_is_ours: the caller set none, or a later one than the route grants.
        halted: the route's levers that are halted, as they were when it came.
        propensity: probability with which it is drawn as evidence.
        drawn: it is.
        climb: the way up the ladder; None until a tier is chosen.
        attempts: tiers that ran, in order.
        pieces: the answer so far.
        baseline_prompt_tokens: of the prompt before trimming; 0 where nothing was left out.
        spent_micro_usd: paid for tiers whose answers did not stand.
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
    climb: Cascade | None = None
    attempts: list[Attempt] = field(default_factory=list)
    decision: Decision | None = None
    cache: CacheOutcome = CacheOutcome.NOT_ASKED
    lease: str = ""
    pieces: list[tuple[str, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    baseline_prompt_tokens: int = 0
    output_tokens: int = 0
    finish: Finish = Finish.STOP
    figures: EngineFigures = field(default_factory=EngineFigures)
    micro_usd: int = 0
    baseline_micro_usd: int = 0
    spent_micro_usd: int = 0
    queued_seconds: float = 0.0
    first_text_at: float | None = None
    last_text_at: float = 0.0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join([text for text, _ in self.pieces])

    @property
    def turns(self) -> tuple[Message, ...]:
        """The conversation as models get it."""
        shorter = self.checked.shorter
        if shorter is None or TRIMMING in self.halted:
            return self.checked.asked.turns
        return shorter

    @property
    def asked(self) -> Asked:
        """What models are asked; answers are stored under it, those to trimmed prompts apart."""
        asked = self.checked.asked
        return replace(asked, turns=self.turns) if self.trimmed else asked

    @property
    def trimmed(self) -> bool:
        """Whether models get less than what was asked."""
        return self.turns is not self.checked.asked.turns

    def note_text(self, text: str, tokens: int) -> None:
        """Takes the next text of the answer and the tokens it stands for."""
        now = time.monotonic()
        if self.first_text_at is None:
            self.first_text_at = now
        self.last_text_at = now
        self.pieces.append((text, tokens))

    def settle(self, tier: Tier | None) -> None:
        """Fills in money; without a tier nothing ran."""
        price = tier.price.of(self.prompt_tokens, self.output_tokens) if tier is not None else 0
        self.micro_usd = self.spent_micro_usd + price
        self.baseline_micro_usd = self.checked.route.top_tier.price.of(
            self.baseline_prompt_tokens or self.prompt_tokens, self.output_tokens
        )

    def take_back(self, tier: Tier) -> None:
        """Forgets the answer of a tier that did not stand, but not what it cost."""
        self.spent_micro_usd += tier.price.of(self.prompt_tokens, self.output_tokens)
        self.micro_usd = self.spent_micro_usd
        self.forget()

    def forget(self) -> None:
        """Forgets what came of a run of which nothing was told: another one begins anew."""
        self.pieces.clear()
        self.output_tokens = 0
        self.figures = EngineFigures()
        self.first_text_at = None
