"""What the judge that will watch a route makes of its calibration's evidence.

Labels and a judge measure loss in different terms. A judge that compares answers with the top
tier's counts every difference as a loss, where labels count only what is wrong: measured in its
terms, the loss is higher though nothing is worse. The guardrail starts from that level.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

import numpy as np

from services.router.calibrate.cascade import outcome, table_of
from services.router.calibrate.evidence import Record
from services.router.policy.calibration import Judgement
from services.router.policy.judging import by_match, by_similarity
from services.router.policy.routes import JudgeKind

Watch = Callable[[Sequence[str]], Sequence[float]]
"""Qualities of some answers, the top tier's last."""


def watch_of(kind: JudgeKind, least_similarity: float) -> Watch | None:
    """The judge of a route, where it looks at nothing but the answers."""
    match kind:
        case JudgeKind.MATCH:
            return by_match
        case JudgeKind.SIMILARITY:
            return lambda answers: by_similarity(answers, least_similarity)
        case JudgeKind.SCHEMA | JudgeKind.MODEL | JudgeKind.OUTCOME:
            return None
        case _:
            assert_never(kind)


def watched_loss(
    judgement: Judgement,
    records: Sequence[Record],
    watch: Watch | None,
    lowest: float | None = None,
) -> float | None:
    """Mean loss of what these thresholds answer, by inverse propensity and as often as asked.

    `lowest` is the propensity with which any request is drawn; None where all are drawn alike.
    """
    answers = [[tier.answer for tier in record.tiers] for record in records]
    if watch is None or not records or any(text is None for texts in answers for text in texts):
        return None
    table = table_of(judgement, records, lowest=lowest)
    answered = outcome(table, judgement.thresholds, 0.0).answered
    losses = []
    for texts, tier in zip(answers, answered, strict=True):
        qualities = watch([text or "" for text in texts])
        losses.append(qualities[-1] - qualities[tier])
    return float(np.average(losses, weights=table.weights))
