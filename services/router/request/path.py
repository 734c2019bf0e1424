"""The way of a request: cache, tier, tokens, replica, answer.

Reads from top to bottom as a request travels; see `RequestPath.answer`. Who calls and whether the
request keeps the rules is settled before (`requests`); what it looks like on the wire is not known
here (`servicer`).
"""

import random
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from services.common.errors import BadRequest, Overloaded, ServiceError, Violation
from services.router.evidence.drift import DriftWatch
from services.router.evidence.pairs import Pairs
from services.router.fleet.fleet import Fleet
from services.router.fleet.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.cascade import Cascade, Step
from services.router.policy.decision import Verdict
from services.router.policy.difficulty import features
from services.router.ports import AnswerCache, CacheHit, Engine, LeverBoard, TierText
from services.router.request.journey import Journey, Listener
from services.router.request.run import Leg
from services.router.request.runner import ReplicaRuns
from services.router.request.stored import StoredAnswers

log = structlog.get_logger()

SHARE_OF_WAIT = 0.5
"""Share of the time left that a request waits for a tier that another one stands behind."""


class RequestPath:
    """Carries requests along; state of the process, none of a request."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        engine: Engine,
        texts: Mapping[str, TierText],
        cache: AnswerCache,
        levers: LeverBoard,
        pairs: Pairs,
        drift: DriftWatch,
        load: LoadWindow,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`texts` are by `Tier.tokenizer`; `chance` draws from [0, 1).

        `spawn` starts a task that outlives its request and is owned by the process.
        """
        self._fleet = fleet
        self._texts = texts
        self._levers = levers
        self._pairs = pairs
        self._drift = drift
        self._load = load
        self._chance = chance
        self._answers = StoredAnswers(fleet=fleet, cache=cache, metrics=metrics)
        self._runs = ReplicaRuns(
            fleet=fleet,
            engine=engine,
            texts=texts,
            answers=self._answers,
            load=load,
            metrics=metrics,
            spawn=spawn,
        )

    async def answer(self, journey: Journey, listener: Listener) -> None:
        """Answers a request, from the cache or from a replica.

        Raises:
            ServiceError: what the caller is to see.
        """
        self._look(journey)
        journey.drawn = self._chance() < journey.propensity
        found = await self._answers.ask(journey, lease=True)
        if isinstance(found, CacheHit):
            await self._answers.replay(journey, found, listener)
        else:
            journey.lease = found.lease
            try:
                await self._climb(journey, listener)
            finally:
                self._answers.give_back(journey)
        if journey.drawn:
            self._pairs.gather(journey, self._runs)

    async def explain(self, journey: Journey) -> int:
        """Decides without running; fills in `decision` and `prompt_tokens`.

        Returns:
            the most the answer could cost, in micro-USD.
        """
        self._look(journey)
        found = await self._answers.ask(journey, lease=False)
        if isinstance(found, CacheHit):
            journey.decision = self._answers.decide(journey, found)
            journey.prompt_tokens = found.answer.prompt_tokens
            return 0
        way = journey.climb = self._way(journey)
        while (leg := await self._leg(journey, way.turn())) is None:
            pass
        tier = leg.turn.tier
        journey.decision = self._runs.decide(journey, self._fleet.preview(tier.name))
        most = tier.price.of(len(leg.prompt), leg.limit)
        if leg.turn.checked:  # every tier above may get its turn
            above = journey.checked.route.ladder[leg.turn.rung + 1 :]
            most += sum(one.price.of(len(leg.prompt), leg.limit) for one in above)
        return most

    async def _climb(self, journey: Journey, listener: Listener) -> None:
        """Up the ladder until an answer stands."""
        way = journey.climb = self._way(journey)
        stands = False
        while not stands:
            turn = way.turn()
            leg = await self._leg(journey, turn)
            if leg is None:
                continue
            try:
                stands = await self._runs.run(journey, leg, listener)
            except Overloaded:  # a crowd would only move on to a dearer tier
                raise
            except ServiceError as error:
                late = time.monotonic() >= journey.until
                if late or not turn.checked or journey.decision is not None:
                    raise
                log.warning("a lower tier gives way", tier=turn.tier.name, why=error.reason)
                way.pass_over(Verdict.UNAVAILABLE)
        self._drift.note(journey.checked.route, way)

    def _look(self, journey: Journey) -> None:
        """Notes which levers are halted and how likely the request is drawn as evidence."""
        route = journey.checked.route
        journey.halted = self._levers.halted(route)
        if route.quality is not None:
            evidence = route.quality.evidence
            settled = route.quality.calibration is not None and not journey.halted
            journey.propensity = evidence.share if settled else evidence.share_until_calibrated

    def _way(self, journey: Journey) -> Cascade:
        checked = journey.checked
        wanted = journey.drawn or checked.compiled.uses_features
        told = features(checked.written, checked.signals) if wanted else ()
        return checked.compiled.cascade(journey.halted, told)

    async def _leg(self, journey: Journey, turn: Step) -> Leg | None:
        """The tier's prompt and limit; None where a limit keeps it from its turn.

        Raises:
            BadRequest: no tier above could take it either.
        """
        tier, checked = turn.tier, journey.checked
        text = self._texts[tier.tokenizer]
        prompt = await text.encode(journey.turns)
        if journey.trimmed:
            journey.baseline_prompt_tokens = len(await text.encode(checked.asked.turns))
        journey.prompt_tokens = len(prompt)
        room = tier.max_sequence_tokens - len(prompt)
        limit = min(checked.asked.max_output_tokens, room)
        way = journey.climb
        if turn.checked and way is not None:
            roomier = tier.max_sequence_tokens < checked.route.top_tier.max_sequence_tokens
            short = room < 1 or (roomier and room < checked.asked.max_output_tokens)
            if short or not self._allowed(journey, turn, limit):
                way.pass_over(Verdict.LIMITED)
                return None
        elif room < 1:
            most = tier.max_sequence_tokens
            rule = f"{tier.name} takes fewer than {most} tokens, got {len(prompt)}"
            raise BadRequest.of(Violation("prompt", rule))
        else:
            limit = min(limit, self._affordable(journey, turn))
        now = time.monotonic()
        until = now + (journey.until - now) * SHARE_OF_WAIT if turn.checked else journey.until
        return Leg(turn, prompt, limit, now, until)

    def _allowed(self, journey: Journey, turn: Step, limit: int) -> bool:
        """Whether money and time suffice for trying this tier and then the top one."""
        route, now = journey.checked.route, time.monotonic()
        tiers = turn.tier, route.top_tier
        if route.limits.micro_usd is not None:
            most = sum(tier.price.of(journey.prompt_tokens, limit) for tier in tiers)
            if journey.spent_micro_usd + most > route.limits.micro_usd:
                return False
        seconds = [self._load.slow_seconds(tier.name, now) or 0.0 for tier in tiers]
        return now + sum(seconds) < journey.until

    def _affordable(self, journey: Journey, turn: Step) -> int:
        """Most output tokens that the route's money allows.

        Raises:
            BadRequest: it does not even pay for the prompt.
        """
        most, price = journey.checked.route.limits.micro_usd, turn.tier.price
        asked = journey.checked.asked.max_output_tokens
        if most is None:
            return asked
        left = most - journey.spent_micro_usd
        tokens = price.affords(left, journey.prompt_tokens, asked)
        if tokens < 1:
            needed = price.of(journey.prompt_tokens, 1)
            rule = f"costs {needed} micro-USD on {turn.tier.name}, {left} are left of {most}"
            raise BadRequest.of(Violation("prompt", rule))
        return tokens
