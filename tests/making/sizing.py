"""Pools as the sizing core sees them."""

import math
from typing import Any

from services.scaler.policy.sizing.settings import Capacity, Scale, Work
from services.scaler.policy.sizing.size import SizeMemory, decide
from services.scaler.policy.sizing.views import Decision, Traffic, View

H100 = Capacity(a=6.42e-3, c=4.99e-8, p=1.96e-5)
"""Llama-3.1-8B."""
PROMPT, OUTPUT = 1155.0, 211.0
PLACES = 128
BEST = 21.5
"""Requests of these lengths that such a replica answers in a second."""


def traffic(rate: float, now: float, seconds: float = 10.0, **changes: Any) -> Traffic:
    """Requests that come and go at so many a second."""
    count = rate * seconds
    found: dict[str, Any] = {
        "seconds": seconds,
        "arrivals": count,
        "prompt_tokens": count * PROMPT,
        "finished": count,
        "output_tokens": count * OUTPUT,
        "first_texts": count,
        "late": 0.0,
        "at": now,
    }
    return Traffic(**{**found, **changes})


def view(now: float, rate: float | None = 0.0, ready: int = 2, **changes: Any) -> View:
    """A pool at rest with so many requests a second; None: nobody says."""
    found: dict[str, Any] = {
        "now": now,
        "wall": 1_800_000_000.0 + now,
        "ready": ready,
        "starting": 0,
        "places": PLACES,
        "start_seconds": 60.0,
        "traffic": None if rate is None else traffic(rate, now),
        "waiting": 0.0,
        "running": None if rate is None else running(rate, ready),
    }
    return View(**{**found, **changes})


def running(rate: float, ready: int) -> float:
    """Requests in flight at that rate, by the model."""
    by_replica = rate / max(ready, 1)
    by_request = H100.c * (PROMPT + OUTPUT / 2) + H100.p * PROMPT / OUTPUT
    busy = by_replica * OUTPUT
    if busy * by_request >= 1:
        return float(PLACES * ready)
    return min(busy * H100.a / (1 - busy * by_request), PLACES) * ready


def scale(**changes: Any) -> Scale:
    """By demand, with a known model."""
    work = changes.pop("work", Work(capacity=H100))
    return Scale(**{"max": 20, "work": work, **changes})


def settled(
    policy: Scale, rate: float, size: int = 2, ticks: int = 60, **changes: Any
) -> tuple[SizeMemory, float, Decision]:
    """Memory after a time of steady demand, the time of the last tick, and its decision."""
    memory, now = SizeMemory(size), 1000.0
    decision = Decision(size, size)
    for _ in range(ticks):
        now += 10.0
        decision, memory = decide(policy, memory, view(now, rate, memory.size, **changes))
    return memory, now, decision


def finite(decision: Decision) -> bool:
    """Whether its figures are numbers."""
    figures = (decision.usd_per_hour, decision.usd_per_hour_before, decision.demand or 0.0)
    return all(math.isfinite(figure) for figure in figures)
