"""A request on a replica: started, tried elsewhere, told, carried on without its caller."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from services.common.errors import ServiceError, Unavailable
from services.router.answers import StoredAnswers
from services.router.fleet import Fleet, Replica
from services.router.journey import Journey, Listener
from services.router.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.decision import Decision, Reason
from services.router.policy.routes import Cancel, Policies, Tier, TierChoice
from services.router.policy.text import StopTexts
from services.router.ports import (
    Detokenizer,
    Engine,
    EngineChunk,
    EngineRun,
    Finish,
    ReplicaFailed,
    TierText,
)

log = structlog.get_logger()

MOST_TRIES = 12
FIRST_RETRY_SECONDS = 0.02
SLOWEST_RETRY_SECONDS = 1.0
TOKENS_A_PAUSE = 64
BEYOND_DEADLINE_SECONDS = 60.0
"""How much longer than its caller a run may live that others wait for or that must drain."""


@dataclass(slots=True)
class _Run:
    """A request that a replica works on, with all that is needed to carry it to its end.

    Attributes:
        ended: the answer is complete, though perhaps not yet told.
        final: the replica has said all it will say.
    """

    engine: EngineRun
    replica: Replica
    tier: Tier
    text: Detokenizer
    stops: StopTexts
    limit: int
    ended: bool = False
    final: bool = False


class ReplicaRuns:
    """Runs requests on the fleet; state of the process, none of a request."""

    def __init__(
        self,
        *,
        policies: Policies,
        fleet: Fleet,
        engine: Engine,
        texts: Mapping[str, TierText],
        answers: StoredAnswers,
        load: LoadWindow,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        """`spawn` starts a task that outlives its request and is owned by the process."""
        self._policies = policies
        self._fleet = fleet
        self._engine = engine
        self._texts = texts
        self._answers = answers
        self._load = load
        self._metrics = metrics
        self._spawn = spawn

    async def run(
        self, journey: Journey, choice: TierChoice, prompt: Sequence[int], listener: Listener
    ) -> None:
        """Runs on a replica; before the first token a failed one is replaced by another."""
        failed: set[str] = set()
        for attempt in range(MOST_TRIES):
            joined = time.monotonic()
            replica = await self._fleet.acquire(
                choice.tier, journey.checked.priority, avoid=failed, until=journey.until
            )
            journey.queued_seconds += time.monotonic() - joined
            try:
                await self._run_on(replica, journey, choice, prompt, listener)
            except ReplicaFailed as failure:
                if failure.lost:
                    self._fleet.failed(replica)
                if journey.decision is not None:
                    raise Unavailable(
                        f"replica {replica.id} was lost in the middle of the answer: {failure}",
                        reason="REPLICA_LOST",
                    ) from failure
                failed.add(replica.id)
                self._metrics.retries.labels(choice.tier.name).inc()
                log.warning("trying again", replica=replica.id, attempt=attempt, why=str(failure))
            else:
                self._fleet.succeeded(replica)
                return
            await asyncio.sleep(min(SLOWEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**attempt))
        raise Unavailable(
            f"no replica of {choice.tier.name} could answer after {MOST_TRIES} tries",
            reason="NO_REPLICA",
            retry_after_seconds=SLOWEST_RETRY_SECONDS,
        )

    async def _run_on(
        self,
        replica: Replica,
        journey: Journey,
        choice: TierChoice,
        prompt: Sequence[int],
        listener: Listener,
    ) -> None:
        tier, asked = choice.tier, journey.checked.asked
        limit = min(asked.max_output_tokens, tier.max_sequence_tokens - len(prompt))
        outlives = bool(journey.lease) or tier.cancel is Cancel.DRAIN
        left = journey.until - time.monotonic()
        try:
            run = _Run(
                engine=self._engine.start(
                    replica.address,
                    tier,
                    prompt,
                    asked
                    if limit == asked.max_output_tokens
                    else replace(asked, max_output_tokens=limit),
                    request_id=journey.request_id,
                    streaming=journey.streaming,
                    outlives=outlives,
                    deadline_seconds=left + BEYOND_DEADLINE_SECONDS if outlives else left,
                ),
                replica=replica,
                tier=tier,
                text=self._texts[tier.name].detokenizer(),
                stops=StopTexts(asked.stop),
                limit=limit,
            )
        except BaseException:
            self._fleet.release(replica)
            raise
        replica.runs.add(run.engine)
        try:
            while not await self._advance(journey, run, choice, listener):
                pass
        except (ReplicaFailed, ServiceError):
            run.engine.cancel()
            self._leave(run)
            raise
        except BaseException:  # the caller has gone
            if journey.decision is not None:
                journey.settle(tier)
            if outlives or run.ended:
                self._spawn(self._outlive(journey, run, journey.lease))
                journey.lease = ""  # now in the hands of that task, like the place
            else:
                run.engine.cancel()
                self._leave(run)
            raise
        self._leave(run)
        journey.settle(tier)
        self._answers.store(journey, tier)
        self._note_load(journey, tier)

    async def _advance(
        self,
        journey: Journey,
        run: _Run,
        choice: TierChoice | None,
        listener: Listener | None,
    ) -> bool:
        """Takes the next tokens of a run; True at the end of the answer.

        What has come is noted before anybody is told: a caller who hangs up just then leaves a run
        that can go on, or has ended.
        """
        tier = run.tier
        if not run.ended:
            chunk = await run.engine.read(_patience(journey, run))
            text, tokens = self._take(journey, run, chunk), len(chunk.tokens)
            if choice is not None and listener is not None:
                if journey.decision is None:
                    journey.decision = self.decide(journey, choice, run.replica.id)
                    await listener.started(journey.decision)
                if text:
                    await listener.piece(text, tokens)
            if not run.ended:
                return False
        if run.final:
            await run.engine.finish()
        elif tier.cancel is Cancel.ABORT:
            run.engine.cancel()
        else:
            self._spawn(_drain(run.engine, tier.idle_seconds))
        return True

    def _take(self, journey: Journey, run: _Run, chunk: EngineChunk) -> str:
        """Notes what a chunk brings; returns the text that may be sent."""
        if chunk.figures is not None:
            journey.figures = chunk.figures
        tokens = len(chunk.tokens)
        journey.output_tokens += tokens
        text = run.text.feed(chunk.tokens) if tokens else ""
        if chunk.final:
            text += run.text.rest()
        text, stopped = run.stops.feed(text)
        run.final, run.ended = chunk.final, chunk.final or stopped
        if run.ended and not stopped:
            text += run.stops.rest()
        if text:
            journey.note_text(text, tokens)
        if run.ended:
            short = stopped or journey.output_tokens < run.limit
            journey.finish = Finish.STOP if short else Finish.LENGTH
        return text

    async def _outlive(self, journey: Journey, run: _Run, lease: str) -> None:
        """Goes on with a run whose caller has gone: it must drain, or others wait for it."""
        journey.lease = lease
        try:
            stoppable = run.tier.cancel is Cancel.ABORT and not run.ended
            if stoppable and not await self._answers.is_awaited(journey):
                run.engine.cancel()
                return
            while not await self._advance(journey, run, None, None):
                pass
            self._answers.store(journey, run.tier)
        except (ReplicaFailed, ServiceError) as error:
            run.engine.cancel()
            log.warning("a run without a caller failed", why=str(error))
        except BaseException:
            run.engine.cancel()
            raise
        finally:
            self._leave(run)
            self._answers.give_back(journey)

    def _leave(self, run: _Run) -> None:
        run.replica.runs.discard(run.engine)
        self._fleet.release(run.replica)

    def decide(self, journey: Journey, choice: TierChoice, replica: str) -> Decision:
        """The decision to run on a replica; empty for none yet."""
        tier = choice.tier
        return Decision(
            route=journey.checked.route.name,
            policy_version=self._policies.version,
            tier=tier.name,
            model=tier.model,
            precision=tier.precision,
            replica=replica,
            reason=Reason.FIXED_TIER,
            explanation=choice.explanation,
            cache=journey.cache,
            fleet_stale=self._fleet.stale,
        )

    def _note_load(self, journey: Journey, tier: Tier) -> None:
        first = journey.first_text_at
        if first is not None:
            self._load.add(
                tier.name,
                time.monotonic(),
                first_text=first - journey.arrived,
                decode_seconds=journey.last_text_at - first,
                tokens=journey.output_tokens,
            )


async def _drain(engine: EngineRun, idle_seconds: float) -> None:
    """Reads a run to its end and throws it away."""
    try:
        while not (await engine.read(idle_seconds)).final:
            pass
        await engine.finish()
    except (ReplicaFailed, ServiceError):
        engine.cancel()


def _patience(journey: Journey, run: _Run) -> float:
    """How long the replica may stay silent now, in seconds."""
    tier = run.tier
    if journey.output_tokens:
        return tier.idle_seconds
    if journey.streaming:
        return tier.first_token_seconds
    # A whole answer comes at its end: a pause for each of the longer ones' stretches is granted.
    return tier.first_token_seconds + tier.idle_seconds * (run.limit // TOKENS_A_PAUSE)
