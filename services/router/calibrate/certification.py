"""Certifies thresholds on paired evidence, or says how many pairs are missing.

What is certified is the mean loss in both ways of counting questions that repeat: each distinct
question once, and each as often as it was asked. Where no question repeats they are one. A question
is one draw in either, so that copies of it are no further evidence, except for standing questions;
see `questions`. Of others one draw counts for no more requests than any of the fit part.

Assumptions of every certificate: questions of the certify part and of the requests to come are
independent draws of the same traffic, with how often each is asked; propensities are those with
which pairs were really drawn, and none is below the declared lowest; quality is what the judge says
it is; models, prompts and judge stay as they were. Drift and the guardrail watch that from then on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from services.router.calibrate import bounds
from services.router.calibrate.candidates import Proposal, measured, propose
from services.router.calibrate.cascade import EvidenceTable, Outcome, outcome
from services.router.calibrate.exact import exact_p_value
from services.router.calibrate.spending import level
from services.router.policy.calibration import Certificate, Pair, Thresholds
from services.router.policy.certainty import Measure

EXACT = "learn-then-test, fixed sequence, exact score test"
BETTING = "learn-then-test, fixed sequence, betting test"
WITH_REPEATS = "; repeated questions by the betting test too"
ASSUMPTIONS = (
    "distinct questions, with how often each is asked, are independent draws of the same traffic as"
    " future requests; every pair was drawn with the propensity it carries, and none with less than"
    " the declared lowest; quality is what the judge says; models, prompts and judge stay as they"
    " were"
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

    @property
    def looked(self) -> bool:
        """Whether anything was tested, so that something is known of the certify part."""
        return any(point.p_value is not None for point in self.curve)


@dataclass(frozen=True)
class _Trial:
    """How candidates are tested.

    Attributes:
        fit: what they were chosen on.
        tested: the certify part.
        level: most probability that a certificate may be wrong.
    """

    fit: EvidenceTable
    tested: EvidenceTable
    level: float

    @cached_property
    def exact(self) -> bool:
        """Whether the exact test applies."""
        losses = np.unique(self.tested.qualities[:, -1:] - self.tested.qualities)
        return bounds.is_exact(losses, self.tested.once[self.tested.once > 0.0])

    @cached_property
    def repeats(self) -> bool:
        """Whether it matters how often a question counts."""
        once, weights = self.tested.once, self.tested.weights
        return bool(np.any(once == 0.0) or np.ptp(weights / once) > 0.0)

    @property
    def method(self) -> str:
        """What tests, in words."""
        return (EXACT if self.exact else BETTING) + (WITH_REPEATS if self.repeats else "")

    def p_value(self, candidate: Proposal, seen: Outcome, epsilon: float) -> float:
        """Of the null that the mean loss is epsilon or more in one way of counting or the other."""
        tested, fit = self.tested, self.fit
        losses, once = seen.losses[tested.once > 0.0], tested.once[tested.once > 0.0]
        if self.exact:
            worse, better = int((losses > 0).sum()), int((losses < 0).sum())
            found = exact_p_value(worse, better, len(losses), epsilon, self.level)
        else:
            shown = candidate.once, candidate.deviation
            bet = bounds.planned_bet(shown, fit.once, len(losses), epsilon, self.level)
            found = bounds.betting_p_value(losses, once, epsilon, bet)
        if not self.repeats or found > self.level:
            return found
        losses = np.repeat(seen.losses, tested.draws)
        weights = np.repeat(tested.weights / tested.draws, tested.draws)
        shown = candidate.loss, candidate.deviation
        bet = bounds.planned_bet(shown, fit.weights, len(losses), epsilon, self.level)
        return max(found, bounds.betting_p_value(losses, weights, epsilon, bet, at_end=True))


def calibrate(
    fit: Sequence[Pair],
    certify: Sequence[Pair],
    *,
    tiers: int,
    epsilon: float,
    delta: float,
    measure: Measure,
    shadow_share: float,
    look: int = 1,
    lowest_propensity: float | None = None,
    certify_share: float | None = None,
) -> Calibration:
    """Chooses thresholds on one part of the evidence and certifies them on the other.

    Args:
        fit: each of another question; its gains and learned certainties must be of models that did
            not see the request.
        certify: each of a question that had no part in any choice; in an order that does not depend
            on their qualities.
        tiers: of the ladder, at least 2.
        epsilon: most quality that may be lost on average, in (0, 1).
        delta: most probability that the certificate is wrong, in (0, 1).
        measure: what the pairs' certainties are.
        shadow_share: share of requests sampled as evidence, in [0, 1].
        look: number of this look at the evidence, from 1; see `spending`.
        lowest_propensity: with which any request is drawn; None where all are drawn alike.
        certify_share: share of further questions that will certify; None for that of these.

    Returns:
        the cheapest certified thresholds, or the safe ones with how many pairs are missing.
    """
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} must be in (0, 1), got {value}")
    if not 0.0 <= shadow_share <= 1.0:
        raise ValueError(f"shadow_share must be in [0, 1], got {shadow_share}")
    granted = level(delta, look)

    def safe(candidates: Sequence[Proposal], next_look: int, trial: _Trial | None) -> Certificate:
        exact = trial is None or (trial.exact and not trial.repeats)
        sizes = len(fit), len(certify)
        then = level(delta, next_look)
        return Certificate(
            thresholds=Thresholds.safe(tiers, measure),
            certified=False,
            epsilon=epsilon,
            delta=delta,
            bound=0.0,
            loss=0.0,
            n_fit=len(fit),
            n_certify=len(certify),
            escalation_rate=1.0,
            tier_shares=(0.0,) * (tiers - 1) + (1.0,),
            saving=0.0,
            shadow_share=shadow_share,
            method=EXACT if trial is None else trial.method,
            assumptions=ASSUMPTIONS,
            pairs_missing=pairs_missing(
                candidates, *sizes, epsilon, then, exact=exact, share=certify_share
            ),
            look=look,
            level=granted,
        )

    if len(fit) < MIN_TO_FIT or not certify:
        return Calibration(safe([], look, None), ())
    fitted = EvidenceTable.of(fit, lowest_propensity)
    most_asked = max(pair.asked for pair in fit)
    tested = EvidenceTable.of(certify, lowest_propensity, most_asked)
    trial = _Trial(fitted, tested, granted)
    candidates = propose(fitted, measure, shadow_share, epsilon)
    curve = _curve(candidates, trial, shadow_share, epsilon)
    passed = [at for at, point in enumerate(curve) if point.certified and point.cost < 1.0]
    if not passed:
        return Calibration(safe(candidates, look + bool(candidates), trial), curve)
    chosen = min(passed, key=lambda at: curve[at].cost)
    seen = outcome(tested, curve[chosen].thresholds, shadow_share)
    shares = np.bincount(seen.answered, weights=tested.weights, minlength=tiers)
    shares = shares / shares.sum()
    certificate = Certificate(
        thresholds=curve[chosen].thresholds,
        certified=True,
        epsilon=epsilon,
        delta=delta,
        bound=_bound(candidates[chosen], seen, trial, epsilon),
        loss=curve[chosen].loss,
        n_fit=len(fit),
        n_certify=len(certify),
        escalation_rate=float(shares[-1]),
        tier_shares=tuple(float(share) for share in shares),
        saving=1.0 - curve[chosen].cost,
        shadow_share=shadow_share,
        method=trial.method,
        assumptions=ASSUMPTIONS,
        look=look,
        level=granted,
    )
    return Calibration(certificate, curve)


def _curve(
    candidates: Sequence[Proposal], trial: _Trial, shadow_share: float, epsilon: float
) -> tuple[Point, ...]:
    """Every candidate on the certify part; tested in turn, until the first that is not refuted."""
    curve: list[Point] = []
    going = True
    for candidate in candidates:
        shown = measured(trial.tested, candidate.thresholds, shadow_share)
        p_value = None
        if going:
            seen = outcome(trial.tested, candidate.thresholds, shadow_share)
            p_value = trial.p_value(candidate, seen, epsilon)
            going = p_value <= trial.level
        cost = shown.cost / max(trial.tested.top_cost, 1e-12)
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
    share: float | None = None,
) -> int | None:
    """About how many more pairs certify the easiest candidate, four times out of five.

    New pairs are split between fitting and certifying as those at hand were, or by the share that
    certifies. Without candidates,
    as with hardly any evidence, it is what a candidate without any loss would need: a lower limit.

    Returns:
        at least 1, or None where candidates exist that no number of pairs would certify.
    """
    have = n_fit + n_certify
    share = share or (n_certify / have if n_fit and n_certify else 0.5)
    if n_fit >= MIN_TO_FIT and not candidates:
        return None
    # One more difference than was seen, so that none seen is not taken for none to come.
    needs = [
        bounds.samples_needed(
            candidate.worst,
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


def _bound(candidate: Proposal, seen: Outcome, trial: _Trial, epsilon: float) -> float:
    """The smallest loss that the certify part refutes for these thresholds taken alone."""
    low, high = float(np.average(seen.losses, weights=trial.tested.weights)), epsilon
    for _ in range(BOUND_STEPS):
        middle = (low + high) / 2.0
        refuted = trial.p_value(candidate, seen, middle) <= trial.level
        low, high = (low, middle) if refuted else (middle, high)
    return high
