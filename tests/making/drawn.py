"""Made-up pairs of two tiers, drawn at random: what a calibration sees of its evidence."""

import numpy as np

from services.router.policy.calibration import Pair


def drawn(
    seed: int,
    count: int,
    *,
    worse: float = 0.1,
    better: float = 0.02,
    signal: float = 1.0,
    graded: bool = False,
    propensities: tuple[float, ...] = (1.0,),
) -> list[Pair]:
    """Pairs of two tiers; `signal` is how much gain and certainty tell, from 0 to 1."""
    random = np.random.default_rng(seed)
    pairs = []
    for kind, noise, more, drawn_with in zip(
        random.random(count),
        random.random(count),
        random.random(count),
        random.choice(propensities, count),
        strict=True,
    ):
        low, top = (0.0, 1.0) if kind < worse else (1.0, 0.0) if kind < worse + better else (1, 1)
        if graded:
            low, top = 0.2 + 0.6 * low, 0.2 + 0.6 * top
        sign = signal * (kind < worse) + 0.5 * noise
        pairs.append(
            Pair(
                gains=(min(1.0, 0.3 * sign + 0.2 * more),),
                certainties=(-sign,),
                qualities=(low, top),
                costs=(1.0, 10.0),
                propensity=float(drawn_with),
            )
        )
    return pairs
