"""A route's cascade over many recorded requests at once, as arrays.

The rule is that of `policy.cascade`, which decides for one request as it comes; a test holds the
two together on the same requests. Everything offline that asks which tiers would have run, and
which would have answered, asks `outcome`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.router.calibrate.evidence import Record
from services.router.policy.calibration import Judgement, Pair, Rung, Thresholds

Floats = NDArray[np.float64]


def pair_of(
    record: Record,
    gains: Iterable[float | None],
    certainties: Iterable[float | None],
    cost: str = "micro_usd",
) -> Pair:
    """A record with what is predicted of it.

    Args:
        record: of every tier of the ladder.
        gains: predicted gain of the top tier over each lower one.
        certainties: of each lower tier's answer.
        cost: `micro_usd` or `engine_ms`.
    """
    engine_time = cost == "engine_ms"
    return Pair(
        gains=tuple(gains),
        certainties=tuple(certainties),
        qualities=tuple(tier.quality for tier in record.tiers),
        costs=tuple(tier.engine_ms if engine_time else tier.micro_usd for tier in record.tiers),
        valid=tuple(tier.valid for tier in record.tiers[:-1]),
        propensity=record.propensity,
        asked=record.asked,
        draws=record.draws,
        once=record.once,
    )


@dataclass(frozen=True)
class EvidenceTable:
    """Pairs as columns: n requests, K tiers, K - 1 of them lower ones.

    Attributes:
        gains: (n, K - 1), NaN where unknown.
        certainties: (n, K - 1), NaN where unknown.
        valid: (n, K - 1).
        qualities: (n, K).
        costs: (n, K).
        once: (n), weights by which each question counts once: the lowest propensity divided by each
            one's own, at most 1; 0 for those that do not count so.
        weights: (n), weights by which it counts as often as it was asked: the same, times the share
            of the most that one draw may count.
        draws: (n), independent draws that the weight falls upon, at most 1 for each.
    """

    gains: Floats
    certainties: Floats
    valid: NDArray[np.bool_]
    qualities: Floats
    costs: Floats
    once: Floats
    weights: Floats
    draws: NDArray[np.int64]

    @staticmethod
    def of(
        pairs: Sequence[Pair], lowest: float | None = None, most_asked: float | None = None
    ) -> "EvidenceTable":
        """The columns of some pairs, each of another question.

        Args:
            pairs: at least one.
            lowest: propensity with which any request is drawn, also such as are not among them;
                without it all must have been drawn alike.
            most_asked: one draw counts for no more requests; without it, as many as any of them.

        Raises:
            ValueError: there are none, their ladders differ, or propensities do and nobody says
                which is the lowest.
        """
        if not pairs:
            raise ValueError("there are no pairs")
        if len({len(pair.qualities) for pair in pairs}) > 1:
            raise ValueError("pairs must all have the same number of tiers")
        propensities = np.array([pair.propensity for pair in pairs])
        if lowest is None:
            if np.ptp(propensities) > 0.0:
                raise ValueError("propensities differ: the lowest must be said")
            lowest = float(propensities[0])
        if propensities.min() < lowest:
            raise ValueError(f"a propensity is below {lowest:g}, {propensities.min():g}")
        asked = np.array([pair.asked for pair in pairs])
        draws = np.array([pair.draws for pair in pairs])
        single = asked[draws == 1]
        most = float(single.max(initial=1.0)) if most_asked is None else most_asked
        weights = lowest / propensities

        def column(rows: Iterable[Iterable[float | None]]) -> Floats:
            return np.array(
                [[math.nan if value is None else value for value in row] for row in rows]
            )

        return EvidenceTable(
            gains=column(pair.gains for pair in pairs),
            certainties=column(pair.certainties for pair in pairs),
            valid=np.array([pair.valid or (True,) * len(pair.gains) for pair in pairs]),
            qualities=column(pair.qualities for pair in pairs),
            costs=column(pair.costs for pair in pairs),
            once=np.where([pair.once for pair in pairs], weights, 0.0),
            weights=weights * np.where(draws > 1, asked, np.minimum(asked, most)) / most,
            draws=draws,
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


def table_of(
    judgement: Judgement,
    records: Sequence[Record],
    cost: str = "micro_usd",
    lowest: float | None = None,
) -> EvidenceTable:
    """Records as a judgement sees them.

    Args:
        judgement: predicts gains, and reads certainties in its thresholds' measure.
        records: at least one, of the judgement's ladder.
        cost: `micro_usd` or `engine_ms`.
        lowest: propensity with which any request is drawn; without it all were drawn alike.
    """
    lower = range(len(judgement.models))

    def seen(record: Record) -> Pair:
        gains = (judgement.gain(tier, record.features) for tier in lower)
        certainties = (
            judgement.certainty(tier, record.features, record.tiers[tier].certainty)
            for tier in lower
        )
        return pair_of(record, gains, certainties, cost)

    return EvidenceTable.of([seen(record) for record in records], lowest)


@dataclass(frozen=True)
class Outcome:
    """What thresholds would have done with each request of some evidence.

    Attributes:
        losses: (n), quality of the top tier minus quality of the answer given.
        costs: (n), of every tier that ran, shadow cost included.
        ran: (n, K), which tiers run before the caller has an answer.
        answered: (n), index of the tier that answers.
    """

    losses: Floats
    costs: Floats
    ran: NDArray[np.bool_]
    answered: NDArray[np.int64]


def outcome(evidence: EvidenceTable, thresholds: Thresholds, shadow_share: float) -> Outcome:
    """Decides for every request which tiers run and which one answers.

    Args:
        evidence: of the same ladder.
        thresholds: one rung for each lower tier.
        shadow_share: share of requests whose other tiers run in the background, in [0, 1].
    """
    if len(thresholds.rungs) != evidence.lower:
        raise ValueError(f"{evidence.lower} lower tiers need as many rungs")
    count = len(evidence)
    waiting = np.ones(count, bool)
    ran = np.zeros(evidence.costs.shape, bool)
    answered = np.full(count, evidence.lower)
    for tier, rung in enumerate(thresholds.rungs):
        ran[:, tier] = waiting & _enters(evidence, tier, rung)
        stands = ran[:, tier] & _accepts(evidence, tier, rung)
        answered[stands] = tier
        waiting &= ~stands
    ran[:, -1] = waiting
    spent = np.where(ran, evidence.costs, 0.0).sum(axis=1)
    everything = evidence.costs.sum(axis=1)
    given = evidence.qualities[np.arange(count), answered]
    return Outcome(
        losses=evidence.qualities[:, -1] - given,
        costs=spent + shadow_share * (everything - spent),
        ran=ran,
        answered=answered,
    )


def _enters(evidence: EvidenceTable, tier: int, rung: Rung) -> NDArray[np.bool_]:
    if abs(rung.skip_above_gain) == 1.0:
        return np.full(len(evidence), rung.skip_above_gain == 1.0)
    entered: NDArray[np.bool_] = evidence.gains[:, tier] <= rung.skip_above_gain  # NaN does not
    return entered


def _accepts(evidence: EvidenceTable, tier: int, rung: Rung) -> NDArray[np.bool_]:
    valid = evidence.valid[:, tier]
    if rung.accept_at_certainty is None:
        return valid
    accepted: NDArray[np.bool_] = evidence.certainties[:, tier] >= rung.accept_at_certainty
    return valid & accepted
