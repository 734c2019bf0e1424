"""One request on one replica: what has come of it, what is held back, how it ends."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from services.common.errors import ServiceError
from services.router.fleet.fleet import Replica
from services.router.policy import cascade
from services.router.policy.routes import Cancel
from services.router.policy.stop_texts import StopTexts
from services.router.ports import Detokenizer, EngineChunk, EngineRun, Finish, ReplicaFailed
from services.router.request.hold import Held, certainty
from services.router.request.journey import Attempt, Journey

TOKENS_A_PAUSE = 64


@dataclass(frozen=True, slots=True)
class Leg:
    """One tier's turn at a request.

    Attributes:
        turn: whose.
        prompt: in that tier's tokens.
        limit: most tokens it may add.
        began: when the turn came, in monotonic seconds.
        until: when a place on a replica is no longer waited for.
    """

    turn: cascade.Step
    prompt: Sequence[int]
    limit: int
    began: float
    until: float


@dataclass(slots=True)
class ReplicaRun:
    """A request that a replica works on, with all that is needed to carry it to its end.

    Attributes:
        limit: most tokens it may add.
        streaming: tokens come as they are made.
        held: what is kept back; None once the answer stands.
        log_probs: of all tokens so far, where asked for.
        ended: the answer is complete, though perhaps not yet told.
        final: the replica has said all it will say.
        draining: it is read to its end for nobody, and keeps its place until then.
    """

    engine: EngineRun
    replica: Replica
    turn: cascade.Step
    text: Detokenizer
    stops: StopTexts
    limit: int
    streaming: bool
    held: Held | None
    log_probs: Sequence[float] | None = None
    ended: bool = False
    final: bool = False
    draining: bool = False

    def patience(self, journey: Journey) -> float:
        """How long the replica may stay silent now, in seconds."""
        tier = self.turn.tier
        if journey.output_tokens:
            return tier.idle_seconds
        if self.streaming:
            return tier.first_token_seconds
        # A whole answer comes at its end: a pause for each of the longer ones' stretches is
        # granted.
        return tier.first_token_seconds + tier.idle_seconds * (self.limit // TOKENS_A_PAUSE)

    def take(self, journey: Journey, chunk: EngineChunk) -> str:
        """Notes what a chunk brings; returns the text that has come."""
        if chunk.figures is not None:
            journey.figures = chunk.figures
        if chunk.log_probs is not None:
            self.log_probs = chunk.log_probs
        tokens = len(chunk.tokens)
        journey.output_tokens += tokens
        text = self.text.feed(chunk.tokens) if tokens else ""
        if chunk.final:
            text += self.text.rest()
        text, stopped = self.stops.feed(text)
        self.final, self.ended = chunk.final, chunk.final or stopped
        if self.ended and not stopped:
            text += self.stops.rest()
        if self.held is not None:
            self.held.pieces.append((text, tokens))
        elif text:
            journey.note_text(text, tokens)
        if self.ended:
            short = stopped or journey.output_tokens < self.limit
            journey.finish = Finish.STOP if short else Finish.LENGTH
        return text

    def release(self, journey: Journey, held: Held) -> tuple[str, int]:
        """Lets go of what was held back, as its answer stands; returns it as one piece."""
        for text, tokens in held.pieces:
            if text:
                journey.note_text(text, tokens)
        self.held = None
        return held.text, sum(tokens for _, tokens in held.pieces)

    def attempt(self, journey: Journey, text: str, *, valid: bool) -> Attempt:
        """What came of it."""
        tokens = journey.output_tokens
        return Attempt(
            rung=self.turn.rung,
            text=text,
            complete=self.ended,
            certainty=certainty(journey, self.log_probs, tokens),
            valid=valid,
            micro_usd=self.turn.tier.price.of(journey.prompt_tokens, tokens),
            engine_seconds=journey.figures.engine_seconds,
        )

    async def end(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        leave: Callable[["ReplicaRun"], None],
    ) -> None:
        """Ends it on its replica; `spawn` owns what must still be read, `leave` hears its end."""
        tier = self.turn.tier
        if self.final:
            await self.engine.finish()
        elif tier.cancel is Cancel.ABORT:
            self.engine.cancel()
        else:
            self.draining = True
            spawn(self._drain(leave))

    async def _drain(self, leave: Callable[["ReplicaRun"], None]) -> None:
        """Reads it to its end and throws it away."""
        try:
            while not (await self.engine.read(self.turn.tier.idle_seconds)).final:
                pass
            await self.engine.finish()
        except (ReplicaFailed, ServiceError):
            self.engine.cancel()
        finally:
            self.draining = False
            leave(self)
