"""What a request leaves behind: metrics, one ledger record and one canonical log line."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from services.common.errors import ServiceError
from services.router.metrics import Metrics
from services.router.policy.admission import Priority
from services.router.ports import Ledger
from services.router.request.journey import Journey

PRIORITY_NAMES: Mapping[Priority, str] = {one: one.name.lower() for one in Priority}


@dataclass(frozen=True, slots=True)
class _Ended:
    """The metrics of one kind of ending, looked up once: labels are costly on the hot path."""

    requests: Any
    total: Any
    first_text: Any
    prompt_tokens: Any
    output_tokens: Any
    queued: Any
    micro_usd: Any
    baseline_micro_usd: Any


class Records:
    """Writes them; state of the process."""

    def __init__(self, metrics: Metrics, ledger: Ledger) -> None:
        self._metrics = metrics
        self._ledger = ledger
        self._ended: dict[tuple[str, str, str], _Ended] = {}
        self._log = structlog.get_logger().bind()

    def refused(self, tenant: str, route: str, error: ServiceError) -> None:
        """A request that was refused before it went anywhere; `route` is empty if unknown."""
        self._metrics.requests.labels(route, "", error.code.name).inc()
        status = error.code.name
        self._log.info("request", tenant=tenant, route=route, status=status, reason=error.reason)

    def ended(self, journey: Journey, status: str) -> None:
        """A request that ended, well or not; `status` is the gRPC code's name."""
        now = time.monotonic()
        checked, decision, way = journey.checked, journey.decision, journey.climb
        route = checked.route.name
        tier = replica = reason = model = precision = ""
        if decision is not None:
            tier, replica, reason = decision.tier, decision.replica, decision.reason.value
            model, precision = decision.model, decision.precision
        engine, first = journey.figures.engine_seconds, journey.first_text_at
        total = now - journey.arrived
        first_text = None if first is None else first - journey.arrived

        metrics = self._metrics_of(route, tier, status)
        metrics.requests.inc()
        metrics.total.observe(total)
        if first_text is not None:
            metrics.first_text.observe(first_text)
        if replica:
            metrics.prompt_tokens.inc(journey.prompt_tokens)
            metrics.output_tokens.inc(journey.output_tokens)
            metrics.queued.observe(journey.queued_seconds)
        metrics.micro_usd.inc(journey.micro_usd)
        metrics.baseline_micro_usd.inc(journey.baseline_micro_usd)

        facts: dict[str, Any] = {
            "request_id": journey.request_id,
            "tenant": journey.tenant,
            "route": route,
            "tier": tier,
            "replica": replica,
            "reason": reason,
            "cache": journey.cache.value,
            "status": status,
            "prompt_tokens": journey.prompt_tokens,
            "output_tokens": journey.output_tokens,
            "micro_usd": journey.micro_usd,
            "baseline_micro_usd": journey.baseline_micro_usd,
            "engine_ms": None if engine is None else round(engine * 1e3, 3),
            "queued_ms": round(journey.queued_seconds * 1e3, 3),
            "first_text_ms": None if first_text is None else round(first_text * 1e3, 3),
            "total_ms": round(total * 1e3, 3),
            "policy_version": checked.policies.version,
        }
        if way is not None and way.calibration_version:
            facts["calibration_version"] = way.calibration_version
        if way is not None and (refused := way.refused()):
            facts["refused"] = refused
            facts["refused_micro_usd"] = journey.spent_micro_usd
        self._log.info("request", **facts)
        facts.update(
            kind="request",
            time=time.time(),
            handle=journey.handle,
            model=model,
            precision=precision,
            priority=PRIORITY_NAMES[checked.priority],
            idempotency_key=checked.idempotency_key,
            attributes=checked.attributes,
        )
        self._ledger.add(facts)

    def _metrics_of(self, route: str, tier: str, status: str) -> _Ended:
        key = (route, tier, status)
        found = self._ended.get(key)
        if found is None:
            metrics = self._metrics
            found = self._ended[key] = _Ended(
                requests=metrics.requests.labels(route, tier, status),
                total=metrics.total.labels(route, tier),
                first_text=metrics.first_text.labels(route, tier),
                prompt_tokens=metrics.prompt_tokens.labels(tier),
                output_tokens=metrics.output_tokens.labels(tier),
                queued=metrics.queued.labels(tier),
                micro_usd=metrics.micro_usd.labels(route),
                baseline_micro_usd=metrics.baseline_micro_usd.labels(route),
            )
        return found
