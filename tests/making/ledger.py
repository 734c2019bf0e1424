"""Makes ledger records in which only what a test is about needs saying."""

from dataclasses import asdict
from typing import Any

import orjson

from pennyweight.ledger.schema import (
    AttemptRecord,
    CertaintyRecord,
    GapRecord,
    LedgerRecord,
    OutcomeRecord,
    PairRecord,
    RequestRecord,
    TierRecord,
    time_text,
)

TIME = time_text(1_795_880_539.123)
"""2026-11-28T15:42:19.123Z."""


def attempt(tier: str = "small", micro_usd: int = 3, **changes: Any) -> AttemptRecord:
    given: dict[str, Any] = {
        "tier": tier,
        "model": f"{tier}-model",
        "precision": "int8",
        "replica": f"{tier}-1",
        "cause": "first",
        "verdict": "stood",
        "prompt_tokens": 1000,
        "output_tokens": 10,
        "engine_ms": 12.5,
        "micro_usd": micro_usd,
        "committed": True,
        "estimated": False,
        "began_ms": 0.25,
        "took_ms": 20.0,
    }
    return AttemptRecord(**given | changes)


def request(request_id: str = "r1", *attempts: AttemptRecord, **changes: Any) -> RequestRecord:
    """A request whose sums are those of its attempts; without attempts a stored answer."""
    stood = next((one for one in attempts if one.verdict == "stood"), None)
    engine = [one.engine_ms for one in attempts if one.engine_ms is not None]
    given: dict[str, Any] = {
        "time": TIME,
        "request_id": request_id,
        "sequence": 1,
        "handle": f"h-{request_id}",
        "tenant": "acme",
        "route": "chat",
        "priority": "interactive",
        "idempotency_key": "",
        "attributes": {"team": "x"},
        "status": "OK",
        "policy_version": "v1",
        "calibration_version": "",
        "tier": stood.tier if stood else "small",
        "model": stood.model if stood else "small-model",
        "precision": "int8",
        "replica": stood.replica if stood else "",
        "reason": "uncalibrated" if stood else "cached",
        "cache": "miss" if attempts else "exact",
        "prompt_tokens": 1000,
        "output_tokens": stood.output_tokens if stood else 10,
        "reused_prompt_tokens": None,
        "engine_ms": sum(engine) if engine else None,
        "queued_ms": 0.5,
        "first_text_ms": 5.0,
        "total_ms": 25.0,
        "micro_usd": sum(one.micro_usd for one in attempts),
        "baseline_micro_usd": 40,
        "estimated": any(one.estimated for one in attempts),
        "attempts": attempts,
    }
    return RequestRecord(**given | changes)


def pair(request_id: str = "r1", **changes: Any) -> PairRecord:
    sure = CertaintyRecord(mean=-0.25, minimum=-1.0, first_k=-0.5)
    tiers = tuple(
        TierRecord(
            tier=name,
            model=f"{name}-model",
            precision="int8",
            version="",
            quality=quality,
            certainty=sure,
            valid=True,
            micro_usd=price,
            engine_ms=12.5,
        )
        for name, quality, price in (("small", 0.5, 3), ("large", 1.0, 40))
    )
    given: dict[str, Any] = {
        "kind": "pair",
        "time": TIME,
        "request_id": request_id,
        "tenant": "acme",
        "route": "chat",
        "policy_version": "v1",
        "calibration_version": "",
        "propensity": 0.25,
        "uniform": True,
        "judge": "match",
        "answered": "small",
        "question": "qq",
        "features": ((3, 1.0), (70, 0.5)),
        "first_k": 16,
        "tiers": tiers,
        "qualities": tuple(tier.quality for tier in tiers),
        "digests": ("aa", "bb"),
        "trimmed": False,
        "shadow_micro_usd": 40,
        "text": None,
    }
    return PairRecord(**given | changes)


def outcome(request_id: str = "r1", **changes: Any) -> OutcomeRecord:
    given: dict[str, Any] = {
        "time": TIME,
        "request_id": request_id,
        "tenant": "acme",
        "route": "chat",
        "resolved": None,
        "rating": None,
        "corrected_digest": None,
    }
    return OutcomeRecord(**given | changes)


def line(record: LedgerRecord) -> str:
    """As routers write it."""
    return orjson.dumps(record).decode() + "\n"


def plain(record: LedgerRecord) -> dict[str, Any]:
    """As it comes back out of JSON."""
    found: dict[str, Any] = orjson.loads(orjson.dumps(asdict(record)))
    return found


def gap(**changes: Any) -> GapRecord:
    """A gap of two requests."""
    given: dict[str, Any] = {
        "time": TIME,
        "process": "router-1-4711-a1b2c3",
        "last_seen": TIME,
        "requests": 5,
        "missing": 2,
    }
    return GapRecord(**given | changes)
