"""Whether certificates are true, judged by known truth.

The table of all questions is the population: what thresholds really lose is their mean over all of
it, and not over a test part. Evidence is drawn from it with replacement, the fit part apart from
the certify part, so that both are independent draws of that population, as a certificate assumes. A
certificate is false if its thresholds lose more than the tolerance on the population. It may be in
`delta` of the draws.

Costs are shares of the large model's engine time for every question, with the same shadow runs for
every way. The best truly valid thresholds are the cheapest on a measure of certainty, of those that
keep to the tolerance on the population itself: nobody could have known them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.baselines import Chosen, gate, ucci
from services.router.calibrate.cascade import Floats, outcome, table_of
from services.router.calibrate.evidence import Record
from services.router.calibrate.process import Settings, calibrate_parts
from services.router.policy.certainty import Measure, score

OURS, UCCI, GATE = "ours", "UCCI", "C.-P. gate"
WAYS = (OURS, UCCI, GATE)
WORSE_AGAIN = 2
"""How much oftener than in the table a question comes whose small answer is worse, in `harder`."""

PLAIN = (Measure.MEAN, Measure.MINIMUM, Measure.FIRST_K)


@dataclass(frozen=True)
class Truth:
    """What one way chose on one draw, as the population shows it.

    Attributes:
        loss: points of accuracy lost against always-large, from 0 to 1.
        cost: share of always-large's engine time, shadow runs included.
        certified: something cheaper than the large model for all was chosen.
    """

    loss: float
    cost: float
    certified: bool


def harder(population: Sequence[Record]) -> list[Record]:
    """A population in which the small model is worse three times as often.

    Where the small model alone keeps to a tolerance, no certificate can be false.
    """
    worse = [one for one in population if one.tiers[-1].quality > one.tiers[0].quality]
    return [*population, *worse * WORSE_AGAIN]


@dataclass(frozen=True)
class Asked:
    """What is drawn, and what for.

    Attributes:
        population: every question with every tier's answer.
        tolerances: that are asked for.
        settings: of ours, its tolerance apart; the confidence is the gate's too.
        fit: questions of the fit part.
        certify: of the certify part.
    """

    population: Sequence[Record]
    tolerances: Sequence[float]
    settings: Settings
    fit: int
    certify: int


def drawn(asked: Asked, seed: int) -> dict[tuple[str, float], Truth]:
    """Every way on one draw of evidence, by its name and tolerance."""
    population, settings = asked.population, asked.settings
    random = np.random.default_rng(seed)
    parts = [
        [population[at] for at in random.integers(0, len(population), size)]
        for size in (asked.fit, asked.certify)
    ]
    found: dict[tuple[str, float], Truth] = {}
    for tolerance in asked.tolerances:
        ours = replace(settings, epsilon=tolerance)
        found[OURS, tolerance] = _calibrated(population, parts, ours)
        chosen = ucci(parts[0], parts[1], tolerance)
        found[UCCI, tolerance] = _chosen(population, chosen, settings)
        chosen = gate(parts[0], parts[1], tolerance, settings.delta)
        found[GATE, tolerance] = _chosen(population, chosen, settings)
    return found


def best_cost(population: Sequence[Record], tolerance: float, settings: Settings) -> float:
    """Cost of the best truly valid thresholds."""
    losses = _column(population, -1) - _column(population, 0)
    best = _cost(population, np.zeros(len(population), bool), settings, asks_first=False)
    for measure in PLAIN:
        certainties = np.array([_certainty(one, measure) for one in population])
        order = np.argsort(-certainties, kind="stable")
        lost = np.cumsum(losses[order]) / len(population)
        # Equal certainties stand or fall together.
        last = np.append(np.diff(certainties[order]) != 0.0, True)
        within = np.flatnonzero(last & (lost <= tolerance))
        if len(within):
            stands = certainties >= certainties[order][within[-1]]
            best = min(best, _cost(population, stands, settings, asks_first=True))
    return best


def _certainty(record: Record, measure: Measure) -> float:
    certainty = record.tiers[0].certainty
    return -math.inf if certainty is None else score(certainty, measure)


def _calibrated(
    population: Sequence[Record], parts: Sequence[Sequence[Record]], settings: Settings
) -> Truth:
    result = calibrate_parts(parts[0], parts[1], settings)
    thresholds = result.judgement.thresholds
    table = table_of(result.judgement, population, settings.cost)
    seen = outcome(table, thresholds, settings.shadow_share)
    return Truth(
        loss=float(seen.losses.mean()),
        cost=float(seen.costs.sum() / table.costs[:, -1].sum()),
        certified=result.calibration.certificate.certified,
    )


def _chosen(population: Sequence[Record], chosen: Chosen, settings: Settings) -> Truth:
    stands = chosen.stands(population)
    losses = np.where(stands, _column(population, -1) - _column(population, 0), 0.0)
    return Truth(
        loss=float(losses.mean()),
        cost=_cost(population, stands, settings, asks_first=chosen.asks_first and chosen.found),
        certified=chosen.found,
    )


def _cost(
    population: Sequence[Record], stands: NDArray[np.bool_], settings: Settings, *, asks_first: bool
) -> float:
    small, large = _time(population, 0), _time(population, -1)
    spent = np.where(stands, small, large + small * asks_first)
    everything = small + large
    spent = spent + settings.shadow_share * (everything - spent)
    return float(spent.sum() / large.sum())


def _column(records: Sequence[Record], tier: int) -> Floats:
    return np.array([record.tiers[tier].quality for record in records])


def _time(records: Sequence[Record], tier: int) -> Floats:
    return np.array([record.tiers[tier].engine_ms for record in records])
