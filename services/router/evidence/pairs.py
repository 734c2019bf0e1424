"""Paired evidence: a drawn request is answered by every tier, in the background.

Starts when the caller has the answer, runs with the lowest priority and is given up under load; the
caller notices nothing of it. What every tier answered is judged; the result goes to the guardrail
and, as numbers, to the ledger, where `calibrate` finds it. A stored answer that was drawn is
compared with what the top tier says now.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import structlog

from services.common.errors import ServiceError, Unavailable
from services.router.ledger.pair_record import Pair, record_of
from services.router.metrics import Metrics
from services.router.policy.admission import Priority
from services.router.policy.cascade import Step
from services.router.policy.levers import CACHE, TRIMMING, calibration_version, lever_of_tier
from services.router.policy.routes import EvidencePolicy, JudgeKind, Route
from services.router.ports import Judge, Keeper, Ledger, LeverBoard, Message, TierText
from services.router.request.hold import has_form
from services.router.request.journey import Attempt, Journey
from services.router.request.run import Leg
from services.router.request.runner import ReplicaRuns

log = structlog.get_logger()

OUTCOME_SECONDS = 30 * 86_400.0
"""How long a pair waits for its outcome."""


class Pairs:
    """Makes pairs, has them judged and tells of them; state of the process."""

    def __init__(
        self,
        *,
        texts: Mapping[str, TierText],
        judge: Judge,
        levers: LeverBoard,
        keeper: Keeper,
        ledger: Ledger,
        digest: Callable[[str], str],
        settle: Callable[[Route, str], Awaitable[None]],
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        """`digest` is of an answer, keyed: by it a corrected answer is recognised later.

        `settle` judges the pair of a route and request id whose outcome came first. `texts` are by
        `Tier.tokenizer`; `spawn` starts a task that is owned by the process.
        """
        self._texts = texts
        self._judge = judge
        self._levers = levers
        self._keeper = keeper
        self._ledger = ledger
        self._digest = digest
        self._settle_outcome = settle
        self._metrics = metrics
        self._spawn = spawn
        self._running: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Gives up what is under way: evidence must not hold up a stop."""
        self._stopping.set()

    def gather(self, journey: Journey, runs: ReplicaRuns) -> None:
        """Starts a pair for an answered request; beyond the route's bound it is left out."""
        route = journey.checked.route
        evidence = _evidence(route)
        if self._stopping.is_set() or self._running[route.name] >= evidence.most_running:
            self._metrics.pairs.labels(route.name, "left_out").inc()
            return
        self._running[route.name] += 1
        self._spawn(self._gather(journey, runs, evidence))

    async def _gather(self, journey: Journey, runs: ReplicaRuns, evidence: EvidencePolicy) -> None:
        route = journey.checked.route.name
        became = "failed"
        made = asyncio.ensure_future(self._made(journey, runs, evidence))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                (made, stopping),
                timeout=evidence.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if made.done():
                became = await self._settle(journey, made.result(), evidence)
        except ServiceError as error:  # no room, no replica: evidence is what goes first
            log.info("a pair was given up", route=route, why=error.reason)
        finally:
            for task in (made, stopping):
                task.cancel()
            await asyncio.wait((made, stopping))
            self._running[route] -= 1
            self._metrics.pairs.labels(route, became).inc()

    async def _made(self, journey: Journey, runs: ReplicaRuns, evidence: EvidencePolicy) -> Pair:
        """Runs what has not run yet, one tier after another."""
        until = time.monotonic() + evidence.seconds
        checked = journey.checked
        top = len(checked.route.ladder) - 1
        whole = checked.asked.turns
        if journey.climb is None:  # a stored answer
            best = await self._attempt(journey, runs, top, whole, until)
            return Pair(
                answers=(journey.text, best.text),
                attempts=(best,),
                answered=0,
                compared={CACHE: (1, 0)},
                shadow_micro_usd=best.micro_usd,
            )
        ran = {attempt.rung: attempt for attempt in journey.attempts if attempt.complete}
        answered = journey.climb.turn().rung
        attempts: list[Attempt] = []
        shadow = 0
        for rung in range(top + 1):
            attempt = ran.get(rung)
            if attempt is None:
                attempt = await self._attempt(journey, runs, rung, journey.turns, until)
                shadow += attempt.micro_usd
            attempts.append(attempt)
        compared = _compared(checked.route, answered)
        answers = [attempt.text for attempt in attempts]
        if journey.trimmed:
            best = await self._attempt(journey, runs, top, whole, until)
            shadow += best.micro_usd
            answers.append(best.text)
            compared[TRIMMING] = (top + 1, top)
        return Pair(tuple(answers), tuple(attempts), answered, compared, shadow)

    async def _attempt(
        self, journey: Journey, runs: ReplicaRuns, rung: int, turns: Sequence[Message], until: float
    ) -> Attempt:
        """Has one tier answer, for nobody.

        Raises:
            ServiceError: it cannot.
        """
        checked = journey.checked
        tier = checked.route.ladder[rung]
        prompt = await self._texts[tier.tokenizer].encode(turns)
        room = tier.max_sequence_tokens - len(prompt)
        if room < 1:
            raise Unavailable(f"the prompt is too long for {tier.name}", reason="TOO_LONG")
        shadow = Journey(
            request_id=f"{journey.request_id}-{rung}",
            handle="",
            tenant=journey.tenant,
            checked=replace(
                checked,
                asked=replace(checked.asked, turns=tuple(turns)),
                priority=Priority.BACKGROUND,
                read_cache=False,
                write_cache=False,
            ),
            arrived=time.monotonic(),
            until=until,
            streaming=False,
            drawn=True,
            prompt_tokens=len(prompt),
        )
        turn = Step(tier, rung, checked=False, needs_certainty=True)
        limit = min(checked.asked.max_output_tokens, room)
        await runs.run(shadow, Leg(turn, prompt, limit, shadow.arrived, until), None)
        attempt = shadow.attempts[-1]
        self._metrics.shadow_micro_usd.labels(checked.route.name).inc(attempt.micro_usd)
        return replace(attempt, valid=await has_form(journey, attempt.text))

    async def _settle(self, journey: Journey, pair: Pair, evidence: EvidencePolicy) -> str:
        """Has a pair judged and tells of it; returns what became of it."""
        checked = journey.checked
        route = checked.route
        qualities = await self._judge.judge(route, checked.asked, pair.answers)
        weight = _weight(evidence, journey.propensity)
        digests = [self._digest(text) for text in pair.answers]
        if qualities is not None:
            losses = {
                lever: qualities[safer] - qualities[given]
                for lever, (safer, given) in pair.compared.items()
            }
            await self._levers.judged(route, losses, weight)
        elif evidence.judge.kind is JudgeKind.OUTCOME:
            await self._wait_for_outcome(journey, pair, digests, weight)
        self._ledger.add(record_of(journey, pair, digests, qualities, evidence))
        return "unjudged" if qualities is None else "judged"

    async def _wait_for_outcome(
        self, journey: Journey, pair: Pair, digests: Sequence[str], weight: float
    ) -> None:
        """Keeps what is needed to judge the pair where the outcome will come in."""
        kept = {
            "route": journey.checked.route.name,
            "calibration": calibration_version(journey.checked.route),
            "answered": pair.answered,
            "digests": digests,
            "weight": weight,
            "losses_of": pair.compared,
        }
        try:
            key = f"pair:{journey.request_id}"
            await self._keeper.keep_once(key, orjson.dumps(kept), OUTCOME_SECONDS)
            await self._settle_outcome(journey.checked.route, journey.request_id)
        except Unavailable:
            log.warning("a pair cannot wait for its outcome: the shared state is away")


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
