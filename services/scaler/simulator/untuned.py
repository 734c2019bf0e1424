"""Rules of others with knobs that nobody has tuned: their defaults, and 70 % where they have none.

HPA and KEDA have no default target, so it is 70 % of what a replica does, or of its places, as KPA
has it. A fixed size is the most that the pool may have. Whoever tunes them does better: see
`bench/backtest.py`.
"""

from collections.abc import Mapping

from services.scaler.policy.sizing.settings import Scale
from services.scaler.simulator.baselines import Alone, families
from services.scaler.simulator.course import Course
from services.scaler.simulator.fluid import Moment, Progress, run
from services.scaler.simulator.trial import Trace, pool_of

USUAL_SHARE = 0.7

_HPA = {
    "tolerance": 0.1, "metric_seconds": 30.0, "down_seconds": 300.0, "up_pods": 4.0,
    "down_percent": 1.0,
}  # fmt: skip


def knobs_of(name: str, scale: Scale, trace: Trace) -> Mapping[str, float]:
    """The knobs of a rule, one of `RULES` of `policy.plans`, for a pool."""
    serving = trace.serving
    places = USUAL_SHARE * serving.places
    return {
        "static": {"replicas": float(scale.max)},
        "hpa_load": {"target": places, **_HPA},
        "hpa_rate": {"target": USUAL_SHARE * serving.throughput, **_HPA},
        "kpa": {
            "target": places, "stable_seconds": 60.0, "panic_seconds": 6.0,
            "panic_threshold": 2.0, "delay_seconds": 0.0,
        },
        "wva": {
            "kv": 0.8, "queue": 5.0, "spare_kv": 0.1, "spare_queue": 3.0, "peak_seconds": 60.0
        },
        "dynamo": {
            "utilization": 1.0, "interval_seconds": 180.0,
            "wait_seconds": scale.objectives.ttft_seconds, "sensitivity": 0.8,
        },
    }[name]  # fmt: skip


def title_of(name: str, trace: Trace) -> str:
    """A rule in words."""
    return families(trace.serving)[name].title


class _Within:
    """A rule between the least and the most replicas of a pool."""

    def __init__(self, rule: Alone, scale: Scale) -> None:
        self.rule, self.scale = rule, scale

    @property
    def tick(self) -> float:
        """Seconds between two decisions."""
        return self.rule.tick

    def size(self, moment: Moment) -> int:
        """Replicas wanted."""
        return min(self.scale.max, max(self.scale.min, self.rule.size(moment)))


def untuned(name: str, scale: Scale, trace: Trace, progress: Progress | None = None) -> Course:
    """What a rule, one of `RULES`, would have done in place of a policy."""
    serving = trace.serving
    rule = Alone(families(serving)[name], knobs_of(name, scale, trace), serving)
    return run(pool_of(scale, trace), trace.arrivals, _Within(rule, scale), progress)
