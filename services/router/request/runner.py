"""Attempts on replicas: started, tried elsewhere, held back, told, gone on with for nobody."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from services.common.backoff import Backoff
from services.common.errors import ServiceError, Unavailable
from services.router.fleet.fleet import Fleet
from services.router.fleet.load import LoadWindow
from services.router.fleet.place import Place
from services.router.metrics import Metrics
from services.router.policy.pace import Paces
from services.router.policy.poison import MARK_SECONDS
from services.router.policy.routes import Cancel
from services.router.ports import Engine, EngineRequest, Piece, ReplicaFailed, brief
from services.router.request.attempt import Answer, Attempt, Ending
from services.router.request.context import Listener, RequestState
from services.router.request.hold import Checks, judge
from services.router.request.plan import Cause, Plan
from services.router.request.planner import again
from services.router.request.stored import Lease
from services.router.request.trouble import Trouble

log = structlog.get_logger()

MAX_TRIES = 12
MAX_TRIES_BELOW = 3
"""Tries of a tier that another one stands behind."""

RETRY = Backoff(0.02, 1.0)
"""Waits between tries."""

BEYOND_DEADLINE_SECONDS = 60.0
"""How much longer than its caller a run may live that others wait for or that must drain."""

LAST_WORDS_SECONDS = 2.0
"""How much longer any other may, to say how far it came."""


@dataclass(frozen=True)
class Runner:
    """Runs plans on the fleet; state of the process, none of a request.

    Attributes:
        paces: how quick each tier is, for what engines do not say.
        trouble: what is held against replicas and requests.
        checks: of answers that are held back.
        attempt_over: hears of each attempt of which nothing runs any more.
        spawn: starts a task that outlives its request and is owned by the process.
        clock: seconds that only grow.
        pause: waits for so many seconds.
        chance: draws from [0, 1).
    """

    fleet: Fleet
    engine: Engine
    load: LoadWindow
    metrics: Metrics
    paces: Paces
    trouble: Trouble
    checks: Checks
    attempt_over: Callable[[RequestState, Attempt], None]
    spawn: Callable[[Coroutine[Any, Any, None]], Any]
    clock: Callable[[], float]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    async def run(
        self,
        state: RequestState,
        plan: Plan,
        listener: Listener | None = None,
        lease: Lease | None = None,
    ) -> Attempt:
        """Runs a plan; until something is committed a failed replica is replaced by another.

        Args:
            state: of the request.
            plan: what is to be done.
            listener: the caller; None for evidence, which nobody is told.
            lease: on the stored answer, which is used as soon as there is one that stands; an
                attempt that outlives its caller takes it along.

        Returns:
            the attempt that came to its end. If its answer does not stand, nothing of it was told.

        Raises:
            Poisonous: replicas were lost over the request, so that it is not run any more.
            ServiceError: no replica gave an answer.
        """
        tier, cause = plan.step.tier, plan.cause
        self.trouble.refuse_poison(state)
        self.load.arrived(tier.name, prompt_tokens=len(plan.prompt.tokens))
        failed: set[str] = set()
        useless: set[str] = set()
        elsewhere = partial(self.trouble.elsewhere, state) if plan.step.checked else None
        tries = MAX_TRIES_BELOW if plan.step.checked else MAX_TRIES
        for number in range(1, tries + 1):
            joined = self.clock()
            place = await self.fleet.place(
                tier,
                plan.priority,
                avoid=failed,
                until=plan.until,
                tenant="" if plan.cause is Cause.EVIDENCE else state.context.tenant,
                elsewhere=elsewhere,
            )
            if listener is not None:
                state.queued_seconds += self.clock() - joined
            attempt = self._begin(state, plan, cause, place)
            try:
                async with place:
                    await self._carry(state, attempt, listener, lease)
            except ReplicaFailed as failure:
                poisonous = self.trouble.hold_against(state, attempt, failure)
                if attempt.committed:
                    # Why is for the log alone: gRPC's words name the replica's address.
                    log.warning("a replica was lost", replica=attempt.replica, why=str(failure))
                    raise Unavailable(
                        f"replica {attempt.replica} was lost in the middle of the answer",
                        reason="REPLICA_LOST",
                        retry_after_seconds=await self.fleet.again_seconds(tier),
                    ) from failure
                if poisonous:
                    raise self.trouble.poisonous(MARK_SECONDS) from failure
                failed.add(attempt.replica)
                await self._note_useless(attempt, failure, useless)
                self.metrics.retries.labels(tier.name).inc()
                log.warning(
                    "trying again", replica=attempt.replica, number=number, why=str(failure)
                )
                silent = failure.silent and not self.fleet.can_answer(tier, avoid=failed)
                if silent and elsewhere is not None and elsewhere():
                    raise Unavailable(f"{tier.name} is silent", reason="NO_REPLICA") from failure
            else:
                self.fleet.succeeded(place.replica)
                return attempt
            if number < tries:
                plan = again(state, plan)
                if plan.cause is not Cause.EVIDENCE:
                    cause = Cause.RETRY
                await self.pause(RETRY.seconds(number, self.chance()))
        raise Unavailable(
            f"no replica of {tier.name} could answer after {tries} tries",
            reason="NO_REPLICA",
            retry_after_seconds=await self.fleet.again_seconds(tier),
        )

    async def _note_useless(
        self, attempt: Attempt, failure: ReplicaFailed, useless: set[str]
    ) -> None:
        """Whether the replica would say the same again. Raises Unavailable if all would."""
        tier = attempt.plan.step.tier
        if not failure.lasting:
            return
        useless.add(attempt.replica)
        if not self.fleet.can_answer(tier, avoid=useless):
            raise Unavailable(
                f"no replica of {tier.name} takes this request now",
                reason="NO_REPLICA",
                retry_after_seconds=await self.fleet.again_seconds(tier),
            )

    def _begin(self, state: RequestState, plan: Plan, cause: Cause, place: Place) -> Attempt:
        hold = plan.hold.again() if plan.hold is not None else None
        attempt = Attempt(plan, cause, place, self.clock(), hold)
        attempt.trusting = place.replica.breaker.closed
        attempt.answer.prompt_tokens = len(plan.prompt.tokens)
        attempt.has_log_probs = self.engine.capabilities(plan.step.tier).has_log_probs
        state.begin(attempt)
        return attempt

    async def _carry(
        self,
        state: RequestState,
        attempt: Attempt,
        listener: Listener | None,
        lease: Lease | None,
    ) -> None:
        """From the engine's first word to the attempt's ending.

        It is over (`_over`) when nothing of it runs on the replica any more, which its place knows.
        """
        tier = attempt.plan.step.tier
        outlives = tier.cancel is Cancel.DRAIN or (lease is not None and lease.held)
        request = self._request(state, attempt.plan, outlives=outlives)
        try:
            attempt.call = attempt.place.start(
                self.engine,
                request,
                patience=attempt.patience,
                ended=lambda: self._over(state, attempt),
            )
            self.trouble.company.joined(state, attempt)
            while attempt.ending is None:
                await self._advance(state, attempt, listener, lease)
        except (ReplicaFailed, ServiceError) as error:
            attempt.fail(error, self.clock())
            if listener is not None and not attempt.committed:
                state.answer = Answer()
            raise
        except BaseException:  # the caller has gone
            self.trouble.note_left(attempt)
            if listener is not None and state.decision is None:
                state.decision = state.decide(attempt.replica, fleet_stale=self.fleet.last_known)
            if lease is not None and (outlives or attempt.complete):
                attempt.place, attempt.movable = attempt.place.moved(), False
                self.spawn(self._go_on(state, attempt, lease.moved()))
            else:
                attempt.leave(self.clock())
            raise
        if listener is not None:  # how long evidence waits says nothing about callers
            self._note_time(attempt)

    async def _advance(
        self,
        state: RequestState,
        attempt: Attempt,
        listener: Listener | None,
        lease: Lease | None,
    ) -> None:
        """Takes the next text of an attempt, and notes its ending with the answer.

        What has come is noted, and a whole answer that stands stored, before anybody is told: a
        caller who hangs up just then leaves an attempt that can go on, or has ended, and one who
        does not read keeps nobody waiting who asks the same.
        """
        call, piece = attempt.call, Piece("", 0, attempt.complete)
        assert call is not None  # noqa: S101 -- it was started
        if not attempt.complete:
            piece = await call.read(self.trouble.patience(state, attempt))
            attempt.take(piece, self.clock())
            self.trouble.note_word(attempt)
        if attempt.hold is not None:
            if not attempt.hold.is_ready(attempt.answer.output_tokens, complete=attempt.complete):
                return
            until = attempt.plan.deadline + BEYOND_DEADLINE_SECONDS
            if not await judge(state, attempt, self.checks, until):
                return
            piece = attempt.release(self.clock())
        if lease is not None and attempt.complete:
            lease.store(attempt.answer, attempt.plan.step.tier)
        if listener is not None and (state.context.streaming or attempt.complete):
            await self._tell(state, attempt, piece, listener)
        if attempt.complete:
            evidence = attempt.cause is Cause.EVIDENCE
            attempt.ending = Ending.EVIDENCE if evidence else Ending.STOOD

    async def _tell(
        self, state: RequestState, attempt: Attempt, piece: Piece, listener: Listener
    ) -> None:
        """Tells the caller; with the first text the answer is committed to."""
        if not state.committed and (piece.text or piece.ended):
            decision = state.decide(attempt.replica, fleet_stale=self.fleet.last_known)
            state.commit(decision, attempt)
            await listener.started(decision)
        if piece.text:
            await listener.piece(piece.text, piece.tokens)

    async def _go_on(self, state: RequestState, attempt: Attempt, lease: Lease) -> None:
        """Goes on with an attempt whose caller has gone: it must drain, or others wait for it."""
        tier = attempt.plan.step.tier
        try:
            async with attempt.place:
                stoppable = tier.cancel is Cancel.ABORT and not attempt.complete
                if stoppable and not await lease.is_awaited():
                    attempt.leave(self.clock())
                    return
                await self._to_its_end(state, attempt, lease)
        except (ReplicaFailed, ServiceError) as error:
            if isinstance(error, ReplicaFailed):
                self.trouble.hold_against(state, attempt, error)
            log.warning("a run without a caller failed", why=brief(error))
        finally:
            lease.give_back()

    async def _to_its_end(self, state: RequestState, attempt: Attempt, lease: Lease) -> None:
        """Carries an attempt whose caller has gone to its ending."""
        try:
            while attempt.ending is None:
                await self._advance(state, attempt, None, lease)
        except (ReplicaFailed, ServiceError) as error:
            attempt.fail(error, self.clock())
            raise
        except BaseException:
            attempt.leave(self.clock())
            raise
        if attempt.ending is Ending.STOOD:
            attempt.ending = Ending.OUTLIVED

    def _request(self, state: RequestState, plan: Plan, *, outlives: bool) -> EngineRequest:
        context = state.context
        left = plan.deadline - self.clock()
        return EngineRequest(
            tier=plan.step.tier,
            text=context.checked.compiled.text(plan.step.tier),
            prompt=plan.prompt,
            asked=context.checked.asked,
            max_output_tokens=plan.max_output_tokens,
            request_id=context.request_id,
            streaming=plan.streams,
            log_probs=plan.step.needs_certainty or context.drawn,
            deadline_seconds=left + (BEYOND_DEADLINE_SECONDS if outlives else LAST_WORDS_SECONDS),
            tenant=context.tenant,
        )

    def _over(self, state: RequestState, attempt: Attempt) -> None:
        """Nothing of the attempt runs any more."""
        now, call, tier = self.clock(), attempt.call, attempt.plan.step.tier
        attempt.ended_at = now
        self.trouble.company.left(attempt, now)
        if attempt.ending is Ending.LEFT and not attempt.heard:
            # It did not even answer that it should stop; where nobody knows how long answers take,
            # that is only the end of a slow one.
            self.trouble.note_silence(
                state, attempt, self.trouble.slow_seconds(attempt) or math.inf
            )
        if call is not None and call.final:
            worked_until = now if call.heard_at is None else call.heard_at
            self.paces.note(tier.name, worked_until - attempt.began, call.output_tokens)
        elif attempt.estimated and not attempt.plan.streams and not attempt.output_tokens:
            most, worked = attempt.plan.max_output_tokens, attempt.engine_seconds
            if worked is None:  # how long the replica took to stop is not the caller's
                worked = (now if attempt.left_at is None else attempt.left_at) - attempt.began
            attempt.guessed_tokens = self.paces.tokens(tier.name, worked, most)
        self.attempt_over(state, attempt)
        state.leave()

    def _note_time(self, attempt: Attempt) -> None:
        """Notes how long the tier took, which is not how long its caller took to read.

        The text of an answer that fell would have come now.
        """
        now, answer = self.clock(), attempt.answer
        heard = now if attempt.heard_at is None else attempt.heard_at
        first = answer.first_text_at
        self.load.add(
            attempt.plan.step.tier.name,
            now,
            first_text=(now if first is None else first) - attempt.plan.began,
            decode_seconds=0.0 if first is None else answer.last_text_at - first,
            tokens=answer.output_tokens,
            ran=heard - attempt.began,
        )
