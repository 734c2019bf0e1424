"""Tiers, routes and policies to test with; every field can be changed."""

from pathlib import Path
from typing import Any

from services.router.policy.routes import CachePolicy, Cancel, Policies, Price, Route, Tier

TOKENIZER = Path(__file__).parents[3] / "model_repository/cpu/small/weights/int8"
"""The small model's own tokenizer, as it is committed."""


def tier(name: str = "small", **changes: Any) -> Tier:
    told: dict[str, Any] = {
        "name": name,
        "model": name,
        "precision": "int8",
        "tokenizer": str(TOKENIZER),
        "max_sequence_tokens": 512,
        "cancel": Cancel.ABORT,
        "first_token_seconds": 20.0,
        "idle_seconds": 10.0,
        "queue_size": 4,
        "queue_seconds": 5.0,
        "price": Price(100_000, 400_000),
    }
    return Tier(**(told | changes))


def route(name: str = "chat", *ladder: Tier, **changes: Any) -> Route:
    rungs = ladder or (tier(),)
    told: dict[str, Any] = {
        "name": name,
        "description": "",
        "ladder": rungs,
        "fixed_tier": rungs[0],
        "default_output_tokens": 64,
        "max_output_tokens": 256,
        "default_deadline_seconds": 30.0,
        "shortest_deadline_seconds": 0.005,
        "cache": CachePolicy(use=True, ttl_seconds=3600, wait_seconds=10),
        "tenants": frozenset(),
    }
    return Route(**(told | changes))


def policies(*routes: Route) -> Policies:
    chosen = routes or (route(),)
    return Policies(
        version="test",
        routes={one.name: one for one in chosen},
        tiers={rung.name: rung for one in chosen for rung in one.ladder},
    )
