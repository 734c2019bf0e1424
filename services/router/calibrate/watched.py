"""What the judge that will watch a route makes of its calibration's evidence.

Labels and a judge measure loss in different terms. A judge that compares answers with the top
tier's counts every difference as a loss, where labels count only what is wrong: measured in its
terms, the loss is higher though nothing is worse. The guardrail starts from that level.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

import numpy as np

from services.router.calibrate.cascade import Floats, outcome, table_of
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
    found = _watched(judgement, records, watch, lowest)
    return None if found is None else float(np.average(found[0], weights=found[1]))


def spare_of(
    judgement: Judgement,
    records: Sequence[Record],
    watch: Watch | None,
    lowest: float | None = None,
) -> float | None:
    """Share of worse answers minus the mean loss: what better answers, and graded ones, make up.

    As the watch finds it; where that cannot tell, as whoever judged the evidence did. At least 0;
    None without records. `lowest` as `watched_loss` takes it.
    """
    found = _watched(judgement, records, watch, lowest)
    if found is None and records:
        table = table_of(judgement, records, lowest=lowest)
        found = outcome(table, judgement.thresholds, 0.0).losses, table.weights
    if found is None:
        return None
    losses, weights = found
    return max(0.0, float(np.average((losses > 0.0) - losses, weights=weights)))


def _watched(
    judgement: Judgement, records: Sequence[Record], watch: Watch | None, lowest: float | None
) -> tuple[Floats, Floats] | None:
    """The loss of each record as the watch finds it, and its weight; None where it cannot."""
    answers = [[tier.answer for tier in record.tiers] for record in records]
    if watch is None or not records or any(text is None for texts in answers for text in texts):
        return None
    table = table_of(judgement, records, lowest=lowest)
    answered = outcome(table, judgement.thresholds, 0.0).answered
    losses = []
    for texts, tier in zip(answers, answered, strict=True):
        qualities = watch([text or "" for text in texts])
        losses.append(qualities[-1] - qualities[tier])
    return np.array(losses), table.weights
