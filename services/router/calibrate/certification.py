"""Certifies thresholds on paired evidence, or says how many pairs are missing.

Assumptions of every certificate: the certify part and the requests to come are independent draws
of the same traffic; propensities are those with which pairs were really drawn and never 0; quality
is what the judge says it is; models, prompts and judge stay as they were. Drift and the guardrail
watch that from then on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.router.calibrate import bounds
from services.router.calibrate.candidates import Proposal, measured, propose
from services.router.calibrate.cascade import EvidenceTable, Outcome, outcome
from services.router.calibrate.exact import exact_p_value
from services.router.policy.calibration import Certificate, Pair, Thresholds
from services.router.policy.certainty import Measure

EXACT = "learn-then-test, fixed sequence, exact score test"
BETTING = "learn-then-test, fixed sequence, betting test"
ASSUMPTIONS = (
    "pairs and future requests are independent draws of the same traffic; every pair was drawn"
    " with the propensity it carries; quality is what the judge says; models, prompts and judge"
    " stay as they were"
)
MIN_TO_FIT = 100
"""Pairs without which nothing is fitted."""

BOUND_STEPS = 20


@dataclass(frozen=True)
class Point:
    """One candidate on the cost-quality curve, as the certify part shows it.

    Attributes:
        cost: share of the top tier's cost, shadow cost included.
        loss: mean loss.
        p_value: of the null that the mean loss is epsilon or more; None where it was not tested,
            as a safer candidate had failed.
        certified: the null was refuted.
    """

    thresholds: Thresholds
    cost: float
    loss: float
    p_value: float | None
    certified: bool


@dataclass(frozen=True)
class Calibration:
    """A certificate, and the curve it was chosen from, safe to aggressive."""

    certificate: Certificate
    curve: tuple[Point, ...]


def calibrate(
    fit: Sequence[Pair],
    certify: Sequence[Pair],
    *,
    tiers: int,
    epsilon: float,
    delta: float,
    measure: Measure,
    shadow_share: float,
) -> Calibration:
    """Chooses thresholds on one part of the evidence and certifies them on the other.

    Args:
        fit: its gains and learned certainties must be of models that did not see the request.
        certify: requests that had no part in any choice; in an order that does not depend on
            their qualities.
        tiers: of the ladder, at least 2.
        epsilon: most quality that may be lost on average, in (0, 1).
        delta: most probability that the certificate is wrong, in (0, 1).
        measure: what the pairs' certainties are.
        shadow_share: share of requests sampled as evidence, in [0, 1].

    Returns:
        the cheapest certified thresholds, or the safe ones with how many pairs are missing.
    """
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} must be in (0, 1), got {value}")
    if not 0.0 <= shadow_share <= 1.0:
        raise ValueError(f"shadow_share must be in [0, 1], got {shadow_share}")

    def safe(candidates: Sequence[Proposal], *, exact: bool) -> Certificate:
        return _safe(
            tiers=tiers,
            measure=measure,
            epsilon=epsilon,
            delta=delta,
            n_fit=len(fit),
            n_certify=len(certify),
            missing=pairs_missing(candidates, len(fit), len(certify), epsilon, delta, exact=exact),
            method=EXACT if exact else BETTING,
        )

    if len(fit) < MIN_TO_FIT or not certify:
        return Calibration(safe([], exact=True), ())
    tested = EvidenceTable.of(certify)
    candidates = propose(EvidenceTable.of(fit), measure, shadow_share, epsilon)
    losses = np.unique(tested.qualities[:, -1:] - tested.qualities)
    exact = bounds.is_exact(losses, tested.weights)
    curve = _curve(candidates, tested, shadow_share, epsilon, delta, exact=exact)
    passed = [at for at, point in enumerate(curve) if point.certified and point.cost < 1.0]
    if not passed:
        return Calibration(safe(candidates, exact=exact), curve)
    chosen = min(passed, key=lambda at: curve[at].cost)
    seen = outcome(tested, curve[chosen].thresholds, shadow_share)
    shares = np.bincount(seen.answered, weights=tested.weights, minlength=tiers)
    shares = shares / shares.sum()
    certificate = Certificate(
        thresholds=curve[chosen].thresholds,
        certified=True,
        epsilon=epsilon,
        delta=delta,
        bound=_bound(candidates[chosen], seen, tested, epsilon, delta, exact=exact),
        loss=curve[chosen].loss,
        n_fit=len(fit),
        n_certify=len(certify),
        escalation_rate=float(shares[-1]),
        tier_shares=tuple(float(share) for share in shares),
        saving=1.0 - curve[chosen].cost,
        shadow_share=shadow_share,
        method=EXACT if exact else BETTING,
        assumptions=ASSUMPTIONS,
    )
    return Calibration(certificate, curve)


def _curve(
    candidates: Sequence[Proposal],
    tested: EvidenceTable,
    shadow_share: float,
    epsilon: float,
    delta: float,
    *,
    exact: bool,
) -> tuple[Point, ...]:
    """Every candidate on the certify part; tested in turn, until the first that is not refuted."""
    curve: list[Point] = []
    going = True
    for candidate in candidates:
        shown = measured(tested, candidate.thresholds, shadow_share)
        p_value = None
        if going:
            seen = outcome(tested, candidate.thresholds, shadow_share)
            p_value = _p_value(candidate, seen, tested, epsilon, delta, exact=exact)
            going = p_value <= delta
        cost = shown.cost / max(tested.top_cost, 1e-12)
        curve.append(Point(candidate.thresholds, cost, shown.loss, p_value, certified=going))
    return tuple(curve)


def pairs_missing(
    candidates: Sequence[Proposal],
    n_fit: int,
    n_certify: int,
    epsilon: float,
    delta: float,
    *,
    exact: bool,
) -> int | None:
    """About how many more pairs certify the easiest candidate, four times out of five.

    New pairs are split between fitting and certifying as those at hand were. Without candidates,
    as with hardly any evidence, it is what a candidate without any loss would need: a lower limit.

    Returns:
        at least 1, or None where candidates exist that no number of pairs would certify.
    """
    have = n_fit + n_certify
    share = n_certify / have if n_fit and n_certify else 0.5
    if n_fit >= MIN_TO_FIT and not candidates:
        return None
    # One more difference than was seen, so that none seen is not taken for none to come.
    needs = [
        bounds.samples_needed(
            candidate.loss,
            math.sqrt((candidate.deviation**2 * n_fit + 1.0) / (n_fit + 1.0)),
            epsilon,
            delta,
            exact=exact,
        )
        for candidate in candidates
    ] or [bounds.samples_needed(0.0, 0.0, epsilon, delta, exact=exact)]
    known = [need for need in needs if need is not None]
    if not known:
        return None
    total = max(min(known) / share, MIN_TO_FIT / (1.0 - share))
    return max(1, round(total) - have)


def _p_value(
    candidate: Proposal,
    seen: Outcome,
    tested: EvidenceTable,
    epsilon: float,
    delta: float,
    *,
    exact: bool,
) -> float:
    if exact:
        worse, better = int((seen.losses > 0).sum()), int((seen.losses < 0).sum())
        return exact_p_value(worse, better, len(tested), epsilon, delta)
    bet = bounds.planned_bet(candidate.loss, candidate.deviation, len(tested), epsilon, delta)
    return bounds.betting_p_value(seen.losses, tested.weights, epsilon, bet)


def _bound(
    candidate: Proposal,
    seen: Outcome,
    tested: EvidenceTable,
    epsilon: float,
    delta: float,
    *,
    exact: bool,
) -> float:
    """The smallest loss that the certify part refutes for these thresholds taken alone."""
    low, high = float(np.average(seen.losses, weights=tested.weights)), epsilon
    for _ in range(BOUND_STEPS):
        middle = (low + high) / 2.0
        refuted = _p_value(candidate, seen, tested, middle, delta, exact=exact) <= delta
        low, high = (low, middle) if refuted else (middle, high)
    return high


def _safe(
    *,
    tiers: int,
    measure: Measure,
    epsilon: float,
    delta: float,
    n_fit: int,
    n_certify: int,
    missing: int | None,
    method: str,
) -> Certificate:
    return Certificate(
        thresholds=Thresholds.safe(tiers, measure),
        certified=False,
        epsilon=epsilon,
        delta=delta,
        bound=0.0,
        loss=0.0,
        n_fit=n_fit,
        n_certify=n_certify,
        escalation_rate=1.0,
        tier_shares=(0.0,) * (tiers - 1) + (1.0,),
        saving=0.0,
        shadow_share=0.0,
        method=method,
        assumptions=ASSUMPTIONS,
        pairs_missing=missing,
    )
