"""A request on replicas: started, tried elsewhere, held back, told, gone on with for nobody."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import structlog

from services.common.errors import ServiceError, Unavailable
from services.router.fleet.fleet import Fleet, Replica
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.decision import Decision
from services.router.policy.routes import Cancel
from services.router.policy.stop_texts import StopTexts
from services.router.ports import Engine, ReplicaFailed, TierText
from services.router.request import hold as held
from services.router.request.hold import Held
from services.router.request.journey import Journey, Listener
from services.router.request.run import Leg, ReplicaRun
from services.router.request.stored import StoredAnswers

log = structlog.get_logger()

MAX_TRIES = 12
MAX_TRIES_BELOW = 3
"""Tries of a tier that another one stands behind."""

FIRST_RETRY_SECONDS = 0.02
MAX_RETRY_SECONDS = 1.0
BEYOND_DEADLINE_SECONDS = 60.0
"""How much longer than its caller a run may live that others wait for or that must drain."""


class _State(Enum):
    GOING = "going"
    STANDS = "stands"
    REFUSED = "refused"


class ReplicaRuns:
    """Runs requests on the fleet; state of the process, none of a request."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        engine: Engine,
        texts: Mapping[str, TierText],
        answers: StoredAnswers,
        load: LoadWindow,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        """`spawn` starts a task that outlives its request and is owned by the process."""
        self._fleet = fleet
        self._engine = engine
        self._texts = texts
        self._answers = answers
        self._load = load
        self._metrics = metrics
        self._spawn = spawn

    async def run(self, journey: Journey, leg: Leg, listener: Listener | None) -> bool:
        """Runs on a replica; before the first text is told a failed one is replaced by another.

        Returns:
            whether the answer stands; if not, nothing of it was told, and the next tier's turn
            comes.
        """
        tier = leg.turn.tier
        self._load.arrived(tier.name, prompt_tokens=len(leg.prompt))
        failed: set[str] = set()
        tries = MAX_TRIES_BELOW if leg.turn.checked else MAX_TRIES
        for attempt in range(tries):
            joined = time.monotonic()
            replica = await self._fleet.acquire(
                tier, journey.checked.priority, avoid=failed, until=leg.until
            )
            journey.queued_seconds += time.monotonic() - joined
            try:
                stands = await self._run_on(replica, journey, leg, listener)
            except ReplicaFailed as failure:
                if failure.lost:
                    self._fleet.failed(replica)
                if journey.decision is not None:
                    raise Unavailable(
                        f"replica {replica.id} was lost in the middle of the answer: {failure}",
                        reason="REPLICA_LOST",
                    ) from failure
                failed.add(replica.id)
                self._metrics.retries.labels(tier.name).inc()
                log.warning("trying again", replica=replica.id, attempt=attempt, why=str(failure))
            else:
                self._fleet.succeeded(replica)
                return stands
            await asyncio.sleep(min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**attempt))
        raise Unavailable(
            f"no replica of {tier.name} could answer after {tries} tries",
            reason="NO_REPLICA",
            retry_after_seconds=MAX_RETRY_SECONDS,
        )

    async def _run_on(
        self, replica: Replica, journey: Journey, leg: Leg, listener: Listener | None
    ) -> bool:
        tier = leg.turn.tier
        outlives = bool(journey.lease) or tier.cancel is Cancel.DRAIN
        try:
            run = self._start(replica, journey, leg, outlives=outlives)
        except BaseException:
            self._fleet.release(replica)
            raise
        replica.runs.add(run.engine)
        try:
            while (state := await self._advance(journey, run, listener)) is _State.GOING:
                pass
        except (ReplicaFailed, ServiceError):
            run.engine.cancel()
            self._leave(run)
            if journey.decision is None:
                journey.forget()
            raise
        except BaseException:  # the caller has gone
            if journey.decision is None and listener is not None:
                journey.decision = self.decide(journey, replica.id)
            journey.settle(tier)
            if outlives or run.ended:
                self._spawn(self._outlive(journey, run, journey.lease))
                journey.lease = ""  # now in the hands of that task, like the place
            else:
                run.engine.cancel()
                self._leave(run)
            raise
        self._leave(run)
        if listener is not None:  # how long shadow runs wait says nothing about callers
            self._note_time(journey, leg)
        if state is _State.REFUSED:
            self._metrics.escalations.labels(journey.checked.route.name, tier.name).inc()
            journey.take_back(tier)
            return False
        journey.settle(tier)
        self._note_end(journey, run, told=listener is not None)
        self._answers.store(journey, tier)
        return True

    def _start(self, replica: Replica, journey: Journey, leg: Leg, *, outlives: bool) -> ReplicaRun:
        tier, asked = leg.turn.tier, journey.checked.asked
        kept_back = held.held_for(journey, leg.turn)
        streaming = journey.streaming and (kept_back is None or kept_back.first_tokens is not None)
        left = journey.until - time.monotonic()
        engine = self._engine.start(
            replica.address,
            tier,
            leg.prompt,
            asked
            if leg.limit == asked.max_output_tokens
            else replace(asked, max_output_tokens=leg.limit),
            request_id=journey.request_id,
            streaming=streaming,
            outlives=outlives,
            log_probs=leg.turn.needs_certainty or journey.drawn,
            deadline_seconds=left + BEYOND_DEADLINE_SECONDS if outlives else left,
        )
        return ReplicaRun(
            engine=engine,
            replica=replica,
            turn=leg.turn,
            text=self._texts[tier.tokenizer].detokenizer(),
            stops=StopTexts(asked.stop),
            limit=leg.limit,
            streaming=streaming,
            held=kept_back,
        )

    async def _advance(
        self, journey: Journey, run: ReplicaRun, listener: Listener | None
    ) -> _State:
        """Takes the next tokens of a run, and ends it with the answer.

        What has come is noted before anybody is told: a caller who hangs up just then leaves a run
        that can go on, or has ended.
        """
        piece = None
        if not run.ended:
            chunk = await run.engine.read(run.patience(journey))
            piece = run.take(journey, chunk), len(chunk.tokens)
        if run.held is not None:
            if not run.held.is_ripe(journey.output_tokens, ended=run.ended):
                return _State.GOING
            if not await self._stands(journey, run, run.held):
                await run.end(self._spawn, self._leave)
                return _State.REFUSED
            piece = run.release(journey, run.held)
        if piece is not None and listener is not None:
            if journey.decision is None:
                journey.decision = self.decide(journey, run.replica.id)
                await listener.started(journey.decision)
            if piece[0]:
                await listener.piece(*piece)
        if not run.ended:
            return _State.GOING
        await run.end(self._spawn, self._leave)
        return _State.STANDS

    async def _stands(self, journey: Journey, run: ReplicaRun, kept_back: Held) -> bool:
        """Judges what is held back of a checked tier's answer."""
        way = journey.climb
        assert way is not None  # noqa: S101 -- a checked turn comes from a climb
        sure = held.certainty(journey, run.log_probs, journey.output_tokens)
        valid = kept_back.first_tokens is not None or await held.has_form(journey, kept_back.text)
        stands = way.stands(sure, valid=valid)
        if not stands:
            way.paid(run.turn.tier.price.of(journey.prompt_tokens, journey.output_tokens))
            journey.attempts.append(run.attempt(journey, kept_back.text, valid=valid))
        return stands

    async def _outlive(self, journey: Journey, run: ReplicaRun, lease: str) -> None:
        """Goes on with a run whose caller has gone: it must drain, or others wait for it."""
        journey.lease = lease
        tier = run.turn.tier
        try:
            stoppable = tier.cancel is Cancel.ABORT and not run.ended
            if stoppable and not await self._answers.is_awaited(journey):
                run.engine.cancel()
                return
            while (state := await self._advance(journey, run, None)) is _State.GOING:
                pass
            if state is _State.STANDS:
                self._answers.store(journey, tier)
        except (ReplicaFailed, ServiceError) as error:
            run.engine.cancel()
            log.warning("a run without a caller failed", why=str(error))
        except BaseException:
            run.engine.cancel()
            raise
        finally:
            self._leave(run)
            self._answers.give_back(journey)

    def _leave(self, run: ReplicaRun) -> None:
        if run.draining:
            return
        run.replica.runs.discard(run.engine)
        self._fleet.release(run.replica)

    def decide(self, journey: Journey, replica: str) -> Decision:
        """The decision to run on a replica; empty for none yet."""
        checked, way = journey.checked, journey.climb
        assert way is not None  # noqa: S101 -- it was chosen by one
        tier = way.turn().tier
        return Decision(
            route=checked.route.name,
            policy_version=checked.policies.version,
            tier=tier.name,
            model=tier.model,
            precision=tier.precision,
            replica=replica,
            reason=way.reason(),
            explanation=way.explanation(),
            cache=journey.cache,
            fleet_stale=self._fleet.stale,
            candidates=way.candidates(),
            calibration_version=way.calibration_version,
            propensity=journey.propensity,
            halted=tuple(sorted(journey.halted)),
        )

    def _note_end(self, journey: Journey, run: ReplicaRun, *, told: bool) -> None:
        """Notes an answer that stands; what it was paid is part of the decision now."""
        if told and journey.climb is not None and journey.decision is not None:
            journey.climb.paid(journey.micro_usd - journey.spent_micro_usd)
            candidates = journey.climb.candidates()
            journey.decision = replace(journey.decision, candidates=candidates)
        if journey.drawn:
            journey.attempts.append(run.attempt(journey, journey.text, valid=True))

    def _note_time(self, journey: Journey, leg: Leg) -> None:
        """Notes how long the tier took; the text of an answer that fell would have come now."""
        now = time.monotonic()
        first = journey.first_text_at
        self._load.add(
            leg.turn.tier.name,
            now,
            first_text=(now if first is None else first) - leg.began,
            decode_seconds=0.0 if first is None else journey.last_text_at - first,
            tokens=journey.output_tokens,
        )
