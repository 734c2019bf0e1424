"""Paired evidence: a drawn request is answered by every tier, in the background.

Starts when the caller has the answer, runs with the lowest priority and is given up under load; the
caller notices nothing of it. What every tier answered is judged; the result goes to the guardrail
and, as numbers, to the ledger, where `calibrate` finds it. A stored answer that was drawn is
compared with what the top tier says now.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from services.common.errors import DeadlineExceeded, Overloaded, ServiceError, Unavailable
from services.router.admission.long_work import LongWork
from services.router.admission.turns import Turns
from services.router.evidence.outcomes import WAIT_SECONDS
from services.router.evidence.waiting import KEPT_SECONDS, WaitingPair
from services.router.ledger.pair_record import Pair, record_of
from services.router.metrics import Metrics
from services.router.policy.levers import CACHE, TRIMMING, calibration_version, lever_of_tier
from services.router.policy.line import Priority
from services.router.policy.prompts import Message
from services.router.policy.routes import EvidencePolicy, JudgeKind, Route
from services.router.ports import Asked, Judge, Keeper, LeverBoard
from services.router.request.attempt import Attempt
from services.router.request.context import RequestContext, RequestState
from services.router.request.hold import Checks
from services.router.request.planner import Planner
from services.router.request.runner import Runner

log = structlog.get_logger()


class Pairs:
    """Makes pairs, has them judged and tells of them; state of the process."""

    def __init__(
        self,
        *,
        planner: Planner,
        runner: Runner,
        checks: Checks,
        judge: Judge,
        levers: LeverBoard,
        keeper: Keeper,
        digest: Callable[[str], str],
        question: Callable[[str], str],
        settle: Callable[[Route, str, str], Awaitable[None]],
        turns: Turns,
        long_work: LongWork,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        wall: Callable[[], float],
    ) -> None:
        """`digest` is of an answer, keyed: by it a corrected answer is recognised later.

        `question` names what was asked, the same for whoever asks it.

        `settle` judges the pair of a route, request id and tenant whose outcome came first. `turns`
        are those at the keeper; `long_work` makes names of questions, which may be long. `spawn`
        starts a task that is owned by the process. `wall` gives seconds since 1970.
        """
        self._planner = planner
        self._runner = runner
        self._checks = checks
        self._judge = judge
        self._levers = levers
        self._keeper = keeper
        self._digest = digest
        self._question = question
        self._settle_outcome = settle
        self._turns = turns
        self._long_work = long_work
        self._metrics = metrics
        self._spawn = spawn
        self._wall = wall
        self._running: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Gives up what is under way: evidence must not hold up a stop."""
        self._stopping.set()

    def gather(self, state: RequestState) -> None:
        """Starts a pair for an answered request; beyond the route's bound it is left out."""
        route = state.context.route
        evidence = _evidence(route)
        if self._stopping.is_set() or self._running[route.name] >= evidence.most_running:
            self._metrics.pairs.labels(route.name, "left_out").inc()
            return
        self._running[route.name] += 1
        state.stay()
        self._spawn(self._gather(state, evidence))

    async def _gather(self, state: RequestState, evidence: EvidencePolicy) -> None:
        route = state.context.route.name
        became = "failed"
        made = asyncio.ensure_future(self._made(state, evidence))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                (made, stopping),
                timeout=evidence.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if made.done():
                pair = made.result()
                became = "failed" if pair is None else await self._settle(state, pair, evidence)
        except ServiceError as error:  # no room, no replica: evidence is what goes first
            log.info("a pair was given up", route=route, why=error.reason)
        finally:
            for task in (made, stopping):
                task.cancel()
            await asyncio.wait((made, stopping))
            self._running[route] -= 1
            state.leave()
            self._metrics.pairs.labels(route, became).inc()

    async def _made(self, state: RequestState, evidence: EvidencePolicy) -> Pair | None:
        """Runs what has not run yet, one tier after another; None where a prompt does not fit."""
        context = state.context
        until = self._runner.clock() + evidence.seconds
        top = len(context.route.ladder) - 1
        whole = context.checked.asked.messages
        if state.cascade is None:  # a stored answer
            text = state.answer.text
            best = await self._attempt(state, top, whole, until)
            if best is None:
                return None
            return Pair(
                answers=(text, best.text),
                attempts=(best,),
                answered=0,
                compared={CACHE: (1, 0)},
            )
        answered = state.cascade.step().rung
        ran = {attempt.plan.step.rung: attempt for attempt in state.attempts if attempt.complete}
        wanted = [(rung, context.messages) for rung in range(top + 1)]
        compared = _compared(context.route, answered)
        if context.trimmed:
            wanted.append((top, whole))
            compared[TRIMMING] = (top + 1, top)
        attempts: list[Attempt] = []
        for at, (rung, messages) in enumerate(wanted):
            attempt = ran.get(rung) if at <= top else None
            if attempt is None:
                attempt = await self._attempt(state, rung, messages, until)
                if attempt is None:
                    return None
            attempts.append(attempt)
        answers = tuple(attempt.text for attempt in attempts)
        return Pair(answers, tuple(attempts[: top + 1]), answered, compared)

    async def _attempt(
        self, state: RequestState, rung: int, messages: Sequence[Message], until: float
    ) -> Attempt | None:
        """Has one tier answer, for nobody; None where it has no room for the prompt.

        Raises:
            ServiceError: it cannot.
        """
        plan = await self._planner.evidence(state, rung, messages, until)
        if plan is None:
            return None
        attempt = await self._runner.run(state, plan)
        attempt.valid = await self._checks.has_form(
            attempt.text, state.context, until, plan.priority
        )
        return attempt

    async def _settle(self, state: RequestState, pair: Pair, evidence: EvidencePolicy) -> str:
        """Has a pair judged and tells of it; returns what became of it."""
        context = state.context
        route = context.route
        qualities = await self._judge.judge(route, context.checked.asked, pair.answers)
        weight = _weight(evidence, context.propensity)
        asked = _written_out(context.checked.asked)
        question = await self._long_work.run(
            partial(self._question, asked),
            len(asked),
            tenant=context.tenant,
            priority=Priority.BATCH,
            until=self._runner.clock() + evidence.seconds,
        )
        digests = [self._digest(text) for text in pair.answers]
        if qualities is not None:
            losses = {
                lever: qualities[safer] - qualities[given]
                for lever, (safer, given) in pair.compared.items()
            }
            await self._levers.judged(route, losses, weight)
        elif evidence.judge.kind is JudgeKind.OUTCOME:
            await self._wait_for_outcome(context, pair, digests, weight)
        now = self._wall()
        state.further_records.append(
            lambda: record_of(
                state, pair, digests, qualities, evidence, question=question, unix_seconds=now
            )
        )
        return "unjudged" if qualities is None else "judged"

    async def _wait_for_outcome(
        self, context: RequestContext, pair: Pair, digests: Sequence[str], weight: float
    ) -> None:
        """Keeps what is needed to judge the pair where the outcome will come in."""
        waiting = WaitingPair(
            route=context.route.name,
            calibration=calibration_version(context.route),
            answered=pair.answered,
            digests=tuple(digests),
            weight=weight,
            losses_of=pair.compared,
        )
        try:
            key, tenant = f"pair:{context.request_id}", context.tenant
            until = self._runner.clock() + WAIT_SECONDS
            async with self._turns.turn(tenant, Priority.INTERACTIVE, until):
                await self._keeper.keep_once(key, waiting.to_bytes(), KEPT_SECONDS, tenant=tenant)
            await self._settle_outcome(context.route, context.request_id, tenant)
        except (Unavailable, Overloaded, DeadlineExceeded) as error:
            log.warning("a pair cannot wait for its outcome", why=error.message)


def _written_out(asked: Asked) -> str:
    """What makes a question: how its answer is drawn does not make it another."""
    form = () if asked.guide is None else (asked.guide[0].value, asked.guide[1])
    said = [part for message in asked.messages for part in (message.role, message.content)]
    return "\n\n".join((*said, *form))


def _evidence(route: Route) -> EvidencePolicy:
    return route.quality.evidence if route.quality is not None else EvidencePolicy()


def _compared(route: Route, answered: int) -> dict[str, tuple[int, int]]:
    """What the levers of the lower tiers are judged by: a tier that did not answer lost nothing."""
    top = len(route.ladder) - 1
    if route.quality is None or route.quality.calibration is None:
        return {}
    rungs = route.quality.calibration.judgement.thresholds.rungs
    return {
        lever_of_tier(route, at): (top, at if at == answered else top)
        for at, rung in enumerate(rungs)
        if rung.skip_above_gain > -1.0
    }


def _weight(evidence: EvidencePolicy, propensity: float) -> float:
    """The guardrail's weight of a sample: what is drawn oftener counts less."""
    shares = (evidence.share, evidence.share_until_calibrated)
    lowest = min((share for share in shares if share > 0.0), default=propensity)
    return min(1.0, lowest / propensity)
