"""Evaluates thresholds on paired evidence, and proposes those worth certifying.

Candidates are found on the fit part alone, for all rungs together: for a growing price on lost
quality, the thresholds that minimise cost + price * loss, rung by rung until nothing changes
(coordinate descent from several starts). That is the lower hull of the cost-quality curve: more
stable from sample to sample than every point of it. Cost includes the shadow runs that make
evidence: a sampled request later runs the tiers that it has not run yet.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.router.policy.calibration import SKIPPED, Pair, Rung, Thresholds
from services.router.policy.certainty import Measure

Floats = NDArray[np.float64]

GAIN_STEPS = 10
CERTAINTY_STEPS = 80
"""Values of each threshold that are tried: so many quantiles of what the fit part shows."""

PRICES = tuple(2.0 ** (power / 4.0) for power in range(-12, 33))
"""Cost of one lost answer, in answers of the top tier, that is tried."""

SWEEPS = 4

PARTS = (0.25, 0.5, 0.75)
"""Where between two neighbouring corners of the hull further candidates stand."""


@dataclass(frozen=True)
class Evidence:
    """Pairs as columns: n requests, K tiers, K - 1 of them lower ones.

    Attributes:
        gains: (n, K - 1), NaN where unknown.
        certainties: (n, K - 1), NaN where unknown.
        valid: (n, K - 1).
        qualities: (n, K).
        costs: (n, K).
        weights: (n), lowest propensity divided by each one's own.
    """

    gains: Floats
    certainties: Floats
    valid: NDArray[np.bool_]
    qualities: Floats
    costs: Floats
    weights: Floats

    @staticmethod
    def of(pairs: Sequence[Pair]) -> "Evidence":
        """The columns of some pairs.

        Raises:
            ValueError: there are none, or their ladders differ.
        """
        if not pairs:
            raise ValueError("there are no pairs")
        if len({len(pair.qualities) for pair in pairs}) > 1:
            raise ValueError("pairs must all have the same number of tiers")
        propensities = np.array([pair.propensity for pair in pairs])

        def column(rows: Iterable[Iterable[float | None]]) -> Floats:
            return np.array([[math.nan if one is None else one for one in row] for row in rows])

        return Evidence(
            gains=column(pair.gains for pair in pairs),
            certainties=column(pair.certainties for pair in pairs),
            valid=np.array([pair.valid or (True,) * len(pair.gains) for pair in pairs]),
            qualities=column(pair.qualities for pair in pairs),
            costs=column(pair.costs for pair in pairs),
            weights=propensities.min() / propensities,
        )

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def lower(self) -> int:
        """Number of lower tiers."""
        return self.gains.shape[1]

    @property
    def top_cost(self) -> float:
        """Mean cost of the top tier."""
        return float(np.average(self.costs[:, -1], weights=self.weights))


@dataclass(frozen=True)
class Outcome:
    """What thresholds would have done with each request of some evidence.

    Attributes:
        losses: (n), quality of the top tier minus quality of the answer given.
        costs: (n), of every tier that ran, shadow cost included.
        answered: (n), index of the tier that answers.
    """

    losses: Floats
    costs: Floats
    answered: NDArray[np.int64]


def outcome(evidence: Evidence, thresholds: Thresholds, shadow_share: float) -> Outcome:
    """Walks every request up the ladder.

    Args:
        evidence: of the same ladder.
        thresholds: one rung for each lower tier.
        shadow_share: share of requests whose other tiers run in the background, in [0, 1].
    """
    if len(thresholds.rungs) != evidence.lower:
        raise ValueError(f"{evidence.lower} lower tiers need as many rungs")
    waiting = np.ones(len(evidence), bool)
    answered = np.full(len(evidence), evidence.lower)
    spent = np.zeros(len(evidence))
    for tier, rung in enumerate(thresholds.rungs):
        runs = waiting & _enters(evidence, tier, rung)
        spent[runs] += evidence.costs[runs, tier]
        stands = runs & _accepts(evidence, tier, rung)
        answered[stands] = tier
        waiting &= ~stands
    spent[waiting] += evidence.costs[waiting, -1]
    everything = evidence.costs.sum(axis=1)
    given = evidence.qualities[np.arange(len(evidence)), answered]
    return Outcome(
        losses=evidence.qualities[:, -1] - given,
        costs=spent + shadow_share * (everything - spent),
        answered=answered,
    )


def _enters(evidence: Evidence, tier: int, rung: Rung) -> NDArray[np.bool_]:
    if abs(rung.skip_above_gain) == 1.0:
        return np.full(len(evidence), rung.skip_above_gain == 1.0)
    entered: NDArray[np.bool_] = evidence.gains[:, tier] <= rung.skip_above_gain  # NaN does not
    return entered


def _accepts(evidence: Evidence, tier: int, rung: Rung) -> NDArray[np.bool_]:
    valid = evidence.valid[:, tier]
    if rung.accept_at_certainty is None:
        return valid
    accepted: NDArray[np.bool_] = evidence.certainties[:, tier] >= rung.accept_at_certainty
    return valid & accepted


@dataclass(frozen=True)
class Candidate:
    """Thresholds with what they showed on the fit part."""

    thresholds: Thresholds
    loss: float
    deviation: float
    cost: float


def propose(
    fit: Evidence, measure: Measure, shadow_share: float, epsilon: float
) -> list[Candidate]:
    """Candidates from safe to aggressive: loss grows, cost falls. May be empty.

    Left out are those that cost as much as the top tier alone, or whose loss on the fit part is
    already epsilon or more.
    """
    options = [_options(fit, tier) for tier in range(fit.lower)]
    found: dict[tuple[Rung, ...], Candidate] = {}

    def tried(rungs: tuple[Rung, ...]) -> Candidate:
        if rungs not in found:
            thresholds = Thresholds(rungs, measure)
            found[rungs] = measured(fit, thresholds, shadow_share)
        return found[rungs]

    hull: set[tuple[Rung, ...]] = set()
    rungs: tuple[Rung, ...] = (SKIPPED,) * fit.lower
    for price in reversed(PRICES):  # from the safest on, each start where the last one ended
        rate = price * fit.top_cost
        for _ in range(SWEEPS):
            before = rungs
            for tier in range(fit.lower):
                choices = [(*rungs[:tier], one, *rungs[tier + 1 :]) for one in options[tier]]
                rungs = min(choices, key=lambda one: tried(one).cost + rate * tried(one).loss)
            if rungs == before:
                break
        hull.add(rungs)
    for one, other in pairwise(sorted(hull, key=lambda each: found[each].loss)):
        hull.update(_between(one, other))
    kept = sorted(map(tried, hull), key=lambda one: (one.loss, one.cost))
    ordered: list[Candidate] = []
    cheapest = fit.top_cost
    for candidate in kept:
        if candidate.cost < cheapest and candidate.loss < epsilon:
            ordered.append(candidate)
            cheapest = candidate.cost
    return ordered


def _between(one: tuple[Rung, ...], other: tuple[Rung, ...]) -> list[tuple[Rung, ...]]:
    """Thresholds between two corners of the hull, so that the proof can go part of the way."""
    pairs = list(zip(one, other, strict=True))
    if any(
        (a.accept_at_certainty is None) != (b.accept_at_certainty is None)
        or (a == SKIPPED) != (b == SKIPPED)
        for a, b in pairs
    ):
        return []
    return [
        tuple(
            Rung(
                a.skip_above_gain + part * (b.skip_above_gain - a.skip_above_gain),
                None
                if a.accept_at_certainty is None or b.accept_at_certainty is None
                else a.accept_at_certainty + part * (b.accept_at_certainty - a.accept_at_certainty),
            )
            for a, b in pairs
        )
        for part in PARTS
    ]


def measured(evidence: Evidence, thresholds: Thresholds, shadow_share: float) -> Candidate:
    """Thresholds with their mean loss, its deviation and mean cost on some evidence."""
    seen = outcome(evidence, thresholds, shadow_share)
    weights = evidence.weights
    loss = float(np.average(seen.losses, weights=weights))
    spread = float(np.average((seen.losses - loss) ** 2, weights=weights))
    cost = float(np.average(seen.costs, weights=weights))
    return Candidate(thresholds, loss, math.sqrt(spread), cost)


def _options(fit: Evidence, tier: int) -> list[Rung]:
    """The settings of one rung that are tried."""
    gains = fit.gains[:, tier]
    certainties = fit.certainties[:, tier]
    skips = [1.0]
    if np.isfinite(gains).any():
        skips += _quantiles(gains, GAIN_STEPS)
    accepts: list[float | None] = [None]
    if np.isfinite(certainties).any():
        accepts += _quantiles(certainties, CERTAINTY_STEPS)
    rungs = [Rung(skip, accept) for skip in skips for accept in accepts if skip > -1.0]
    return [SKIPPED, *rungs]


def _quantiles(values: Floats, steps: int) -> list[float]:
    known = values[np.isfinite(values)]
    levels = np.quantile(known, np.linspace(0.0, 1.0, steps + 1)[1:-1], method="higher")
    return sorted({float(level) for level in levels})
