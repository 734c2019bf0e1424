"""What a request leaves behind: metrics, one ledger record and one canonical log line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from pennyweight.ledger.schema import AttemptRecord, RequestRecord, time_text
from services.common.errors import ServiceError
from services.router.metrics import Metrics
from services.router.policy.line import Priority
from services.router.ports import Ledger
from services.router.request.attempt import Attempt, Ending
from services.router.request.context import RequestState
from services.router.request.plan import Cause

PRIORITY_NAMES: Mapping[Priority, str] = {priority: priority.name.lower() for priority in Priority}


@dataclass(frozen=True, slots=True)
class _Ended:
    """The metrics of one kind of ending, looked up once: labels are costly on the hot path."""

    requests: Any
    total: Any
    first_text: Any
    queued: Any
    baseline_micro_usd: Any


@dataclass(frozen=True, slots=True)
class _Ran:
    """The metrics of the attempts of one tier for one route."""

    prompt_tokens: Any
    output_tokens: Any
    micro_usd: Any
    shadow_micro_usd: Any


class Records:
    """Writes them; state of the process."""

    def __init__(
        self,
        metrics: Metrics,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` is the one that requests are timed by, `wall` gives seconds since 1970."""
        self._metrics = metrics
        self._ledger = ledger
        self._clock = clock
        self._wall = wall
        self._ended: dict[tuple[str, str, str], _Ended] = {}
        self._ran: dict[tuple[str, str], _Ran] = {}
        self._log = structlog.get_logger().bind()

    def refused(self, tenant: str, route: str, error: ServiceError) -> None:
        """A request that was refused before it went anywhere; `route` is empty if unknown."""
        self._metrics.requests.labels(route, "", error.code.name).inc()
        status = error.code.name
        self._log.info("request", tenant=tenant, route=route, status=status, reason=error.reason)

    def attempt(self, state: RequestState, attempt: Attempt) -> None:
        """An attempt of which nothing runs any more."""
        route, tier = state.context.route.name, attempt.plan.step.tier.name
        metrics = self._ran.get((route, tier))
        if metrics is None:
            known = self._metrics
            metrics = self._ran[route, tier] = _Ran(
                prompt_tokens=known.prompt_tokens.labels(tier),
                output_tokens=known.output_tokens.labels(tier),
                micro_usd=known.micro_usd.labels(route),
                shadow_micro_usd=known.shadow_micro_usd.labels(route),
            )
        price = attempt.micro_usd
        metrics.prompt_tokens.inc(attempt.prompt_tokens)
        metrics.output_tokens.inc(attempt.output_tokens)
        metrics.micro_usd.inc(price)
        if attempt.cause is Cause.EVIDENCE:
            metrics.shadow_micro_usd.inc(price)

    def ended(self, state: RequestState) -> None:
        """A request whose caller has the answer, or is gone."""
        decision, answer, context = state.decision, state.answer, state.context
        tier = decision.tier if decision is not None else ""
        metrics = self._metrics_of(context.route.name, tier, state.status)
        state.sequence = self._ledger.number()
        metrics.requests.inc()
        metrics.total.observe(state.ended_at - context.arrived)
        if answer.first_text_at is not None and state.committed:
            metrics.first_text.observe(answer.first_text_at - context.arrived)
        if state.attempts:
            metrics.queued.observe(state.queued_seconds)
        metrics.baseline_micro_usd.inc(state.baseline_micro_usd)

    def settled(self, state: RequestState) -> None:
        """A request that has ended and for which nothing runs any more.

        Its record and its line in the log are made beside the requests, with those of others.
        """
        ended_at = self._wall() - (self._clock() - state.ended_at)
        self._ledger.add(lambda: self._record(state, ended_at))
        for make in state.further_records:
            self._ledger.add(make)

    def _record(self, state: RequestState, ended_at: float) -> RequestRecord:
        """The record, once the log has its line of it."""
        record = record_of(state, ended_at)
        self._log.info(
            "request",
            request_id=record.request_id,
            tenant=record.tenant,
            route=record.route,
            tier=record.tier,
            replica=record.replica,
            reason=record.reason,
            cache=record.cache,
            status=record.status,
            attempts=len(record.attempts),
            prompt_tokens=record.prompt_tokens,
            output_tokens=record.output_tokens,
            micro_usd=record.micro_usd,
            baseline_micro_usd=record.baseline_micro_usd,
            engine_ms=record.engine_ms,
            queued_ms=record.queued_ms,
            first_text_ms=record.first_text_ms,
            total_ms=record.total_ms,
            policy_version=record.policy_version,
        )
        return record

    def _metrics_of(self, route: str, tier: str, status: str) -> _Ended:
        key = (route, tier, status)
        found = self._ended.get(key)
        if found is None:
            metrics = self._metrics
            found = self._ended[key] = _Ended(
                requests=metrics.requests.labels(route, tier, status),
                total=metrics.total.labels(route, tier),
                first_text=metrics.first_text.labels(route, tier),
                queued=metrics.queued.labels(tier),
                baseline_micro_usd=metrics.baseline_micro_usd.labels(route),
            )
        return found


def record_of(state: RequestState, unix_seconds: float) -> RequestRecord:
    """The request as the ledger keeps it; it ended at that time."""
    context, decision, answer = state.context, state.decision, state.answer
    checked, cascade, arrived = context.checked, state.cascade, context.arrived
    first = answer.first_text_at if state.committed else None
    attempts = tuple([_attempt_record(attempt, arrived) for attempt in state.attempts])
    engine_ms = [attempt.engine_ms for attempt in attempts if attempt.engine_ms is not None]
    return RequestRecord(
        time=time_text(unix_seconds),
        request_id=context.request_id,
        sequence=state.sequence,
        handle=context.handle,
        tenant=context.tenant,
        route=context.route.name,
        priority=PRIORITY_NAMES[checked.priority],
        idempotency_key=checked.idempotency_key,
        attributes=checked.attributes,
        status=state.status,
        policy_version=checked.policy_version,
        calibration_version=cascade.calibration_version if cascade is not None else "",
        tier=decision.tier if decision is not None else "",
        model=decision.model if decision is not None else "",
        precision=decision.precision if decision is not None else "",
        replica=decision.replica if decision is not None else "",
        reason=decision.reason.value if decision is not None else "",
        cache=state.cache.value,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        reused_prompt_tokens=answer.figures.reused_prompt_tokens,
        engine_ms=round(sum(engine_ms), 3) if engine_ms else None,
        queued_ms=round(state.queued_seconds * 1e3, 3),
        first_text_ms=None if first is None else round((first - arrived) * 1e3, 3),
        total_ms=round((state.ended_at - arrived) * 1e3, 3),
        micro_usd=sum([attempt.micro_usd for attempt in attempts]),
        baseline_micro_usd=state.baseline_micro_usd,
        estimated=any(attempt.estimated for attempt in attempts),
        attempts=attempts,
    )


def _attempt_record(attempt: Attempt, arrived: float) -> AttemptRecord:
    tier = attempt.plan.step.tier
    ended = attempt.began if attempt.ended_at is None else attempt.ended_at
    return AttemptRecord(
        tier=tier.name,
        model=tier.model,
        precision=tier.precision,
        replica=attempt.replica,
        cause=attempt.cause.value,
        verdict=(attempt.ending or Ending.LEFT).value,
        prompt_tokens=attempt.prompt_tokens,
        output_tokens=attempt.output_tokens,
        engine_ms=_milliseconds(attempt.engine_seconds),
        micro_usd=attempt.micro_usd,
        committed=attempt.committed,
        estimated=attempt.estimated,
        began_ms=round((attempt.began - arrived) * 1e3, 3),
        took_ms=round((ended - attempt.began) * 1e3, 3),
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
