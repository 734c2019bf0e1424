"""Stored answers on a request's way: asked for, replayed, stored; and the lease on writing one."""

from collections.abc import Callable, Sequence

from services.router.metrics import Metrics
from services.router.policy.decision import CacheOutcome, Decision, Reason
from services.router.policy.levers import CACHE
from services.router.policy.routes import Tier
from services.router.ports import AnswerCache, CacheHit, CacheMiss, Written
from services.router.request.attempt import Answer
from services.router.request.context import Listener, RequestContext, RequestState
from services.router.request.hold import Checks

MAX_STORED_PIECES = 64


class Lease:
    """Leave to write the stored answer of a request: used, given back or moved, and then over.

    While it is held identical requests wait for that answer. A caller who wants a fresh answer
    stored without asking for an old one has leave too, though nobody waits.
    """

    def __init__(
        self,
        cache: AnswerCache,
        context: RequestContext,
        token: str = "",
        *,
        refreshes: bool = False,
    ) -> None:
        """`token` is the cache's word for it; empty where nobody waits."""
        self._cache = cache
        self._context = context
        self._token = token
        self._refreshes = refreshes

    @property
    def held(self) -> bool:
        """Whether others may wait for the answer."""
        return bool(self._token)

    def moved(self) -> "Lease":
        """The same leave in other hands; this one is over."""
        other = Lease(self._cache, self._context, self._token, refreshes=self._refreshes)
        self._end()
        return other

    def store(self, answer: Answer, tier: Tier) -> None:
        """Stores a complete answer that the tier wrote, and so ends the lease."""
        if not self._token and not self._refreshes:
            return
        context = self._context
        self._cache.store(
            context.tenant,
            context.route.name,
            context.asked,
            Written(
                pieces=_merged(answer),
                finish=answer.finish,
                prompt_tokens=answer.prompt_tokens,
                output_tokens=answer.output_tokens,
                tier=tier.name,
                model=tier.model,
                precision=tier.precision,
                policy_version=context.checked.policy_version,
            ),
            lease=self._token,
            ttl_seconds=context.route.cache.ttl_seconds,
        )
        self._end()

    def give_back(self) -> None:
        """Ends a lease that was neither used nor moved: the next one may try."""
        if self._token:
            context = self._context
            self._cache.abandon(context.tenant, context.route.name, self._token)
        self._end()

    def give_way(self) -> None:
        """Has others who ask the same wait no longer; the answer is stored all the same."""
        if self._token:
            self.give_back()
            self._refreshes = True

    async def is_awaited(self) -> bool:
        """Whether somebody else waits for this answer; if not, the lease is given back."""
        if not self._token:
            return False
        context = self._context
        if await self._cache.abandon_unless_awaited(
            context.tenant, context.route.name, self._token
        ):
            return True
        self._token = ""
        return False

    def _end(self) -> None:
        self._token, self._refreshes = "", False


class StoredAnswers:
    """What a route's policy makes of the cache; state of the process."""

    def __init__(
        self,
        *,
        cache: AnswerCache,
        checks: Checks,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._checks = checks
        self._metrics = metrics
        self._clock = clock

    async def ask(self, state: RequestState, *, lease: bool) -> CacheHit | Lease:
        """Looks for an answer that the policy in force accepts, if request and route allow it.

        Returns:
            it, or the leave to write one.

        Raises:
            Overloaded, DeadlineExceeded: it could not be checked; see `Checks.has_form`.
        """
        context = state.context
        checked, route = context.checked, context.route
        if CACHE in context.halted:
            return Lease(self._cache, context)
        if not checked.read_cache:
            return Lease(self._cache, context, refreshes=checked.write_cache)
        left = context.until - self._clock()
        state.cache = CacheOutcome.MISS  # for who hangs up meanwhile
        found = await self._cache.lookup(
            context.tenant,
            route.name,
            context.asked,
            checked.compiled.writers(context.halted),
            lease=lease,
            max_wait_seconds=min(route.cache.wait_seconds, left / 2) if lease else 0.0,
        )
        if isinstance(found, CacheHit) and not await self._fits(context, found.answer):
            found = CacheMiss()
        if isinstance(found, CacheHit):
            state.cache = CacheOutcome.SHARED if found.shared else CacheOutcome.EXACT
        else:
            state.cache = CacheOutcome.MISS if found.available else CacheOutcome.UNAVAILABLE
        self._metrics.cache_outcomes.labels(route.name, state.cache.value).inc()
        # A miss without a lease means that another holder stores, or that the cache is away.
        return found if isinstance(found, CacheHit) else Lease(self._cache, context, found.lease)

    async def replay(
        self, state: RequestState, hit: CacheHit, listener: Listener, *, fleet_stale: bool
    ) -> None:
        """Tells a stored answer as it was streamed."""
        decision = self.decide(state, hit, fleet_stale=fleet_stale)
        state.replay(hit.answer)
        state.commit(decision, None)
        await listener.started(decision)
        for text, tokens in hit.answer.pieces:
            state.answer.note(text, tokens, self._clock())
            await listener.piece(text, tokens)

    @staticmethod
    def decide(state: RequestState, hit: CacheHit, *, fleet_stale: bool) -> Decision:
        """The decision to serve a stored answer."""
        answer = hit.answer
        how = "was just being written" if hit.shared else "was stored"
        return state.decided(
            answer.tier,
            answer.model,
            answer.precision,
            reason=Reason.CACHED,
            explanation=f"The answer that {answer.tier} gave to the same question {how}.",
            fleet_stale=fleet_stale,
        )

    async def _fits(self, context: RequestContext, answer: Written) -> bool:
        """Whether a stored answer passes what this request wants checked, as if it were given now.

        Raises:
            Overloaded, DeadlineExceeded: see `Checks.has_form`.
        """
        route = context.route
        if route.quality is None or answer.tier == route.top_tier.name:
            return True
        text = "".join([text for text, _ in answer.pieces])
        return await self._checks.has_form(text, context, context.until, context.checked.priority)


def _merged(answer: Answer) -> tuple[tuple[str, int], ...]:
    """The same text in at most `MAX_STORED_PIECES` pieces, whose tokens are all the answer's."""
    pieces: Sequence[tuple[str, int]] = answer.pieces
    step = -(-len(pieces) // MAX_STORED_PIECES)
    if step > 1:
        pieces = [
            (
                "".join([text for text, _ in pieces[at : at + step]]),
                sum([tokens for _, tokens in pieces[at : at + step]]),
            )
            for at in range(0, len(pieces), step)
        ]
    without_text = answer.output_tokens - sum([tokens for _, tokens in pieces])
    if pieces and without_text:
        *rest, (text, tokens) = pieces
        pieces = [*rest, (text, tokens + without_text)]
    return tuple(pieces)
