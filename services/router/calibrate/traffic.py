"""What evidence says of the traffic it is from, beside which thresholds it certifies."""

from collections.abc import Sequence

import numpy as np

from services.router.calibrate.cascade import Floats, outcome, table_of
from services.router.calibrate.certification import Calibration
from services.router.calibrate.evidence import Record
from services.router.policy.calibration import Judgement
from services.router.policy.drift import Bands, Histogram, Rate


def unknown_certainties(records: Sequence[Record]) -> tuple[float, ...]:
    """Share of each lower tier's answers of which nobody knows how certain they were."""
    known = np.array([[tier.certainty is None for tier in one.tiers[:-1]] for one in records])
    return tuple(float(share) for share in known.mean(axis=0))


def sameness(records: Sequence[Record]) -> list[str]:
    """A sentence where no answer was better than any other: nobody, or the judge, can tell."""
    seen = {tier.quality for record in records for tier in record.tiers}
    if len(seen) > 1:
        return []
    note = (
        f"Every answer of every tier has quality {seen.pop():g}: in these pairs no tier ever lost "
        "anything. See that the judge tells good answers from bad ones."
    )
    return [note]


def bands_of(
    judgement: Judgement,
    calibration: Calibration,
    certify: Sequence[Record],
    lowest: float | None,
) -> Bands:
    """What routers will see of traffic like the certify part: of a tier that runs, how certain.

    Each question as often as it was asked.
    """
    certificate = calibration.certificate
    rate = Rate(certificate.escalation_rate, max(1, certificate.n_certify))
    lower = range(len(judgement.models))
    if not certify:
        return Bands(rate, (None,) * len(lower), (None,) * len(lower))
    table = table_of(judgement, certify, lowest=lowest)
    ran = outcome(table, judgement.thresholds, 0.0).ran
    often = np.repeat(np.arange(len(certify)), [max(1, round(record.asked)) for record in certify])
    gains = [table.gains[often, tier] for tier in lower]
    certainties = [table.certainties[often[ran[often, tier]], tier] for tier in lower]
    return Bands(rate, tuple(map(_histogram, gains)), tuple(map(_histogram, certainties)))


def _histogram(values: Floats) -> Histogram | None:
    return Histogram.of(values[np.isfinite(values)].tolist())
