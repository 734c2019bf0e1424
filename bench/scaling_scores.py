"""What came of policies in the cells of `scaling_cells`, side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bench.scaling_ours import Score, Scores
from services.scaler.simulator.search import ATTAINMENT

OURS = "ours"


@dataclass(frozen=True)
class Compared:
    """What was measured in all cells.

    Attributes:
        ours: the core.
        single, each: baselines with one setting, and with one for each cell, by family.
        clairvoyant: mean replicas of who knows all, by cell.
        floor: mean replicas that nobody can go below, by cell.
    """

    ours: Scores
    single: Mapping[str, Scores]
    each: Mapping[str, Scores]
    clairvoyant: Mapping[str, float]
    floor: Mapping[str, float]

    def over_clairvoyant(self, scores: Scores) -> float:
        """Mean cost by the clairvoyant's, over the cells that it is known for."""
        return over(scores, self.clairvoyant)


def over(scores: Scores, least: Mapping[str, float]) -> float:
    """Mean cost by these, over the cells that they are known for."""
    shares = [scores[cell][1] / replicas for cell, replicas in least.items()]
    return sum(shares) / len(shares)


def percent(score: Score) -> float:
    """Percent in time, down to a tenth: rounding up would reach an aim that was missed."""
    return math.floor(1000 * score[0]) / 10


def shown(score: Score) -> str:
    """Percent in time, marked where it is too little, and mean replicas."""
    mark = "" if score[0] >= ATTAINMENT else "!"
    return f"{100 * score[0]:.2f}{mark} {score[1]:.2f}"
