"""Learns the difficulty models of a route from paired evidence.

Ridge regression of the paired difference in quality on words (binary, weighted by rarity, scaled to
length 1), the task type and the dense features. Least squares on the difference ranks requests
better than logistic regression on "top right, this one wrong", as it also sees where the top tier
loses. The output is calibrated on predictions for requests that the model did not see, by isotonic
regression over quantiles. The penalty is chosen on such predictions as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from services.router.policy.difficulty import (
    DENSE,
    FEATURES,
    FIRST_TASK,
    FIRST_WORD,
    DifficultyModel,
    SparseFeatures,
)

Floats = NDArray[np.float64]

FOLDS = 5
PENALTIES = (2.0, 4.0, 8.0, 16.0, 32.0)
MIN_REQUESTS = 2
"""Requests a word must be in."""

FORM_SCALE, SIGNAL_SCALE, VECTOR_SCALE, TASK_SCALE = 0.05, 0.3, 1.0, 0.35
"""How much the penalty lets each kind of feature say, beside words: dense ones are standardised."""

FIRST_SIGNAL = 32
BINS = 12
SLOPE = 1e-4
"""Gain from end to end of the map's flat parts, so that no two scores are equal in rank."""

DIGITS = 6


@dataclass(frozen=True)
class Fitted:
    """A model, and what it says of requests it did not see.

    Attributes:
        model: fitted on all requests.
        unseen: predicted gain of each request, from models fitted without it.
        penalty: that was chosen.
    """

    model: DifficultyModel
    unseen: Floats
    penalty: float


def fit_gain(
    features: Sequence[SparseFeatures], gains: Floats, weights: Floats, *, seed: int
) -> Fitted | None:
    """Fits a model of the gain.

    Args:
        features: of each request.
        gains: quality of the top tier minus quality of the lower one, in [-1, 1].
        weights: of each request, positive.
        seed: of the folds.

    Returns:
        None where there is nothing to learn: fewer than two requests a fold, or all gains equal.
    """
    if len(features) < 2 * FOLDS or np.ptp(gains) == 0.0:
        return None
    rows = _matrix(features)
    folds = list(KFold(FOLDS, shuffle=True, random_state=seed).split(np.arange(len(features))))
    raw = np.zeros((len(PENALTIES), len(features)))
    for train, test in folds:
        scaling = _Scaling.of(rows[train])
        seen, unseen = scaling.apply(rows[train]), scaling.apply(rows[test])
        for at, penalty in enumerate(PENALTIES):
            model = _ridge(seen, gains[train], weights[train], penalty)
            raw[at, test] = model.predict(unseen)
    errors = np.average((raw - gains) ** 2, axis=1, weights=weights)
    best = int(errors.argmin())
    points = _calibrated(raw[best], gains, weights)
    scaling = _Scaling.of(rows)
    whole = _ridge(scaling.apply(rows), gains, weights, PENALTIES[best])
    return Fitted(
        model=_exported(whole.coef_, float(whole.intercept_), scaling, points),
        unseen=np.interp(raw[best], [score for score, _ in points], [gain for _, gain in points]),
        penalty=PENALTIES[best],
    )


def _matrix(features: Sequence[SparseFeatures]) -> sparse.csr_matrix:
    ends = np.cumsum([0, *(len(request) for request in features)])
    indexes = np.fromiter(
        (index for request in features for index, _ in request), np.int64, ends[-1]
    )
    values = np.fromiter(
        (value for request in features for _, value in request), np.float64, ends[-1]
    )
    return sparse.csr_matrix((values, indexes, ends), shape=(len(features), FEATURES))


@dataclass(frozen=True)
class _Scaling:
    """What turns features into columns of the regression; learned from the training part."""

    middle: Floats  # of each feature below FIRST_TASK
    factor: Floats  # of each feature; 0 leaves it out

    @staticmethod
    def of(rows: sparse.csr_matrix) -> "_Scaling":
        count = rows.shape[0]
        dense = rows[:, :FIRST_TASK].toarray()
        middle, spread = dense.mean(axis=0), dense.std(axis=0)
        scale = np.full(FIRST_TASK, VECTOR_SCALE)
        scale[:FIRST_SIGNAL], scale[FIRST_SIGNAL:DENSE] = FORM_SCALE, SIGNAL_SCALE
        # A vector's values share one length already.
        spread[DENSE:] = np.where(spread[DENSE:] > 0.0, 1.0, 0.0)
        factor = np.zeros(FEATURES)
        np.divide(scale, spread, out=factor[:FIRST_TASK], where=spread > 1e-9)  # noqa: PLR2004 -- rounding
        factor[FIRST_TASK:FIRST_WORD] = TASK_SCALE
        requests = np.bincount(rows.indices, minlength=FEATURES)[FIRST_WORD:]
        rarity = np.log((1.0 + count) / (1.0 + requests)) + 1.0
        factor[FIRST_WORD:] = np.where(requests >= MIN_REQUESTS, rarity, 0.0)
        return _Scaling(middle, factor)

    def apply(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        scaled = rows @ sparse.diags(self.factor)
        words = scaled[:, FIRST_WORD:]
        lengths = np.sqrt(np.asarray(words.multiply(words).sum(axis=1)).ravel())
        shorter = sparse.diags(np.divide(1.0, lengths, out=lengths, where=lengths > 0.0))
        dense = scaled[:, :FIRST_TASK].toarray() - self.middle * self.factor[:FIRST_TASK]
        used = np.flatnonzero(self.factor[:FIRST_TASK])
        plain = sparse.csr_matrix((len(lengths), FIRST_TASK)).tolil()
        plain[:, used] = dense[:, used]
        tasks = scaled[:, FIRST_TASK:FIRST_WORD]
        return sparse.hstack([plain.tocsr(), tasks, shorter @ words]).tocsr()


def _ridge(rows: sparse.csr_matrix, gains: Floats, weights: Floats, penalty: float) -> Ridge:
    model = Ridge(alpha=penalty, solver="lsqr", tol=1e-3, max_iter=60)
    return model.fit(rows, gains, sample_weight=weights)


def _calibrated(raw: Floats, gains: Floats, weights: Floats) -> tuple[tuple[float, float], ...]:
    """The monotone map from scores to gains, at the means of quantiles of the scores."""
    groups = [part for part in np.array_split(np.argsort(raw, kind="stable"), BINS) if len(part)]
    scores = np.array([np.average(raw[part], weights=weights[part]) for part in groups])
    seen = np.array([np.average(gains[part], weights=weights[part]) for part in groups])
    sizes = np.array([weights[part].sum() for part in groups])
    scores, first = np.unique(np.round(scores, DIGITS), return_index=True)
    if len(scores) == 1:
        return ((float(scores[0]), float(np.average(seen, weights=sizes))),)
    smooth = IsotonicRegression().fit_transform(scores, seen[first], sample_weight=sizes[first])
    # Beyond the outer means the map goes on to the extremes, so that ranks stay apart there too.
    ends = np.round([raw.min() - 1e-6, raw.max() + 1e-6], DIGITS)
    step = (smooth[-1] - smooth[0]) / max(scores[-1] - scores[0], 1e-9)
    low = smooth[0] - step * max(0.0, scores[0] - ends[0])
    high = smooth[-1] + step * max(0.0, ends[1] - scores[-1])
    points = [
        *([(ends[0], low)] if ends[0] < scores[0] else []),
        *zip(scores, smooth, strict=True),
        *([(ends[1], high)] if ends[1] > scores[-1] else []),
    ]
    rising = [
        (float(score), min(1.0, max(-1.0, float(gain) + SLOPE * at)))
        for at, (score, gain) in enumerate(points)
    ]
    return tuple((score, round(gain, DIGITS)) for score, gain in rising)


def _exported(
    coefficients: Floats,
    intercept: float,
    scaling: _Scaling,
    points: tuple[tuple[float, float], ...],
) -> DifficultyModel:
    """The model in terms of plain features."""
    plain = coefficients[:FIRST_WORD] * scaling.factor[:FIRST_WORD]
    bias = intercept - float(plain[:FIRST_TASK] @ scaling.middle)
    weights = {int(at): float(plain[at]) for at in np.flatnonzero(plain)}
    known = np.flatnonzero(scaling.factor[FIRST_WORD:]) + FIRST_WORD
    weights |= {int(at): round(float(coefficients[at]), DIGITS) for at in known}
    rarities = {int(at): round(float(scaling.factor[at]), 3) for at in known}
    if not math.isfinite(bias):
        raise ValueError("the fit did not end in finite numbers")
    return DifficultyModel(weights, rarities, bias, points)
