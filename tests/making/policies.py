"""Tiers, routes and policies to test with; every field can be changed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from services.router.policy.calibration import (
    Certificate,
    Judgement,
    Rung,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Measure
from services.router.policy.difficulty import DifficultyModel
from services.router.policy.drift import Bands, Rate
from services.router.policy.routes import (
    CachePolicy,
    Calibrated,
    Cancel,
    Deadline,
    OutputTokens,
    Policies,
    Price,
    Quality,
    Route,
    Tier,
)
from services.router.ports import TierText
from services.router.routes.compiled import Compiled

TOKENIZER = Path(__file__).parents[2] / "model_repository/cpu/small/weights/int8"
"""The small model's own tokenizer, as it is committed."""


def tier(name: str = "small", **changes: Any) -> Tier:
    fields: dict[str, Any] = {
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
    return Tier(**(fields | changes))


def route(name: str = "chat", *ladder: Tier, **changes: Any) -> Route:
    rungs = ladder or (tier(),)
    fields: dict[str, Any] = {
        "name": name,
        "ladder": rungs,
        "fixed_tier": None if changes.get("quality") else rungs[0],
        "output_tokens": OutputTokens(default=64, most=256),
        "deadline": Deadline(default_seconds=30.0),
        "cache": CachePolicy(use=True, ttl_seconds=3600, wait_seconds=10),
    }
    return Route(**(fields | changes))


def policies(*routes: Route) -> Policies:
    chosen = routes or (route(),)
    return Policies(
        version="test",
        routes={one.name: one for one in chosen},
        tiers={rung.name: rung for one in chosen for rung in one.ladder},
    )


def compiled(*routes: Route, texts: Mapping[str, TierText] | None = None) -> Compiled:
    """The policies as requests travel by them; texts that nobody reads unless they are given."""
    made = policies(*routes)
    if texts is None:
        texts = {rung.tokenizer: cast("TierText", object()) for rung in made.tiers.values()}
    return Compiled(made, texts)


def calibrated(
    *rungs: Rung, measure: Measure = Measure.MEAN, before: DifficultyModel | None = None
) -> Calibrated:
    """A calibration with these thresholds, certified at 2 points."""
    thresholds = Thresholds(rungs, measure)
    certificate = Certificate(
        thresholds=thresholds,
        certified=True,
        epsilon=0.02,
        delta=0.05,
        bound=0.015,
        loss=0.004,
        n_fit=1000,
        n_certify=2000,
        escalation_rate=0.4,
        tier_shares=(0.6, *[0.4 / len(rungs)] * len(rungs)),
        saving=0.5,
        shadow_share=0.05,
        method="test",
        assumptions="none",
    )
    shapes = (None,) * len(rungs)
    return Calibrated(
        version="2026-11-01-abc",
        judgement=Judgement(thresholds, (TierModels(before=before),) * len(rungs), first_k=4),
        certificate=certificate,
        bands=Bands(Rate(0.4, 2000), shapes, shapes),
        until=math.inf,  # younger than whatever a test halts
    )


def quality(*rungs: Rung, calibration: Calibrated | None = None, **changes: Any) -> Quality:
    """What a route asks of its answers; with rungs, calibrated by them."""
    found = calibrated(*rungs) if rungs else calibration
    return Quality(**({"tolerance": 0.02, "calibration": found} | changes))


def ladder(*names: str, **changes: Any) -> tuple[Tier, ...]:
    """Tiers, each dearer than the one before."""
    return tuple(
        tier(name, price=Price(100_000 * 8**at, 400_000 * 8**at), **changes)
        for at, name in enumerate(names)
    )
