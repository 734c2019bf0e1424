"""Stored answers on a request's way: asked for, replayed, stored."""

import time
from collections.abc import Sequence

from services.router.fleet.fleet import Fleet
from services.router.metrics import Metrics
from services.router.policy.decision import CacheOutcome, Decision, Reason
from services.router.policy.levers import CACHE
from services.router.policy.routes import Tier
from services.router.ports import AnswerCache, CacheHit, CacheMiss, Written
from services.router.request.hold import has_form
from services.router.request.journey import Journey, Listener

MAX_STORED_PIECES = 64


class StoredAnswers:
    """What a route's policy makes of the cache; state of the process."""

    def __init__(self, *, fleet: Fleet, cache: AnswerCache, metrics: Metrics) -> None:
        self._fleet = fleet
        self._cache = cache
        self._metrics = metrics

    async def ask(self, journey: Journey, *, lease: bool) -> CacheHit | CacheMiss:
        """Looks for an answer that the policy in force accepts, if request and route allow it."""
        checked = journey.checked
        route = checked.route
        if not checked.read_cache or CACHE in journey.halted:
            return CacheMiss()
        left = journey.until - time.monotonic()
        found = await self._cache.lookup(
            journey.tenant,
            route.name,
            journey.asked,
            checked.compiled.writers(journey.halted),
            lease=lease,
            max_wait_seconds=min(route.cache.wait_seconds, left / 2) if lease else 0.0,
        )
        if isinstance(found, CacheHit) and not await _fits(journey, found.answer):
            found = CacheMiss()
        if isinstance(found, CacheHit):
            journey.cache = CacheOutcome.SHARED if found.shared else CacheOutcome.EXACT
        else:
            journey.cache = CacheOutcome.MISS if found.available else CacheOutcome.UNAVAILABLE
        self._metrics.cache_outcomes.labels(route.name, journey.cache.value).inc()
        return found

    async def replay(self, journey: Journey, hit: CacheHit, listener: Listener) -> None:
        """Tells a stored answer as it was streamed."""
        answer = hit.answer
        journey.decision = self.decide(journey, hit)
        journey.prompt_tokens, journey.output_tokens = answer.prompt_tokens, answer.output_tokens
        journey.finish = answer.finish
        await listener.started(journey.decision)
        for text, tokens in answer.pieces:
            journey.note_text(text, tokens)
            await listener.piece(text, tokens)
        journey.settle(None)

    def decide(self, journey: Journey, hit: CacheHit) -> Decision:
        """The decision to serve a stored answer."""
        answer = hit.answer
        how = "was just being written" if hit.shared else "was stored"
        return Decision(
            route=journey.checked.route.name,
            policy_version=journey.checked.policies.version,
            tier=answer.tier,
            model=answer.model,
            precision=answer.precision,
            replica="",
            reason=Reason.CACHED,
            explanation=f"The answer that {answer.tier} gave to the same question {how}.",
            cache=journey.cache,
            fleet_stale=self._fleet.stale,
            propensity=journey.propensity,
            halted=tuple(sorted(journey.halted)),
        )

    def store(self, journey: Journey, tier: Tier) -> None:
        """Stores a complete answer, and so ends the lease."""
        checked = journey.checked
        # A miss without a lease means that another holder stores, or that the cache is away.
        refresh = checked.write_cache and not checked.read_cache and CACHE not in journey.halted
        if not journey.pieces or not (journey.lease or refresh):
            return
        self._cache.store(
            journey.tenant,
            checked.route.name,
            journey.asked,
            Written(
                pieces=_merged(journey.pieces),
                finish=journey.finish,
                prompt_tokens=journey.prompt_tokens,
                output_tokens=journey.output_tokens,
                tier=tier.name,
                model=tier.model,
                precision=tier.precision,
                policy_version=checked.policies.version,
            ),
            lease=journey.lease,
            ttl_seconds=checked.route.cache.ttl_seconds,
        )
        journey.lease = ""

    def give_back(self, journey: Journey) -> None:
        """Ends a lease that was neither used nor handed on: the next one may try."""
        if journey.lease:
            self._cache.abandon(journey.tenant, journey.checked.route.name, journey.lease)
            journey.lease = ""

    async def is_awaited(self, journey: Journey) -> bool:
        """Whether somebody else waits for this answer; if not, the lease is given back."""
        route = journey.checked.route.name
        if await self._cache.abandon_unless_awaited(journey.tenant, route, journey.lease):
            return True
        journey.lease = ""
        return False


async def _fits(journey: Journey, answer: Written) -> bool:
    """Whether a stored answer passes what this request wants checked, as if it were given now."""
    route = journey.checked.route
    if route.quality is None or answer.tier == route.top_tier.name:
        return True
    return await has_form(journey, "".join([text for text, _ in answer.pieces]))


def _merged(pieces: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """The same text in at most `MAX_STORED_PIECES` pieces."""
    step = -(-len(pieces) // MAX_STORED_PIECES)
    if step <= 1:
        return tuple(pieces)
    return tuple(
        (
            "".join([text for text, _ in pieces[at : at + step]]),
            sum(tokens for _, tokens in pieces[at : at + step]),
        )
        for at in range(0, len(pieces), step)
    )
