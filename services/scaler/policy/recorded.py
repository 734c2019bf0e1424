"""Load as it was recorded, a line for each tier and minute, for trying policies on it later."""

from dataclasses import dataclass

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
