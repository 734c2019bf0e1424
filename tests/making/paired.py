"""Made-up paired evidence of a route `support`: a small model that falls short of a large one."""

import json
from pathlib import Path
from random import Random
from typing import Any

from services.router.routes.artefact import Model

EASY, HARD = "where is my card", "the exchange of a transfer abroad"


def record(
    number: int, *, route: str = "support", small_right: bool | None = None
) -> dict[str, Any]:
    random = Random(number)
    hard = random.random() < 0.25
    right = (random.random() < (0.3 if hard else 0.98)) if small_right is None else small_right
    sure = -0.05 - 0.5 * random.random() - (0.0 if right else 1.5)
    return {
        "kind": "pair",
        "tenant": "acme",
        "route": route,
        "time": f"2026-11-{1 + number % 20:02d}T00:00:00Z",
        "request_id": f"r{number}",
        "policy_version": "7",
        "propensity": 0.05,
        "text": f"{HARD if hard else EASY} {random.randrange(50)} case {number}",
        "tiers": [
            {
                "tier": "small",
                "model": "tiny",
                "precision": "int8",
                "quality": 1.0 if right else 0.0,
                "certainty": {"mean": sure, "minimum": 3 * sure, "first_k": sure},
                "micro_usd": 10,
                "engine_ms": 2.0,
            },
            {
                "tier": "large",
                "model": "big",
                "precision": "int8",
                "quality": 1.0,
                "certainty": None,
                "micro_usd": 100,
                "engine_ms": 20.0,
            },
        ],
    }


LADDER = (Model("small", "tiny", "int8"), Model("large", "big", "int8"))


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


ROUTES = """
tiers:
  small: {model: tiny, precision: int8, tokenizer: t, max_sequence_tokens: 512}
  large: {model: big, precision: int8, tokenizer: t, max_sequence_tokens: 512}
routes:
  support: {ladder: [small, large], fixed_tier: small}
"""


def write_routes(folder: Path, text: str = ROUTES) -> Path:
    """The routes file of a tree in `folder`."""
    path = folder / "policies" / "routes.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


STATED = ROUTES.replace(
    "fixed_tier: small",
    "quality: {tolerance: 0.05, confidence: 0.9, hold: tokens, first_tokens: 6,"
    " evidence: {share: 0.1}}",
)
"""The same, with a route that states its quality."""


def labelled(folder: Path, count: int, **changes: Any) -> list[str]:
    """Writes made-up pairs; the arguments that name them."""
    path = folder / "pairs.jsonl"
    path.write_text(lines(*(record(number, **changes) for number in range(count))))
    return ["--route", "support", "--labelled", str(path)]
