"""Proposes thresholds that are worth certifying, by what they show on paired evidence.

Candidates are found on the fit part alone, for all rungs together: for a growing price on lost
quality, the thresholds that minimise cost + price * loss, rung by rung until nothing changes
(coordinate descent from several starts). That is the lower hull of the cost-quality curve: more
stable from sample to sample than every point of it. Its corners are few, and a proof that fails at
one would fall far back to the one before, so that the ways between them are walked in small steps.
Cost includes the shadow runs that make evidence: a sampled request later runs the tiers that it has
not run yet.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from services.router.calibrate.cascade import EvidenceTable, Floats, outcome
from services.router.policy.calibration import SKIPPED, Rung, Thresholds
from services.router.policy.certainty import Measure

GAIN_STEPS = 10
CERTAINTY_STEPS = 80
"""Values of each threshold that are tried: so many quantiles of what the fit part shows."""

PRICES = tuple(2.0 ** (power / 4.0) for power in range(-12, 33))
"""Cost of one lost answer, in answers of the top tier, that is tried."""

SWEEPS = 4

PARTS = tuple(part / 20.0 for part in range(1, 20))
"""Where on the way between two neighbouring corners of the hull further candidates stand."""


@dataclass(frozen=True)
class Proposal:
    """Thresholds with what they showed on some evidence.

    Attributes:
        thresholds: what is proposed.
        loss: mean loss, each question as often as it was asked.
        deviation: of the losses.
        cost: mean cost, counted in the same way.
        once: mean loss, each question once.
    """

    thresholds: Thresholds
    loss: float
    deviation: float
    cost: float
    once: float

    @property
    def worst(self) -> float:
        """The higher loss of both ways of counting."""
        return max(self.loss, self.once)


def propose(
    fit: EvidenceTable, measure: Measure, shadow_share: float, epsilon: float
) -> list[Proposal]:
    """Candidates from safe to aggressive: cost falls, and loss grows on the whole. May be empty.

    Left out are those that cost as much as the top tier alone, or whose loss on the fit part is
    already epsilon or more.
    """
    options = [_options(fit, tier) for tier in range(fit.lower)]
    found: dict[tuple[Rung, ...], Proposal] = {}

    def tried(rungs: tuple[Rung, ...]) -> Proposal:
        if rungs not in found:
            thresholds = Thresholds(rungs, measure)
            found[rungs] = measured(fit, thresholds, shadow_share)
        return found[rungs]

    rungs: tuple[Rung, ...] = (SKIPPED,) * fit.lower
    hull = [rungs]
    for price in reversed(PRICES):  # from the safest on, each start where the last one ended
        rate = price * fit.top_cost
        for _ in range(SWEEPS):
            before = rungs
            for tier in range(fit.lower):
                choices = [(*rungs[:tier], choice, *rungs[tier + 1 :]) for choice in options[tier]]
                rungs = min(
                    choices, key=lambda choice: tried(choice).cost + rate * tried(choice).loss
                )
            if rungs == before:
                break
        hull.append(rungs)
    corners = sorted(dict.fromkeys(hull), key=lambda each: -tried(each).cost)
    ways = [way for corner, other in pairwise(corners) for way in _between(fit, corner, other)]
    # In the order of their cost: a few requests decide which of two safe ones seems to lose less.
    every = dict.fromkeys((*corners, *ways))
    kept = sorted(map(tried, every), key=lambda proposal: (-proposal.cost, proposal.loss))
    return [
        proposal for proposal in kept if proposal.cost < fit.top_cost and proposal.worst < epsilon
    ]


def _between(
    fit: EvidenceTable, one: tuple[Rung, ...], other: tuple[Rung, ...]
) -> list[tuple[Rung, ...]]:
    """Thresholds between two corners of the hull, so that the proof can go part of the way."""
    ways = [_way(fit, tier, a, b) for tier, (a, b) in enumerate(zip(one, other, strict=True))]
    return list(zip(*ways, strict=False))  # none where one rung has none


def _way(fit: EvidenceTable, tier: int, one: Rung, other: Rung) -> list[Rung]:
    """Settings between two of one rung."""
    one, other = _entered(fit, tier, one, other), _entered(fit, tier, other, one)
    skips = _along(fit.gains[:, tier], one.skip_above_gain, other.skip_above_gain)
    accepts = _along(fit.certainties[:, tier], one.accept_at_certainty, other.accept_at_certainty)
    return [
        Rung(skip, accept) for skip, accept in zip(skips, accepts, strict=False) if skip is not None
    ]


def _entered(fit: EvidenceTable, tier: int, one: Rung, other: Rung) -> Rung:
    """In place of a skipped tier one that lets hardly any answer stand: the way to it is finer."""
    known = fit.certainties[np.isfinite(fit.certainties[:, tier]), tier]
    if one == SKIPPED != other and len(known):
        return Rung(other.skip_above_gain, min(0.0, float(known.max())))
    return one


def _along(values: Floats, start: float | None, end: float | None) -> list[float | None]:
    """Thresholds from start to end, None being below all; equal steps pass equally many values.

    Equal steps of the threshold itself would not do, as certainties crowd near zero.
    """
    if start == end:
        return [start] * len(PARTS)
    known = np.sort(values[np.isfinite(values)])
    if not len(known):
        return []
    ends = np.searchsorted(known, [-math.inf if at is None else at for at in (start, end)])
    places = np.interp(PARTS, (0.0, 1.0), ends).astype(int).clip(0, len(known) - 1)
    return [float(level) for level in known[places]]


def measured(evidence: EvidenceTable, thresholds: Thresholds, shadow_share: float) -> Proposal:
    """Thresholds with their mean loss, its deviation and mean cost on some evidence."""
    seen = outcome(evidence, thresholds, shadow_share)
    weights = evidence.weights
    loss = float(np.average(seen.losses, weights=weights))
    spread = float(np.average((seen.losses - loss) ** 2, weights=weights))
    cost = float(np.average(seen.costs, weights=weights))
    once = float(np.average(seen.losses, weights=evidence.once)) if evidence.once.any() else loss
    return Proposal(thresholds, loss, math.sqrt(spread), cost, once)


def _options(fit: EvidenceTable, tier: int) -> list[Rung]:
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
