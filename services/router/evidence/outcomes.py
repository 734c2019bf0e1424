"""What became of answers, as callers say.

An outcome is checked, kept once for all routers, written to the ledger, and given to the guardrail
where a pair waits for it. The text of a corrected answer goes nowhere: only its keyed digest does,
which can be compared with the digests of the answers that were given.
"""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog

from pennyweight.ledger.schema import OutcomeRecord, time_text
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import (
    AlreadyExists,
    BadRequest,
    NotFound,
    Unavailable,
    Violation,
)
from services.router.admission.long_work import LongWork
from services.router.admission.turns import Turns
from services.router.evidence.handles import HandleSigner
from services.router.evidence.waiting import KEPT_SECONDS, Outcome, WaitingPair, losses
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.policy.routes import JudgeKind, Route
from services.router.ports import Keeper, Ledger, LeverBoard
from services.router.routes.in_force import InForce

log = structlog.get_logger()

MAX_HANDLE_CHARACTERS = 512
MAX_CORRECTION_CHARACTERS = 100_000
INLINE_CHARACTERS = 5_000
"""Longer corrections are digested in a thread."""

WAIT_SECONDS = 10.0
"""How long an outcome waits for its turn."""


def turns_at_the_state(clock: Callable[[], float]) -> Turns:
    """Who may use the shared state on a tenant's behalf: what levers need is never behind it."""
    return Turns(
        64,
        16,
        clock=clock,
        waiting=1024,
        waiting_for_one=256,
        what="outcomes",
        reason="TOO_MANY_OUTCOMES",
    )


class Outcomes:
    """Takes outcomes; any router may take any."""

    def __init__(
        self,
        *,
        in_force: InForce,
        signer: HandleSigner,
        keeper: Keeper,
        turns: Turns,
        digests: LongWork,
        ledger: Ledger,
        levers: LeverBoard,
        metrics: Metrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Takes the parts.

        Args:
            in_force: the policies.
            signer: of handles and digests.
            keeper: keeps outcomes and pairs.
            turns: at the keeper.
            digests: of long corrected answers.
            ledger: where outcomes are written.
            levers: who is told of judged pairs.
            metrics: what is counted.
            clock: seconds that only grow.
            wall: seconds since 1970.
        """
        self._in_force = in_force
        self._signer = signer
        self._keeper = keeper
        self._turns = turns
        self._digests = digests
        self._ledger = ledger
        self._levers = levers
        self._metrics = metrics
        self._clock = clock
        self._wall = wall

    async def record(
        self, request: pb.RecordOutcomeRequest, tenant: str
    ) -> pb.RecordOutcomeResponse:
        """Takes what a caller of `tenant` says of an answer; the same again changes nothing.

        Raises:
            BadRequest: with all violations.
            NotFound: the tenant has no such route, or the handle is not of a request of its own.
            AlreadyExists: something else was said of this answer before.
            Overloaded: too many outcomes of this tenant, or of all, wait already.
            DeadlineExceeded: they waited too long.
            Unavailable: the shared state cannot be reached. Trying again is safe.
        """
        _check(request)
        route = self._in_force.now.routes.get(request.route)
        if route is None or not route.admits(tenant):  # nobody learns the names of others' routes
            raise NotFound(f"no route named {request.route[:80]!r}", reason="ROUTE_UNKNOWN")
        request_id = self._named(request.handle, tenant, route)
        outcome = await self._outcome(request, tenant)
        async with self._turn(tenant):
            await self._keep(route, tenant, request_id, outcome, request.handle)
            due = await self._due(route, request_id, tenant)
        if due is not None:
            await self._levers.judged(route, *due)
        return pb.RecordOutcomeResponse(request_id=request_id)

    async def settle(self, route: Route, request_id: str, tenant: str) -> None:
        """Gives the guardrail a pair once both it and its outcome are there.

        Whoever comes last calls it: `record` does so itself, or what keeps a pair that waits. It
        gives it once.

        Raises:
            Overloaded, DeadlineExceeded: as in `record`.
        """
        async with self._turn(tenant):
            due = await self._due(route, request_id, tenant)
        if due is not None:
            await self._levers.judged(route, *due)

    def _turn(self, tenant: str) -> AbstractAsyncContextManager[None]:
        until = self._clock() + WAIT_SECONDS
        return self._turns.turn(tenant, Priority.INTERACTIVE, until)

    async def _keep(
        self, route: Route, tenant: str, request_id: str, outcome: Outcome, handle: str
    ) -> None:
        """Keeps an outcome and writes it, unless that is done.

        Raises:
            AlreadyExists, Unavailable: as `record` does.
        """
        key, value = f"outcome:{request_id}", outcome.to_bytes()
        before = await self._keeper.keep_once(key, value, KEPT_SECONDS, tenant=tenant)
        if before not in (None, value):
            message = "something else was recorded for this request before"
            raise AlreadyExists(message, reason="OUTCOME_RECORDED", handle=handle)
        # That it is kept does not say that it was written: a try that broke off in between, or did
        # not hear from the shared state, is made good by the next one.
        written = f"written:{request_id}"
        if before is None or await self._keeper.kept(written, tenant=tenant) is None:
            self._write(route, tenant, request_id, outcome)
            await self._keeper.keep_once(written, b"1", KEPT_SECONDS, tenant=tenant)

    async def _due(
        self, route: Route, request_id: str, tenant: str
    ) -> tuple[dict[str, float], float] | None:
        """What the guardrail is to be told of a request, and its weight; once. Never raises."""
        if route.quality is None or route.quality.evidence.judge.kind is not JudgeKind.OUTCOME:
            return None
        try:
            kept_pair = await self._keeper.kept(f"pair:{request_id}", tenant=tenant)
            kept_outcome = await self._keeper.kept(f"outcome:{request_id}", tenant=tenant)
            if kept_pair is None or kept_outcome is None:
                return None
            pair = WaitingPair.from_bytes(kept_pair)
            found = losses(route, pair, Outcome.from_bytes(kept_outcome))
            judged = f"judged:{request_id}"
            before = await self._keeper.keep_once(judged, b"1", KEPT_SECONDS, tenant=tenant)
        except Unavailable:
            log.warning("an outcome does not reach the guardrail: the shared state is away")
            return None
        except ValueError as error:
            log.warning("a kept pair cannot be read", route=route.name, error=type(error).__name__)
            return None
        return (found, pair.weight) if found and before is None else None

    def _named(self, handle: str, tenant: str, route: Route) -> str:
        """The request a handle names.

        Raises:
            NotFound: one and the same for every reason, so that nothing can be probed.
        """
        named = None
        if len(handle) <= MAX_HANDLE_CHARACTERS:
            named = self._signer.verify(handle, tenant, route.name)
        if named is None or self._wall() - named.unix_seconds > KEPT_SECONDS:
            message = "the handle names no request of yours to this route in the last 30 days"
            raise NotFound(message, reason="HANDLE_UNKNOWN")
        return named.request_id

    async def _outcome(self, request: pb.RecordOutcomeRequest, tenant: str) -> Outcome:
        digest = None
        if request.HasField("corrected_answer"):
            text = request.corrected_answer
            if len(text) <= INLINE_CHARACTERS:
                digest = self._signer.digest(text)
            else:
                digest = await self._digests.run(
                    partial(self._signer.digest, text),
                    request.ByteSize(),
                    tenant=tenant,
                    priority=Priority.BATCH,
                    until=self._clock() + WAIT_SECONDS,
                )
        return Outcome(
            resolved=request.resolved if request.HasField("resolved") else None,
            rating=request.rating if request.HasField("rating") else None,
            corrected_digest=digest,
        )

    def _write(self, route: Route, tenant: str, request_id: str, outcome: Outcome) -> None:
        record = OutcomeRecord(
            time=time_text(self._wall()),
            request_id=request_id,
            tenant=tenant,
            route=route.name,
            resolved=outcome.resolved,
            rating=outcome.rating,
            corrected_digest=outcome.corrected_digest,
        )
        self._ledger.add(record)
        log.info(
            "outcome",
            request_id=request_id,
            tenant=tenant,
            route=route.name,
            resolved=outcome.resolved,
            rating=outcome.rating,
            corrected=outcome.corrected_digest is not None,
        )
        for kind, said in (
            ("resolved", outcome.resolved is True),
            ("unresolved", outcome.resolved is False),
            ("rated", outcome.rating is not None),
            ("corrected", outcome.corrected_digest is not None),
        ):
            if said:
                self._metrics.outcomes.labels(route.name, kind).inc()


def _check(request: pb.RecordOutcomeRequest) -> None:
    wrong: list[Violation] = []
    wrong += [
        Violation(name, "is required") for name in ("route", "handle") if not getattr(request, name)
    ]
    said = [name for name in ("resolved", "rating", "corrected_answer") if request.HasField(name)]
    if not said:
        rule = "at least one of resolved, rating and corrected_answer is required"
        wrong.append(Violation("resolved", rule))
    rating = request.rating
    if "rating" in said and not (math.isfinite(rating) and -1.0 <= rating <= 1.0):
        wrong.append(Violation("rating", f"must be from -1 to 1, got {rating:g}"))
    length = len(request.corrected_answer)
    if "corrected_answer" in said and not 1 <= length <= MAX_CORRECTION_CHARACTERS:
        rule = f"must have 1 to {MAX_CORRECTION_CHARACTERS} characters, got {length}"
        wrong.append(Violation("corrected_answer", rule))
    if wrong:
        raise BadRequest.of(*wrong)
