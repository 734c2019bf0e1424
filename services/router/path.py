"""The way of a request: cache, tier, tokens, replica, answer.

Reads from top to bottom as a request travels; see `RequestPath.answer`. Who calls and whether the
request keeps the rules is settled before (`requests`); what it looks like on the wire is not known
here (`servicer`).
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from services.common.errors import BadRequest, Violation
from services.router.answers import StoredAnswers
from services.router.fleet import Fleet
from services.router.journey import Journey, Listener
from services.router.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.routes import Policies, Tier, choose_tier
from services.router.ports import AnswerCache, CacheHit, Engine, TierText
from services.router.runs import ReplicaRuns


class RequestPath:
    """Carries requests along; state of the process, none of a request."""

    def __init__(
        self,
        *,
        policies: Policies,
        fleet: Fleet,
        engine: Engine,
        texts: Mapping[str, TierText],
        cache: AnswerCache,
        load: LoadWindow,
        metrics: Metrics,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        """`spawn` starts a task that outlives its request and is owned by the process."""
        self._fleet = fleet
        self._texts = texts
        self._answers = StoredAnswers(policies=policies, fleet=fleet, cache=cache, metrics=metrics)
        self._runs = ReplicaRuns(
            policies=policies,
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
        found = await self._answers.ask(journey, lease=True)
        if isinstance(found, CacheHit):
            await self._answers.replay(journey, found, listener)
            return
        journey.lease = found.lease
        try:
            choice = choose_tier(journey.checked.route)
            prompt = await self._tokens(journey, choice.tier)
            await self._runs.run(journey, choice, prompt, listener)
        finally:
            self._answers.give_back(journey)

    async def explain(self, journey: Journey) -> int:
        """Decides without running; fills in `decision` and `prompt_tokens`.

        Returns:
            the most the answer could cost, in micro-USD.
        """
        found = await self._answers.ask(journey, lease=False)
        choice = choose_tier(journey.checked.route)
        prompt = await self._tokens(journey, choice.tier)
        if isinstance(found, CacheHit):
            journey.decision = self._answers.decide(journey, found)
            return 0
        replica = self._fleet.preview(choice.tier.name)
        journey.decision = self._runs.decide(journey, choice, replica)
        most = min(
            journey.checked.asked.max_output_tokens,
            choice.tier.max_sequence_tokens - len(prompt),
        )
        return choice.tier.price.of(len(prompt), most)

    async def _tokens(self, journey: Journey, tier: Tier) -> Sequence[int]:
        """The rendered prompt in the tier's tokens.

        Raises:
            BadRequest: it leaves no room for an answer.
        """
        prompt = await self._texts[tier.name].encode(journey.checked.asked.turns)
        journey.prompt_tokens = len(prompt)
        if len(prompt) >= tier.max_sequence_tokens:
            most = tier.max_sequence_tokens
            rule = f"{tier.name} takes fewer than {most} tokens, got {len(prompt)}"
            raise BadRequest.of(Violation("prompt", rule))
        return prompt
