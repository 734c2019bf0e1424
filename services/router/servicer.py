"""RouterService on the wire: messages in, messages out, and the record each request leaves."""

import asyncio
import time
import uuid
from typing import Any

import structlog

from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc
from services.common.credentials import current_identity
from services.common.errors import DeadlineExceeded, ServiceError
from services.router.fleet import Fleet
from services.router.handle import HandleSigner
from services.router.metrics import Metrics
from services.router.path import Journey, RequestPath
from services.router.policy.decision import Decision
from services.router.policy.routes import Policies, Tier
from services.router.ports import Finish, Ledger
from services.router.requests import Request, check

log = structlog.get_logger()

FINISH = {Finish.STOP: pb.FINISH_REASON_STOP, Finish.LENGTH: pb.FINISH_REASON_LENGTH}


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """The four calls of this form."""

    def __init__(
        self,
        *,
        path: RequestPath,
        policies: Policies,
        fleet: Fleet,
        signer: HandleSigner,
        ledger: Ledger,
        metrics: Metrics,
        max_prompt_characters: int,
    ) -> None:
        self._path = path
        self._policies = policies
        self._fleet = fleet
        self._signer = signer
        self._ledger = ledger
        self._metrics = metrics
        self._longest = max_prompt_characters

    # grpc.aio takes a coroutine that writes as well as a generator; with one, a caller who hangs
    # up cancels exactly the await we are in.
    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # type: ignore[override]
        """See router.proto."""
        journey = self._begin(request, context, streaming=True)
        await self._travel(journey, _StreamListener(context, journey))
        summary = _summary(journey)
        await context.write(pb.GenerateResponse(finished=pb.Finished(summary=summary)))

    async def Complete(self, request: pb.CompleteRequest, context: Any) -> pb.CompleteResponse:
        """See router.proto."""
        journey = self._begin(request, context, streaming=False)
        await self._travel(journey, _Silent())
        return pb.CompleteResponse(text=journey.text, summary=_summary(journey))

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        """See router.proto."""
        journey = self._begin(request, context, streaming=False)
        most = await self._path.explain(journey)
        return pb.ExplainResponse(
            decision=_decision(journey.decision),
            prompt_tokens=journey.prompt_tokens,
            max_micro_usd=most,
        )

    async def ListRoutes(
        self, request: pb.ListRoutesRequest, context: Any
    ) -> pb.ListRoutesResponse:
        """See router.proto."""
        tenant = current_identity().tenant
        response = pb.ListRoutesResponse(policy_version=self._policies.version)
        for _, route in sorted(self._policies.routes.items()):
            if not route.admits(tenant):
                continue
            told = response.routes.add(
                name=route.name,
                description=route.description,
                ladder=[self._tier(tier) for tier in route.ladder],
                fixed_tier=route.fixed_tier.name,
                default_output_tokens=route.default_output_tokens,
                max_output_tokens=route.max_output_tokens,
            )
            told.default_deadline.FromNanoseconds(int(route.default_deadline_seconds * 1e9))
        return response

    def _begin(self, request: Request, context: Any, *, streaming: bool) -> Journey:
        """Checks who asks for what and in which time.

        Raises:
            ServiceError: the request is refused.
        """
        arrived = time.monotonic()
        tenant = current_identity().tenant
        try:
            checked = check(request, tenant, self._policies, longest=self._longest)
            route = checked.route
            left = context.time_remaining()
            if left is None:
                left = route.default_deadline_seconds
            elif left < route.shortest_deadline_seconds:
                raise DeadlineExceeded(
                    f"{max(left, 0.0):.3f} s are left; {route.name} needs at least "
                    f"{route.shortest_deadline_seconds:g} s",
                    reason="DEADLINE_TOO_SHORT",
                )
        except ServiceError as error:
            self._metrics.requests.labels(
                _known(request, self._policies), "", error.code.name
            ).inc()
            log.info(
                "request",
                tenant=tenant,
                route=_known(request, self._policies),
                status=error.code.name,
                reason=error.reason,
            )
            raise
        request_id = uuid.uuid4().hex
        return Journey(
            request_id=request_id,
            handle=self._signer.sign(request_id, tenant, route.name, int(time.time())),
            tenant=tenant,
            checked=checked,
            arrived=arrived,
            until=arrived + left,
            streaming=streaming,
        )

    async def _travel(self, journey: Journey, listener: Any) -> None:
        """Sends a request on its way and records how it ended."""
        status = "OK"
        try:
            async with asyncio.timeout(journey.until - time.monotonic()):
                await self._path.answer(journey, listener)
        except TimeoutError:
            status = "DEADLINE_EXCEEDED"
            raise DeadlineExceeded(
                "the deadline passed before the answer was complete", handle=journey.handle
            ) from None
        except ServiceError as error:
            status = error.code.name
            error.handle = journey.handle
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except BaseException:
            status = "INTERNAL"
            raise
        finally:
            self._record(journey, status)

    def _record(self, journey: Journey, status: str) -> None:
        """Metrics, one ledger record, one canonical log line."""
        now = time.monotonic()
        checked, decision = journey.checked, journey.decision
        route, tier = checked.route.name, decision.tier if decision else ""
        metrics = self._metrics
        metrics.requests.labels(route, tier, status).inc()
        metrics.total.labels(route, tier).observe(now - journey.arrived)
        if journey.first_text_at is not None:
            metrics.first_text.labels(route, tier).observe(journey.first_text_at - journey.arrived)
        if decision is not None and decision.replica:
            metrics.prompt_tokens.labels(tier).inc(journey.prompt_tokens)
            metrics.output_tokens.labels(tier).inc(journey.output_tokens)
            metrics.queued.labels(tier).observe(journey.queued_seconds)
        metrics.micro_usd.labels(route).inc(journey.micro_usd)
        metrics.baseline_micro_usd.labels(route).inc(journey.baseline_micro_usd)
        engine = journey.figures.engine_seconds
        first = journey.first_text_at
        facts = {
            "request_id": journey.request_id,
            "tenant": journey.tenant,
            "route": route,
            "tier": tier,
            "replica": decision.replica if decision else "",
            "reason": decision.reason.value if decision else "",
            "cache": journey.cache.value,
            "status": status,
            "prompt_tokens": journey.prompt_tokens,
            "output_tokens": journey.output_tokens,
            "micro_usd": journey.micro_usd,
            "baseline_micro_usd": journey.baseline_micro_usd,
            "engine_ms": None if engine is None else round(engine * 1e3, 3),
            "queued_ms": round(journey.queued_seconds * 1e3, 3),
            "first_text_ms": None if first is None else round((first - journey.arrived) * 1e3, 3),
            "total_ms": round((now - journey.arrived) * 1e3, 3),
        }
        log.info("request", **facts)
        self._ledger.add(
            {
                "time": time.time(),
                "handle": journey.handle,
                **facts,
                "model": decision.model if decision else "",
                "precision": decision.precision if decision else "",
                "priority": checked.priority.name.lower(),
                "idempotency_key": checked.idempotency_key,
                "attributes": checked.attributes,
                "policy_version": self._policies.version,
            }
        )

    def _tier(self, tier: Tier) -> pb.Tier:
        return pb.Tier(
            name=tier.name,
            model=tier.model,
            precision=tier.precision,
            prompt_micro_usd_per_million=tier.price.prompt,
            output_micro_usd_per_million=tier.price.output,
            max_sequence_tokens=tier.max_sequence_tokens,
            ready_replicas=self._fleet.ready(tier.name),
        )


class _StreamListener:
    """Sends the answer's events as they come."""

    def __init__(self, context: Any, journey: Journey) -> None:
        self._write = context.write
        self._journey = journey

    async def started(self, decision: Decision) -> None:
        started = pb.Started(handle=self._journey.handle, decision=_decision(decision))
        await self._write(pb.GenerateResponse(started=started))

    async def piece(self, text: str, tokens: int) -> None:
        await self._write(pb.GenerateResponse(delta=pb.Delta(text=text, tokens=tokens)))


class _Silent:
    """For whole answers: the journey keeps the pieces."""

    async def started(self, decision: Decision) -> None:
        pass

    async def piece(self, text: str, tokens: int) -> None:
        pass


def _known(request: Request, policies: Policies) -> str:
    """The route's name if there is such a route: callers must not invent label values."""
    return request.route if request.route in policies.routes else ""


def _decision(decision: Decision | None) -> pb.Decision:
    if decision is None:
        return pb.Decision()
    return pb.Decision(
        route=decision.route,
        policy_version=decision.policy_version,
        tier=decision.tier,
        model=decision.model,
        precision=decision.precision,
        replica=decision.replica,
        reason=pb.Reason.Value(f"REASON_{decision.reason.name}"),
        explanation=decision.explanation,
        cache=pb.CacheOutcome.Value(f"CACHE_OUTCOME_{decision.cache.name}"),
        fleet_stale=decision.fleet_stale,
    )


def _summary(journey: Journey) -> pb.Summary:
    summary = pb.Summary(
        handle=journey.handle,
        decision=_decision(journey.decision),
        finish_reason=FINISH[journey.finish],
        usage=pb.Usage(
            prompt_tokens=journey.prompt_tokens,
            output_tokens=journey.output_tokens,
            reused_prompt_tokens=journey.figures.reused_prompt_tokens,
        ),
        cost=pb.Cost(micro_usd=journey.micro_usd, baseline_micro_usd=journey.baseline_micro_usd),
    )
    timings = summary.timings
    timings.total.FromNanoseconds(int((time.monotonic() - journey.arrived) * 1e9))
    if journey.first_text_at is not None:
        first = journey.first_text_at - journey.arrived
        timings.first_text.FromNanoseconds(int(first * 1e9))
    if journey.decision is not None and journey.decision.replica:
        timings.queued.FromNanoseconds(int(journey.queued_seconds * 1e9))
    if journey.figures.engine_seconds is not None:
        timings.engine.FromNanoseconds(int(journey.figures.engine_seconds * 1e9))
    return summary
