"""Two rules of 2026 for choosing between a small and a large model, to compare `tiers` with.

- UCCI (arXiv 2605.18796): an isotonic map from the margin of a small
  model's answer to the probability that it is wrong, and the cheapest threshold whose estimated
  quality keeps the constraint. Without a confidence statement. The engines tell no margin between
  the two likeliest tokens, so the mean log-probability of the answer's tokens stands in for it.
- A Clopper-Pearson gate ("Conformal LLM Routing", ACL-SRW 2026): logistic regression predicts from
  the question alone where the small model fails; the most lenient threshold at which the upper
  confidence limit of the failures among routed questions keeps to the tolerance. A failure is an
  answer that is worse than the large model's. Thresholds are tested from the strictest on, up to
  the first that fails, so that trying many costs no confidence.

Both pages are written from the papers' descriptions, not from their code.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import beta
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from services.router.calibrate.evidence import Record
from services.router.policy.difficulty import FEATURES

Floats = NDArray[np.float64]
Rule = Callable[[Sequence[Record]], NDArray[np.bool_]]
"""Whether the small model's answer stands, for each question."""

GRID = 50
"""Thresholds that the gate tries, at equal shares of the questions."""


@dataclass(frozen=True)
class Chosen:
    """What a rule has chosen.

    Attributes:
        stands: whether the small model's answer is given.
        asks_first: the small model runs for every question, also where its answer does not stand.
        found: anything cheaper than the large model for all was found.
    """

    stands: Rule
    asks_first: bool
    found: bool = True


def nothing(records: Sequence[Record]) -> NDArray[np.bool_]:
    """The large model answers everything."""
    return np.zeros(len(records), bool)


def ucci(fit: Sequence[Record], tune: Sequence[Record], tolerance: float) -> Chosen:
    """The isotonic map is fitted on one part, the threshold chosen on the other."""
    to_error = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=False, out_of_bounds="clip")
    to_error.fit(_margins(fit), 1.0 - _qualities(fit, 0))
    margins, large = _margins(tune), _qualities(tune, -1)
    order = np.argsort(-margins, kind="stable")
    lost = (large - 1.0 + to_error.predict(margins))[order]
    within = np.flatnonzero(np.cumsum(lost) / len(tune) <= tolerance)
    # Asking the small model first pays only if enough of its answers stand.
    small, large_time = (sum(one.tiers[tier].engine_ms for one in tune) for tier in (0, -1))
    if not len(within) or large_time * (within[-1] + 1) / len(tune) <= small:
        return Chosen(nothing, asks_first=True, found=False)
    threshold = float(margins[order][within[-1]])
    return Chosen(lambda records: _margins(records) >= threshold, asks_first=True)


def gate(fit: Sequence[Record], tune: Sequence[Record], tolerance: float, delta: float) -> Chosen:
    """Failure is predicted by a model of one part, the threshold certified on the other."""
    fails = _failed(fit)
    if not fails.any() or fails.all():
        return Chosen(nothing, asks_first=False, found=False)
    model = LogisticRegression(C=1.0, solver="liblinear").fit(_matrix(fit), fails)
    scores, failed = model.decision_function(_matrix(tune)), _failed(tune)
    threshold = None
    shares = np.arange(1, GRID + 1) / GRID
    # Of fewer questions not even one without a failure proves anything, whatever they show.
    for share in shares[shares * len(tune) >= math.log(delta) / math.log1p(-tolerance)]:
        candidate = float(np.quantile(scores, share))
        routed = scores <= candidate
        if _upper(int(failed[routed].sum()), int(routed.sum()), delta) > tolerance:
            break
        threshold = candidate
    if threshold is None:
        return Chosen(nothing, asks_first=False, found=False)
    at = threshold
    return Chosen(lambda records: model.decision_function(_matrix(records)) <= at, asks_first=False)


def _upper(failed: int, routed: int, delta: float) -> float:
    """Upper confidence limit of the share that fails (Clopper and Pearson)."""
    return 1.0 if failed >= routed else float(beta.isf(delta, failed + 1, routed - failed))


def _margins(records: Sequence[Record]) -> Floats:
    certainties = [record.tiers[0].certainty for record in records]
    return np.array([-math.inf if one is None else one.mean for one in certainties])


def _qualities(records: Sequence[Record], tier: int) -> Floats:
    return np.array([record.tiers[tier].quality for record in records])


def _failed(records: Sequence[Record]) -> NDArray[np.bool_]:
    failed: NDArray[np.bool_] = _qualities(records, -1) > _qualities(records, 0)
    return failed


def _matrix(records: Sequence[Record]) -> csr_matrix:
    """The router's own hashed features."""
    rows, columns, values = [], [], []
    for row, record in enumerate(records):
        for index, value in record.features:
            rows.append(row)
            columns.append(index)
            values.append(value)
    return csr_matrix((values, (rows, columns)), shape=(len(records), FEATURES))
