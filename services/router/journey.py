"""What is known of one request on its way, and who hears its answer."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from services.router.policy.decision import CacheOutcome, Decision
from services.router.policy.routes import Tier
from services.router.ports import EngineFigures, Finish
from services.router.requests import Checked


class Listener(Protocol):
    """Takes the answer as it comes; an exception from here means that the caller has gone."""

    async def started(self, decision: Decision) -> None:
        """The decision stands; text follows."""

    async def piece(self, text: str, tokens: int) -> None:
        """The next text, never empty, and the tokens it stands for."""


@dataclass(slots=True)
class Journey:
    """What is known of one request on its way. Times are monotonic seconds.

    Attributes:
        until: when the caller's deadline passes.
        until_is_ours: the caller set none; the route's default holds.
        pieces: the answer so far.
    """

    request_id: str
    handle: str
    tenant: str
    checked: Checked
    arrived: float
    until: float
    streaming: bool
    until_is_ours: bool = False
    decision: Decision | None = None
    cache: CacheOutcome = CacheOutcome.NOT_ASKED
    lease: str = ""
    pieces: list[tuple[str, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish: Finish = Finish.STOP
    figures: EngineFigures = field(default_factory=EngineFigures)
    micro_usd: int = 0
    baseline_micro_usd: int = 0
    queued_seconds: float = 0.0
    first_text_at: float | None = None
    last_text_at: float = 0.0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join([text for text, _ in self.pieces])

    def note_text(self, text: str, tokens: int) -> None:
        """Takes the next text of the answer and the tokens it stands for."""
        now = time.monotonic()
        if self.first_text_at is None:
            self.first_text_at = now
        self.last_text_at = now
        self.pieces.append((text, tokens))

    def settle(self, tier: Tier | None) -> None:
        """Fills in money; without a tier nothing ran."""
        tokens = self.prompt_tokens, self.output_tokens
        self.micro_usd = tier.price.of(*tokens) if tier is not None else 0
        self.baseline_micro_usd = self.checked.route.top_tier.price.of(*tokens)
