"""From evidence to a calibration: split, learn, choose the measure, certify, describe traffic.

The evidence is split by its questions into a fit and a certify part, see `questions`. Everything is
learned and chosen on the fit part: models, and on their predictions for requests they did not see,
the measure of certainty and the candidates. The certify part is touched once, by the test.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.router.calibrate import bounds
from services.router.calibrate.candidates import propose
from services.router.calibrate.cascade import EvidenceTable, pair_of
from services.router.calibrate.certification import MIN_TO_FIT, Calibration, calibrate
from services.router.calibrate.evidence import Record
from services.router.calibrate.fit import Fitted, fit_gain
from services.router.calibrate.questions import distinct, recognised, split
from services.router.calibrate.spending import level
from services.router.calibrate.traffic import bands_of, sameness, unknown_certainties
from services.router.calibrate.watched import Watch, spare_of, watched_loss
from services.router.policy.calibration import (
    Judgement,
    Pair,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Measure
from services.router.policy.difficulty import assurance, with_certainty
from services.router.policy.drift import Bands

MEASURES = (Measure.MEAN, Measure.MINIMUM, Measure.FIRST_K, Measure.LEARNED)
"""Simplest first: of equal ones the simplest is taken."""

Tell = Callable[[str, float], None]
"""Takes what is being done now, and what share of all is done."""

FOLDS_SEED = 77
"""Of the folds that models are chosen on, all within the fit part."""

WORTH_IT = 0.005
"""Share of the top tier's cost that a less simple measure must save."""


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for.

    Attributes:
        epsilon: most quality that may be lost on average.
        delta: most probability that a certificate is wrong, all looks at the evidence together.
        shadow_share: share of requests that will be sampled as evidence, whose cost counts.
        cost: `micro_usd` or `engine_ms`.
        certify_share: share of the questions that is kept for the test.
        first_k: tokens that the evidence's `first_k` looks at.
        measures: of certainty, that may be chosen; none turns the cascade off.
        predict: whether difficulty may be predicted.
        watch: qualities of some answers as the judge that will watch the route finds them, the
            top tier's last; None where only whoever judged the evidence can tell.
        look: number of this look at the evidence, from 1; see `spending`.
        lowest_propensity: with which any request is drawn; None where all are drawn alike.
    """

    epsilon: float
    delta: float
    shadow_share: float = 0.05
    cost: str = "micro_usd"
    certify_share: float = 0.6
    first_k: int = 8
    measures: tuple[Measure, ...] = MEASURES
    predict: bool = True
    watch: Watch | None = None
    look: int = 1
    lowest_propensity: float | None = None


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        calibration: certificate and curve.
        judgement: what routers decide by; the safe one where nothing was certified.
        bands: what the certify part looked like.
        notes: what a person should know, a sentence each.
        watched_loss: mean loss of the certify part as `Settings.watch` finds it; None without.
        spare: share of worse answers minus mean loss there; see `watched.spare_of`.
        repeats: pairs of questions that an older pair had asked already.
        unknown: share of the questions whose answer by each lower tier has no known certainty.
    """

    calibration: Calibration
    judgement: Judgement
    bands: Bands
    notes: tuple[str, ...]
    watched_loss: float | None = None
    spare: float | None = None
    repeats: int = 0
    unknown: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Learned:
    """The models of one lower tier."""

    before: Fitted | None
    after: Fitted | None


def _silent(_doing: str, _done: float) -> None:
    """Tells nobody."""


def calibrate_records(
    records: Sequence[Record], settings: Settings, tell: Tell = _silent, *, route: str = ""
) -> Result:
    """Calibrates a route.

    Args:
        records: usable ones, of one ladder, oldest first.
        settings: what is asked for.
        tell: is called at each step; a step may take a minute.
        route: its name.

    Raises:
        ValueError: there are no records, or a setting is out of range.
    """
    if not records:
        raise ValueError("there are no pairs to calibrate on")
    if not 0.0 < settings.certify_share < 1.0:
        raise ValueError(f"certify_share must be in (0, 1), got {settings.certify_share}")
    asked = distinct(recognised(records))
    fit, certify = split(asked, settings.certify_share, route)
    result = calibrate_parts(fit, certify, settings, tell)
    return replace(result, repeats=len(records) - len(asked))


def calibrate_parts(
    fit: Sequence[Record], certify: Sequence[Record], settings: Settings, tell: Tell = _silent
) -> Result:
    """Calibrates on parts that are split already; see `calibrate_records`."""
    ladder = [tier.model.tier for tier in (fit or certify)[0].tiers]
    tiers = len(ladder)
    notes = sameness([*fit, *certify])
    learned = []
    for tier, name in enumerate(ladder[:-1]):
        tell(f"learning which requests {name} does not answer well", 0.7 * tier / (tiers - 1))
        enough = len(fit) >= MIN_TO_FIT
        learned.append(_learn(fit, tier, settings, notes) if enough else _Learned(None, None))
    tell("choosing the measure of certainty", 0.7)
    measure = _measure(fit, len(certify), learned, settings) if settings.measures else None
    tell("certifying thresholds", 0.9)
    calibration = calibrate(
        _pairs(fit, learned, measure, settings, seen=True),
        _pairs(certify, learned, measure, settings, seen=False),
        tiers=tiers,
        epsilon=settings.epsilon,
        delta=settings.delta,
        measure=measure or Measure.MEAN,
        shadow_share=settings.shadow_share,
        look=settings.look,
        lowest_propensity=settings.lowest_propensity,
        certify_share=settings.certify_share,
    )
    thresholds = calibration.certificate.thresholds
    judgement = (
        _judgement(thresholds, learned, settings.first_k)
        if calibration.certificate.certified
        else replace(Judgement.safe(tiers), thresholds=thresholds, first_k=settings.first_k)
    )
    return Result(
        calibration,
        judgement,
        bands_of(judgement, calibration, certify, settings.lowest_propensity),
        tuple(notes),
        watched_loss(judgement, certify, settings.watch, settings.lowest_propensity),
        spare_of(judgement, certify, settings.watch, settings.lowest_propensity),
        unknown=unknown_certainties([*fit, *certify]),
    )


def _learn(fit: Sequence[Record], tier: int, settings: Settings, notes: list[str]) -> _Learned:
    gains = np.array([record.tiers[-1].quality - record.tiers[tier].quality for record in fit])
    propensities = np.array([record.propensity for record in fit])
    weights = (settings.lowest_propensity or propensities.min()) / propensities
    name = fit[0].tiers[tier].model.tier
    if np.ptp(gains) == 0.0:
        notes.append(
            f"Every pair shows the same gain over {name}: there is nothing to learn, and its "
            "difficulty is not predicted."
        )
        return _Learned(None, None)
    before = after = None
    if settings.predict:
        before = fit_gain([record.features for record in fit], gains, weights, seed=FOLDS_SEED)
    if Measure.LEARNED in settings.measures:
        answered = [with_certainty(record.features, record.tiers[tier].certainty) for record in fit]
        after = fit_gain(answered, gains, weights, seed=FOLDS_SEED)
    return _Learned(before, after)


def _measure(
    fit: Sequence[Record], n_certify: int, learned: Sequence[_Learned], settings: Settings
) -> Measure:
    """The measure that will probably certify the cheapest thresholds, as the fit part shows it."""
    best, least = settings.measures[0], math.inf
    if len(fit) < MIN_TO_FIT or not n_certify or len(settings.measures) == 1:
        return best
    for measure in settings.measures:
        pairs = _pairs(fit, learned, measure, settings, seen=True)
        evidence = EvidenceTable.of(pairs, settings.lowest_propensity)
        granted = level(settings.delta, settings.look)
        expected = [
            proposal.cost / max(evidence.top_cost, 1e-12)
            for proposal in propose(evidence, measure, settings.shadow_share, settings.epsilon)
            if (
                need := bounds.samples_needed(
                    proposal.worst, proposal.deviation, settings.epsilon, granted, exact=True
                )
            )
            is not None
            and need <= n_certify
        ]
        cost = min(expected, default=1.0)
        if cost < least - WORTH_IT:
            best, least = measure, cost
    return best


def _pairs(
    records: Sequence[Record],
    learned: Sequence[_Learned],
    measure: Measure | None,
    settings: Settings,
    *,
    seen: bool,
) -> list[Pair]:
    """Records as the decision sees them; `seen` ones were fitted on, in this very order."""
    lower = range(len(learned))
    judgement = Judgement(
        Thresholds.safe(len(learned) + 1, measure or Measure.MEAN),
        tuple(
            TierModels(
                models.before.model if models.before else None,
                models.after.model if models.after else None,
            )
            for models in learned
        ),
        settings.first_k,
    )

    def gain(at: int, tier: int) -> float | None:
        before = learned[tier].before
        if before is None or not seen:
            return judgement.gain(tier, records[at].features)
        return float(before.unseen[at])

    def certainty(at: int, tier: int) -> float | None:
        after, certainty = learned[tier].after, records[at].tiers[tier].certainty
        if measure is None or certainty is None:
            return None
        if measure is Measure.LEARNED and after is not None and seen:
            return assurance(float(after.unseen[at]))
        return judgement.certainty(tier, records[at].features, certainty)

    return [
        pair_of(
            record,
            (gain(at, tier) for tier in lower),
            (certainty(at, tier) for tier in lower),
            settings.cost,
        )
        for at, record in enumerate(records)
    ]


def _judgement(thresholds: Thresholds, learned: Sequence[_Learned], first_k: int) -> Judgement:
    """What routers decide by, with the models that the thresholds use and no others."""
    models = []
    for rung, known in zip(thresholds.rungs, learned, strict=True):
        asks = abs(rung.skip_above_gain) != 1.0
        checks = rung.accept_at_certainty is not None and rung.skip_above_gain != -1.0
        before = known.before.model if asks and known.before else None
        learnt = checks and thresholds.measure is Measure.LEARNED
        models.append(TierModels(before, known.after.model if learnt and known.after else None))
    return Judgement(thresholds, tuple(models), first_k)
