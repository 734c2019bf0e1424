"""Load as it was recorded, a line for each tier and minute, for trying policies on it later."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.buckets import BOUNDS

MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RecordedMinute:
    """What a tier was asked for in one minute, added up over routers.

    A minute in which no router was heard has no record, which is not to say that nothing came.

    Attributes:
        tier: which.
        minute: whole minutes since 1970, UTC: it began at ``minute * 60``.
        seconds: of it that were counted; less than 60 where routers were heard for a part of it.
        arrivals: the tier's turns at a request.
        prompt_tokens: of these.
        finished: answers that ended.
        output_tokens: of these.
        first_texts: answers that began and were timed.
        late: of these, those that began later than the objective of the tier's pool then.
    """

    tier: str
    minute: int
    seconds: float
    arrivals: int
    prompt_tokens: int
    finished: int
    output_tokens: int
    first_texts: int
    late: int


def later_than(counts: Sequence[int], seconds: float) -> int:
    """How many durations are longer.

    Args:
        counts: durations in `services.common.buckets`; within a bucket they are taken to be spread
            evenly.
        seconds: the bound.
    """
    late = 0.0
    for index, count in enumerate(counts):
        low = BOUNDS[index - 1] if index else 0.0
        high = BOUNDS[index] if index < len(BOUNDS) else float("inf")
        if seconds <= low:
            late += count
        elif seconds < high < float("inf"):
            late += count * (high - seconds) / (high - low)
    return round(late)
