"""The way of a request: cache, tier, tokens, replica, answer, and the traces it leaves.

Reads from top to bottom as a request travels; see `RequestPath.answer`. Who calls and whether the
request keeps the rules is settled before (`requests`); what it looks like on the wire is not known
here (`servicer`).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from services.common.errors import BadRequest, ServiceError, Unavailable, Violation
from services.router.fleet import Fleet, Replica
from services.router.load import LoadWindow
from services.router.metrics import Metrics
from services.router.policy.decision import CacheOutcome, Decision, Reason
from services.router.policy.routes import Cancel, Policies, Tier, TierChoice, choose_tier
from services.router.policy.text import StopTexts
from services.router.ports import (
    AnswerCache,
    CacheHit,
    CacheMiss,
    Detokenizer,
    Engine,
    EngineChunk,
    EngineFigures,
    EngineRun,
    Finish,
    ReplicaFailed,
    TierText,
    Written,
)
from services.router.requests import Checked

log = structlog.get_logger()

MOST_TRIES = 12
FIRST_RETRY_SECONDS = 0.02
SLOWEST_RETRY_SECONDS = 1.0
BEYOND_DEADLINE_SECONDS = 60.0
"""How much longer than its caller a run may live that others wait for or that must drain."""

MOST_STORED_PIECES = 64


class Listener(Protocol):
    """Takes the answer as it comes; an exception from here means that the caller has gone."""

    async def started(self, decision: Decision) -> None:
        """The decision stands; text follows."""

    async def piece(self, text: str, tokens: int) -> None:
        """The next text, never empty, and the tokens it stands for."""


@dataclass(slots=True)
class Journey:
    """What is known of one request on its way. Times are monotonic seconds.

    Attributes:
        until: when the caller's deadline passes.
        until_is_ours: the caller set none; the route's default holds.
        pieces: the answer so far.
    """

    request_id: str
    handle: str
    tenant: str
    checked: Checked
    arrived: float
    until: float
    streaming: bool
    until_is_ours: bool = False
    decision: Decision | None = None
    cache: CacheOutcome = CacheOutcome.NOT_ASKED
    lease: str = ""
    pieces: list[tuple[str, int]] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish: Finish = Finish.STOP
    figures: EngineFigures = field(default_factory=EngineFigures)
    micro_usd: int = 0
    baseline_micro_usd: int = 0
    queued_seconds: float = 0.0
    first_text_at: float | None = None
    last_text_at: float = 0.0

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join([text for text, _ in self.pieces])


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
        self._policies = policies
        self._fleet = fleet
        self._engine = engine
        self._texts = texts
        self._cache = cache
        self._load = load
        self._metrics = metrics
        self._spawn = spawn

    async def answer(self, journey: Journey, listener: Listener) -> None:
        """Answers a request, from the cache or from a replica.

        Raises:
            ServiceError: what the caller is to see.
        """
        found = await self._ask_cache(journey, lease=True)
        if isinstance(found, CacheHit):
            await self._replay(journey, found, listener)
            return
        journey.lease = found.lease
        try:
            choice = choose_tier(journey.checked.route)
            prompt = await self._tokens(journey, choice.tier)
            await self._run(journey, choice, prompt, listener)
        finally:
            if journey.lease:  # neither stored nor handed on: let the next one try
                self._cache.abandon(journey.tenant, journey.checked.route.name, journey.lease)

    async def explain(self, journey: Journey) -> int:
        """Decides without running; fills in `decision` and `prompt_tokens`.

        Returns:
            the most the answer could cost, in micro-USD.
        """
        found = await self._ask_cache(journey, lease=False)
        choice = choose_tier(journey.checked.route)
        prompt = await self._tokens(journey, choice.tier)
        if isinstance(found, CacheHit):
            journey.decision = self._decide_cached(journey, found)
            return 0
        journey.decision = self._decide(journey, choice, self._fleet.preview(choice.tier.name))
        most = min(
            journey.checked.asked.max_output_tokens,
            choice.tier.max_sequence_tokens - len(prompt),
        )
        return choice.tier.price.of(len(prompt), most)

    # --- the cache -------------------------------------------------------------------------

    async def _ask_cache(self, journey: Journey, *, lease: bool) -> CacheHit | CacheMiss:
        checked = journey.checked
        route = checked.route
        if not checked.read_cache:
            return CacheMiss()
        left = journey.until - time.monotonic()
        found = await self._cache.lookup(
            journey.tenant,
            route.name,
            checked.asked,
            route.ladder[route.ladder.index(choose_tier(route).tier) :],
            lease=lease,
            max_wait_seconds=min(route.cache.wait_seconds, left / 2) if lease else 0.0,
        )
        if isinstance(found, CacheHit):
            journey.cache = CacheOutcome.SHARED if found.shared else CacheOutcome.EXACT
        else:
            journey.cache = CacheOutcome.MISS if found.available else CacheOutcome.UNAVAILABLE
        self._metrics.cache_outcomes.labels(route.name, journey.cache.value).inc()
        return found

    async def _replay(self, journey: Journey, hit: CacheHit, listener: Listener) -> None:
        answer = hit.answer
        journey.decision = self._decide_cached(journey, hit)
        journey.prompt_tokens, journey.output_tokens = answer.prompt_tokens, answer.output_tokens
        journey.finish = answer.finish
        await listener.started(journey.decision)
        for text, tokens in answer.pieces:
            self._note_text(journey, text, tokens)
            await listener.piece(text, tokens)
        self._price(journey, None)

    def _decide_cached(self, journey: Journey, hit: CacheHit) -> Decision:
        answer = hit.answer
        how = "was just being written" if hit.shared else "was stored"
        return Decision(
            route=journey.checked.route.name,
            policy_version=self._policies.version,
            tier=answer.tier,
            model=answer.model,
            precision=answer.precision,
            replica="",
            reason=Reason.CACHED,
            explanation=f"The answer that {answer.tier} gave to the same question {how}.",
            cache=journey.cache,
            fleet_stale=self._fleet.stale,
        )

    def _store(self, journey: Journey, tier: Tier) -> None:
        """Stores a complete answer, and so ends the lease."""
        checked = journey.checked
        # A miss without a lease means that another holder stores, or that the cache is away.
        refresh = checked.write_cache and not checked.read_cache
        if not journey.pieces or not (journey.lease or refresh):
            return
        self._cache.store(
            journey.tenant,
            checked.route.name,
            checked.asked,
            Written(
                pieces=_merged(journey.pieces),
                finish=journey.finish,
                prompt_tokens=journey.prompt_tokens,
                output_tokens=journey.output_tokens,
                tier=tier.name,
                model=tier.model,
                precision=tier.precision,
                policy_version=self._policies.version,
            ),
            lease=journey.lease,
            ttl_seconds=checked.route.cache.ttl_seconds,
        )
        journey.lease = ""

    # --- the model -------------------------------------------------------------------------

    async def _tokens(self, journey: Journey, tier: Tier) -> Sequence[int]:
        prompt = await self._texts[tier.name].encode(journey.checked.asked.turns)
        journey.prompt_tokens = len(prompt)
        if len(prompt) >= tier.max_sequence_tokens:
            rule = (
                f"{tier.name} takes fewer than {tier.max_sequence_tokens} tokens, got {len(prompt)}"
            )
            raise BadRequest.of(Violation("prompt", rule))
        return prompt

    async def _run(
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
            if outlives or run.ended:
                self._spawn(self._outlive(journey, run, journey.lease))
                journey.lease = ""  # now in the hands of that task, like the place
            else:
                run.engine.cancel()
                self._leave(run)
            raise
        self._leave(run)
        self._price(journey, tier)
        self._store(journey, tier)
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
            seconds = tier.idle_seconds if journey.output_tokens else tier.first_token_seconds
            chunk = await run.engine.read(seconds)
            text, tokens = self._take(journey, run, chunk), len(chunk.tokens)
            if choice is not None and listener is not None:
                if journey.decision is None:
                    journey.decision = self._decide(journey, choice, run.replica.id)
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
            self._note_text(journey, text, tokens)
        if run.ended:
            short = stopped or journey.output_tokens < run.limit
            journey.finish = Finish.STOP if short else Finish.LENGTH
        return text

    async def _outlive(self, journey: Journey, run: _Run, lease: str) -> None:
        """Goes on with a run whose caller has gone: it must drain, or others wait for it."""
        route = journey.checked.route.name
        journey.lease = lease
        try:
            stoppable = run.tier.cancel is Cancel.ABORT and not run.ended
            if stoppable and not await self._cache.abandon_unless_awaited(
                journey.tenant, route, lease
            ):
                journey.lease = ""
                run.engine.cancel()
                return
            while not await self._advance(journey, run, None, None):
                pass
            self._store(journey, run.tier)
        except (ReplicaFailed, ServiceError) as error:
            run.engine.cancel()
            log.warning("a run without a caller failed", why=str(error))
        except BaseException:
            run.engine.cancel()
            raise
        finally:
            self._leave(run)
            if journey.lease:
                self._cache.abandon(journey.tenant, route, journey.lease)

    def _leave(self, run: _Run) -> None:
        run.replica.runs.discard(run.engine)
        self._fleet.release(run.replica)

    @staticmethod
    def _note_text(journey: Journey, text: str, tokens: int) -> None:
        now = time.monotonic()
        if journey.first_text_at is None:
            journey.first_text_at = now
        journey.last_text_at = now
        journey.pieces.append((text, tokens))

    # --- what it leaves --------------------------------------------------------------------

    def _decide(self, journey: Journey, choice: TierChoice, replica: str) -> Decision:
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

    def _price(self, journey: Journey, tier: Tier | None) -> None:
        """Fills in money; without a tier nothing ran."""
        tokens = journey.prompt_tokens, journey.output_tokens
        journey.micro_usd = tier.price.of(*tokens) if tier is not None else 0
        journey.baseline_micro_usd = journey.checked.route.top_tier.price.of(*tokens)

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


def _merged(pieces: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """The same text in at most `MOST_STORED_PIECES` pieces."""
    step = -(-len(pieces) // MOST_STORED_PIECES)
    if step <= 1:
        return tuple(pieces)
    return tuple(
        (
            "".join([text for text, _ in pieces[at : at + step]]),
            sum(tokens for _, tokens in pieces[at : at + step]),
        )
        for at in range(0, len(pieces), step)
    )


async def _drain(engine: EngineRun, idle_seconds: float) -> None:
    """Reads a run to its end and throws it away."""
    try:
        while not (await engine.read(idle_seconds)).final:
            pass
        await engine.finish()
    except (ReplicaFailed, ServiceError):
        engine.cancel()
