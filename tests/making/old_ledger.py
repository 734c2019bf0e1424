"""Makes ledger lines of schema 1, as routers wrote them before records had a schema."""

import json
from typing import Any

TEXT_TIME = "2026-11-02T10:00:00.000+00:00"


def request(request_id: str, tier: str = "small", paid: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "request",
        "request_id": request_id,
        "handle": f"h-{request_id}",
        "tenant": "acme",
        "route": "chat",
        "tier": tier,
        "cache": "miss",
        "prompt_tokens": 1000,
        "output_tokens": 10,
        "micro_usd": paid,
        "baseline_micro_usd": 40,
        "time": 1790000000.5,
        "attributes": {"team": "x"},
        **changes,
    }


def pair(request_id: str, shadow: int, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "pair",
        "request_id": request_id,
        "tenant": "acme",
        "route": "chat",
        "answered": "small",
        "tiers": [{"tier": "small", "micro_usd": 3}, {"tier": "large", "micro_usd": 40}],
        "features": [[3, 1.0]],
        "shadow_micro_usd": shadow,
        "time": TEXT_TIME,
        **changes,
    }


def outcome(request_id: str, **said: Any) -> dict[str, Any]:
    return {"kind": "outcome", "request_id": request_id, "time": TEXT_TIME, **said}


def first_days(tier: str = "small", paid: int = 3, **changes: Any) -> dict[str, Any]:
    """A request as the first routers wrote it, with neither kind nor id nor time."""
    record = request("", tier, paid, **changes)
    return {key: record[key] for key in record if key not in ("kind", "request_id", "time")}


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
