"""From evidence to a calibration: split, learn, choose the measure, certify, describe traffic.

The evidence is split at random, by a seed, into a fit and a certify part. Everything is learned and
chosen on the fit part: models, and on their predictions for requests they did not see, the measure
of certainty and the candidates. The certify part is touched once, by the test.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.router.calibrate import bounds
from services.router.calibrate.candidates import propose
from services.router.calibrate.cascade import EvidenceTable, Floats, outcome, pair_of, table_of
from services.router.calibrate.certification import MIN_TO_FIT, Calibration, calibrate
from services.router.calibrate.evidence import Record
from services.router.calibrate.fit import Fitted, fit_gain
from services.router.calibrate.watched import Watch, spare_of, watched_loss
from services.router.policy.calibration import (
    Judgement,
    Pair,
    Thresholds,
    TierModels,
)
from services.router.policy.certainty import Measure
from services.router.policy.difficulty import assurance, with_certainty
from services.router.policy.drift import Bands, Histogram, Rate

MEASURES = (Measure.MEAN, Measure.MINIMUM, Measure.FIRST_K, Measure.LEARNED)
"""Simplest first: of equal ones the simplest is taken."""

Tell = Callable[[str, float], None]
"""Takes what is being done now, and what share of all is done."""

WORTH_IT = 0.005
"""Share of the top tier's cost that a less simple measure must save."""


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for.

    Attributes:
        epsilon: most quality that may be lost on average.
        delta: most probability that the certificate is wrong.
        shadow_share: share of requests that will be sampled as evidence, whose cost counts.
        cost: `micro_usd` or `engine_ms`.
        certify_share: share of the evidence that is kept for the test.
        first_k: tokens that the evidence's `first_k` looks at.
        seed: of the split.
        measures: of certainty, that may be chosen; none turns the cascade off.
        predict: whether difficulty may be predicted.
        watch: qualities of some answers as the judge that will watch the route finds them, the
            top tier's last; None where only whoever judged the evidence can tell.
    """

    epsilon: float
    delta: float
    shadow_share: float = 0.05
    cost: str = "micro_usd"
    certify_share: float = 0.6
    first_k: int = 8
    seed: int = 77
    measures: tuple[Measure, ...] = MEASURES
    predict: bool = True
    watch: Watch | None = None


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
    """

    calibration: Calibration
    judgement: Judgement
    bands: Bands
    notes: tuple[str, ...]
    watched_loss: float | None = None
    spare: float | None = None


@dataclass(frozen=True)
class _Learned:
    """The models of one lower tier."""

    before: Fitted | None
    after: Fitted | None


def _silent(_doing: str, _done: float) -> None:
    """Tells nobody."""


def calibrate_records(
    records: Sequence[Record], settings: Settings, tell: Tell = _silent
) -> Result:
    """Calibrates a route.

    Args:
        records: usable ones, of one ladder.
        settings: what is asked for.
        tell: is called at each step; a step may take a minute.

    Raises:
        ValueError: there are no records, or a setting is out of range.
    """
    if not records:
        raise ValueError("there are no pairs to calibrate on")
    if not 0.0 < settings.certify_share < 1.0:
        raise ValueError(f"certify_share must be in (0, 1), got {settings.certify_share}")
    order = np.random.default_rng(settings.seed).permutation(len(records))
    cut = round(len(records) * (1.0 - settings.certify_share))
    fit = [records[at] for at in order[:cut]]
    certify = [records[at] for at in order[cut:]]
    return calibrate_parts(fit, certify, settings, tell)


def calibrate_parts(
    fit: Sequence[Record], certify: Sequence[Record], settings: Settings, tell: Tell = _silent
) -> Result:
    """Calibrates on parts that are split already; see `calibrate_records`."""
    ladder = [tier.model.tier for tier in (fit or certify)[0].tiers]
    tiers = len(ladder)
    notes = _sameness([*fit, *certify])
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
        _bands(judgement, calibration, certify),
        tuple(notes),
        watched_loss(judgement, certify, settings.watch),
        spare_of(judgement, certify, settings.watch),
    )


def _sameness(records: Sequence[Record]) -> list[str]:
    """A sentence where no answer was better than any other: nobody, or the judge, can tell."""
    seen = {tier.quality for record in records for tier in record.tiers}
    if len(seen) > 1:
        return []
    note = (
        f"Every answer of every tier has quality {seen.pop():g}: in these pairs no tier ever lost "
        "anything. See that the judge tells good answers from bad ones."
    )
    return [note]


def _learn(fit: Sequence[Record], tier: int, settings: Settings, notes: list[str]) -> _Learned:
    gains = np.array([record.tiers[-1].quality - record.tiers[tier].quality for record in fit])
    propensities = np.array([record.propensity for record in fit])
    weights = propensities.min() / propensities
    name = fit[0].tiers[tier].model.tier
    if np.ptp(gains) == 0.0:
        notes.append(
            f"Every pair shows the same gain over {name}: there is nothing to learn, and its "
            "difficulty is not predicted."
        )
        return _Learned(None, None)
    before = after = None
    if settings.predict:
        before = fit_gain([record.features for record in fit], gains, weights, seed=settings.seed)
    if Measure.LEARNED in settings.measures:
        answered = [with_certainty(record.features, record.tiers[tier].certainty) for record in fit]
        after = fit_gain(answered, gains, weights, seed=settings.seed)
    return _Learned(before, after)


def _measure(
    fit: Sequence[Record], n_certify: int, learned: Sequence[_Learned], settings: Settings
) -> Measure:
    """The measure that will probably certify the cheapest thresholds, as the fit part shows it."""
    best, least = settings.measures[0], math.inf
    if len(fit) < MIN_TO_FIT or not n_certify or len(settings.measures) == 1:
        return best
    for measure in settings.measures:
        evidence = EvidenceTable.of(_pairs(fit, learned, measure, settings, seen=True))
        expected = [
            proposal.cost / max(evidence.top_cost, 1e-12)
            for proposal in propose(evidence, measure, settings.shadow_share, settings.epsilon)
            if (
                need := bounds.samples_needed(
                    proposal.loss, proposal.deviation, settings.epsilon, settings.delta, exact=True
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


def _bands(judgement: Judgement, calibration: Calibration, certify: Sequence[Record]) -> Bands:
    """What routers will see of traffic like the certify part: of a tier that runs, how certain."""
    certificate = calibration.certificate
    rate = Rate(certificate.escalation_rate, max(1, certificate.n_certify))
    lower = range(len(judgement.models))
    if not certify:
        return Bands(rate, (None,) * len(lower), (None,) * len(lower))
    table = table_of(judgement, certify)
    ran = outcome(table, judgement.thresholds, 0.0).ran
    gains = [table.gains[:, tier] for tier in lower]
    certainties = [table.certainties[ran[:, tier], tier] for tier in lower]
    return Bands(rate, tuple(map(_histogram, gains)), tuple(map(_histogram, certainties)))


def _histogram(values: Floats) -> Histogram | None:
    return Histogram.of(values[np.isfinite(values)].tolist())
