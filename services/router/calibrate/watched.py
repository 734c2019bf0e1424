"""What the judge that will watch a route makes of its calibration's evidence.

Labels and a judge measure loss in different terms. A judge that compares answers with the top
tier's counts every difference as a loss, where labels count only what is wrong: measured in its
terms, the loss is higher though nothing is worse. The guardrail starts from that level.
"""

from collections.abc import Callable, Sequence

from services.router.calibrate.evidence import Record
from services.router.policy.calibration import Judgement
from services.router.policy.judging import by_match, by_similarity
from services.router.policy.routes import JudgeKind

Watch = Callable[[Sequence[str]], Sequence[float]]
"""Qualities of some answers, the top tier's last."""


def watch_of(kind: JudgeKind, least_similarity: float) -> Watch | None:
    """The judge of a route, where it looks at nothing but the answers."""
    if kind is JudgeKind.MATCH:
        return by_match
    if kind is JudgeKind.SIMILARITY:
        return lambda answers: by_similarity(answers, least_similarity)
    return None


def watched_loss(
    judgement: Judgement, records: Sequence[Record], watch: Watch | None
) -> float | None:
    """Mean loss of what these thresholds answer, weighted by inverse propensity."""
    told = [[tier.answer for tier in one.tiers] for one in records]
    if watch is None or not records or any(answer is None for many in told for answer in many):
        return None
    total = weights = 0.0
    for one, answers in zip(records, told, strict=True):
        qualities = watch([answer or "" for answer in answers])
        weights += 1.0 / one.propensity
        total += (qualities[-1] - qualities[_answering(judgement, one)]) / one.propensity
    return total / weights


def _answering(judgement: Judgement, record: Record) -> int:
    """The tier that would answer."""
    for tier, rung in enumerate(judgement.thresholds.rungs):
        found = record.tiers[tier]
        if not rung.enters(judgement.gain(tier, record.told)):
            continue
        certainty = judgement.certainty(tier, record.told, found.certainty)
        if rung.accepts(certainty, valid=found.valid):
            return tier
    return len(record.tiers) - 1
