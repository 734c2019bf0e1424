"""What a calibration tells of the traffic that it was made on."""

from random import Random

from services.router.calibrate.cascade import outcome, table_of
from services.router.calibrate.evidence import Record, TierResult
from services.router.calibrate.process import Settings, calibrate_parts
from services.router.policy.certainty import Certainty, Measure
from services.router.routes.artefact import Model


def record(number: int) -> Record:
    """Three tiers; the first is mostly right and knows it, the second a little better."""
    random = Random(number)
    tiers = []
    for at, chance in enumerate((0.7, 0.9, 1.0)):
        right = random.random() < chance
        sure = -0.05 - 0.3 * random.random() - (0.0 if right else 2.0)
        known = Certainty(sure, sure, sure)
        tiers.append(TierResult(Model(f"t{at}", "", ""), float(right), known, 4.0**at, 4.0**at))
    return Record(str(number), "", (), 1.0, tuple(tiers))


def test_how_sure_a_tier_was_is_told_of_the_requests_that_reach_it() -> None:
    """As routers will see it: the second tier never sees what the first one has answered."""
    fit, certify = [record(one) for one in range(400)], [record(one) for one in range(400, 1000)]
    settings = Settings(epsilon=0.1, delta=0.1, measures=(Measure.MEAN,), predict=False)
    result = calibrate_parts(fit, certify, settings)
    thresholds = result.judgement.thresholds
    assert result.calibration.certificate.certified
    assert all(rung.skip_above_gain == 1.0 for rung in thresholds.rungs)
    ran = outcome(table_of(result.judgement, certify), thresholds, 0.0).ran
    samples = [shape.samples for shape in result.bands.certainties if shape is not None]
    assert samples == [600, ran[:, 1].sum()]
    assert samples[1] < 300
