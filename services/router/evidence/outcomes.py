"""What became of answers, as callers say.

An outcome is checked, kept once for all routers, written to the ledger, and given to the guardrail
where a pair waits for it. The text of a corrected answer goes nowhere: only its keyed digest does,
which can be compared with the digests of the answers that were given.
"""

import asyncio
import math
from collections.abc import Callable

import structlog

from pennyweight.ledger.schema import OutcomeRecord, time_text
from pennyweight.router.v1 import router_pb2 as pb
from services.common.errors import AlreadyExists, BadRequest, NotFound, Unavailable, Violation
from services.router.evidence.handles import HandleSigner
from services.router.evidence.waiting import KEPT_SECONDS, Outcome, WaitingPair, losses
from services.router.metrics import Metrics
from services.router.policy.routes import JudgeKind, Route
from services.router.ports import Keeper, Ledger, LeverBoard
from services.router.routes.in_force import InForce

log = structlog.get_logger()

MAX_HANDLE_CHARACTERS = 512
MAX_CORRECTION_CHARACTERS = 100_000
INLINE_CHARACTERS = 5_000
"""Longer corrections are digested in a thread."""


class Outcomes:
    """Takes outcomes; any router may take any."""

    def __init__(
        self,
        *,
        in_force: InForce,
        signer: HandleSigner,
        keeper: Keeper,
        ledger: Ledger,
        levers: LeverBoard,
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        """`wall` gives seconds since 1970."""
        self._in_force = in_force
        self._signer = signer
        self._keeper = keeper
        self._ledger = ledger
        self._levers = levers
        self._metrics = metrics
        self._wall = wall

    async def record(
        self, request: pb.RecordOutcomeRequest, tenant: str
    ) -> pb.RecordOutcomeResponse:
        """Takes what a caller of `tenant` says of an answer; the same again changes nothing.

        Raises:
            BadRequest: with all violations.
            NotFound: the tenant has no such route, or the handle is not of a request of its own.
            AlreadyExists: something else was said of this answer before.
            Unavailable: the shared state cannot be reached. Trying again is safe.
        """
        _check(request)
        route = self._in_force.now.routes.get(request.route)
        if route is None or not route.admits(tenant):  # nobody learns the names of others' routes
            raise NotFound(f"no route named {request.route[:80]!r}", reason="ROUTE_UNKNOWN")
        request_id = self._named(request.handle, tenant, route)
        outcome = await self._outcome(request)
        key, value = f"outcome:{request_id}", outcome.to_bytes()
        before = await self._keeper.keep_once(key, value, KEPT_SECONDS)
        if before not in (None, value):
            message = "something else was recorded for this request before"
            raise AlreadyExists(message, reason="OUTCOME_RECORDED", handle=request.handle)
        # That it is kept does not say that it was written: a try that broke off in between, or did
        # not hear from the shared state, is made good by the next one.
        written = f"written:{request_id}"
        if before is None or await self._keeper.kept(written) is None:
            self._write(route, tenant, request_id, outcome)
            await self._keeper.keep_once(written, b"1", KEPT_SECONDS)
        await self.settle(route, request_id)
        return pb.RecordOutcomeResponse(request_id=request_id)

    async def settle(self, route: Route, request_id: str) -> None:
        """Gives the guardrail a pair once both it and its outcome are there. Never raises.

        Whoever comes last calls it: `record`, or what keeps a pair that waits. It gives it once.
        """
        if route.quality is None or route.quality.evidence.judge.kind is not JudgeKind.OUTCOME:
            return
        try:
            kept_pair = await self._keeper.kept(f"pair:{request_id}")
            kept_outcome = await self._keeper.kept(f"outcome:{request_id}")
            if kept_pair is None or kept_outcome is None:
                return
            pair = WaitingPair.from_bytes(kept_pair)
            found = losses(route, pair, Outcome.from_bytes(kept_outcome))
            judged = f"judged:{request_id}"
            if await self._keeper.keep_once(judged, b"1", KEPT_SECONDS) is not None:
                return
        except Unavailable:
            log.warning("an outcome does not reach the guardrail: the shared state is away")
            return
        except ValueError as error:
            log.warning("a kept pair cannot be read", route=route.name, error=type(error).__name__)
            return
        if found:
            await self._levers.judged(route, found, pair.weight)

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

    async def _outcome(self, request: pb.RecordOutcomeRequest) -> Outcome:
        digest = None
        if request.HasField("corrected_answer"):
            text = request.corrected_answer
            if len(text) <= INLINE_CHARACTERS:
                digest = self._signer.digest(text)
            else:
                digest = await asyncio.to_thread(self._signer.digest, text)
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
